"""report.html, opened and clicked in a headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.browser import DESKTOP, PHONE, Page, page
from tests.gpu_runs import gpu_cases, gpu_folder, gpu_records, gpu_sweep
from tests.runs import run_folder, wansweep
from wansweep.publish import read_results, write_tables
from wansweep.record import Outcome, Record
from wansweep.report.html import render
from wansweep.tables.results import tabulate
from wansweep.telemetry.environment import environment

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"> & `x` colour:ink | *b* {{1}}"
FIND = "const box = document.getElementById('find'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))"
SWITCHING = "t2v_a14b-ulysses2"


def report(folder: Path, records: list[Record]) -> Path:
    made = gpu_folder(folder, records)
    write_tables(made, read_results(made))
    return made.path / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with page() as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(tmp_path_factory.mktemp("gpu"), gpu_records(gpu_cases()))


@pytest.fixture(scope="module")
def labels() -> dict[str, str]:
    return {case.id: case.label for case in gpu_cases()}


def overflow_px(browser: Page) -> int:
    return browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_the_page_opens_without_an_error_and_without_a_request(browser: Page, run: Path) -> None:
    browser.open(run)
    assert browser.console() == []
    assert browser.requests() == [run.as_uri()]
    drawn = [figure.get_attribute("id") for figure in browser.all("figure:has(svg)")]
    assert drawn == ["cost", "ladder", "time", "scaling-step", "scaling-efficiency", "timeline", "memory", "steps"]


def test_a_point_names_its_case_on_hover_and_on_click(browser: Page, run: Path, labels: dict[str, str]) -> None:
    browser.open(run)
    points = browser.all('#cost path[aria-roledescription="point"]')
    assert {point.get_attribute("aria-label") for point in points} == set(labels.values()) - {"t2v_a14b-1080p"}
    (point,) = [point for point in points if point.get_attribute("aria-label") == "t2v_a14b-group_leaf"]
    browser.hover(point)
    told = browser.until(lambda: browser.run("return document.querySelector('#vg-tooltip-element.visible')?.innerText"))
    assert "t2v_a14b-group_leaf" in told
    assert "(n=3)" in told
    browser.click(point)
    assert browser.until(lambda: browser.one("#cost .picked").text) == "t2v_a14b-group_leaf · open its breakdown"
    assert labels[browser.one("#chosen").get_attribute("value") or ""] == "t2v_a14b-group_leaf"
    browser.click(browser.one("#cost .picked a"))
    assert "group_leaf" in browser.until(lambda: browser.one(".details .breakdown").text)


def test_filters_leave_the_cases_that_fit_all_of_them(browser: Page, run: Path, labels: dict[str, str]) -> None:
    browser.open(run)
    assert browser.one("#count").text == "18 of 18 cases"
    browser.one("#find").send_keys("a14b SEQ")
    assert [labels[id_] for id_ in browser.shown_cases()] == ["t2v_a14b-sequential"]
    browser.run(FIND, "")
    browser.one('[data-filter="outcome"]').send_keys("oom")
    assert [labels[id_] for id_ in browser.shown_cases()] == ["t2v_a14b-1080p"]
    assert browser.one("#count").text == "1 of 18 cases"


def test_the_first_screen_has_the_answer_and_its_links_and_counts_lead_to_the_cases(browser: Page, run: Path, labels: dict[str, str]) -> None:
    browser.open(run)
    first, second = browser.all("#answer .video")
    assert "Fastest\n31." in first.text
    assert "t2v_a14b-cfg2-8" in second.text
    assert browser.run("return arguments[0].getBoundingClientRect().bottom < innerHeight", first)
    assert "t2v_a14b-1080p" in browser.one("#answer .failures").text
    browser.click(browser.one('.chips [data-outcome="oom"]'))
    assert [labels[id_] for id_ in browser.shown_cases()] == ["t2v_a14b-1080p"]
    browser.click(second.find_element("link text", "t2v_a14b-expert"))
    assert "t2v_a14b-expert" in browser.until(lambda: browser.one(".details .breakdown").text)
    assert browser.one("#count").text == "18 of 18 cases"


def test_a_heading_sorts_by_key_and_mouse_and_keeps_what_was_not_measured_at_the_end(browser: Page, run: Path, labels: dict[str, str]) -> None:
    browser.open(run)
    heading = next(th for th in browser.all("#cases > thead th") if th.text.startswith("Time (s)"))
    button = heading.find_element("css selector", "button")
    button.send_keys("\n")
    assert heading.get_attribute("aria-sort") == "ascending"
    rising = [labels[id_] for id_ in browser.shown_cases()]
    assert (rising[0], rising[-2:]) == ("ti2v_5b-none", ["t2v_a14b-sequential", "t2v_a14b-1080p"])
    browser.click(button)
    browser.until(lambda: heading.get_attribute("aria-sort") == "descending")
    assert [labels[id_] for id_ in browser.shown_cases()] == [*reversed(rising[:-1]), "t2v_a14b-1080p"]
    assert [th.get_attribute("aria-sort") for th in browser.all("#cases > thead th")].count("none") == len(browser.all("#cases > thead th")) - 1


def test_a_breakdown_is_made_when_its_case_is_opened(browser: Page, run: Path) -> None:
    browser.open(run)
    assert browser.all(".breakdown") == []
    browser.click(browser.one("#cases .open"))
    told = browser.until(lambda: browser.one(".breakdown").text)
    for expected in ("Total Duration: 31.", "Model_Initialization", "Step_11_Inference", "Performance Analysis", "sweep.only=[ti2v_5b-none]"):
        assert expected in told
    assert "**" not in told
    assert "\\" not in told
    assert browser.run("return document.querySelector('.breakdown img').naturalWidth") == 480
    browser.click(browser.one("#cases .open"))
    assert not browser.one(".breakdown").is_displayed()


def test_choosing_a_case_draws_its_ranks_and_where_its_experts_switch(browser: Page, run: Path) -> None:
    browser.open(run)
    browser.one("#chosen").send_keys(SWITCHING)
    shown = browser.until(lambda: "experts switch" in browser.one("#steps").text and browser.one("#timeline").text)
    assert {"High-noise expert", "Low-noise expert", "Loading", "Save"} <= set(shown.splitlines())
    assert len(browser.all('#timeline path[aria-label="VAE_Decoding"]')) == 2
    assert "Denoising" not in shown
    assert browser.console() == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_no_layout_scrolls_sideways(browser: Page, run: Path, size: tuple[int, int], dark: bool) -> None:
    browser.open(run, size=size, dark=dark)
    browser.click(browser.one("#cases .open"))
    browser.until(lambda: browser.all(".breakdown"))
    assert overflow_px(browser) == 0
    assert browser.run("const box = document.querySelector('.box'); return box.scrollWidth > box.clientWidth")
    wider = [
        figure.get_attribute("id")
        for figure in browser.all("figure")
        if browser.run("return arguments[0].scrollWidth > arguments[0].clientWidth", figure)
    ]
    assert wider == []
    red = int(browser.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
    assert (red < 64) is dark


def test_the_theme_can_be_changed_and_the_charts_follow(browser: Page, run: Path) -> None:
    browser.open(run)
    before = browser.run("return getComputedStyle(document.querySelector('#cost text')).fill")
    browser.click(browser.one("#theme"))
    browser.until(lambda: browser.run("return document.documentElement.dataset.drawn") == "dark")
    assert browser.run("return getComputedStyle(document.querySelector('#cost text')).fill") != before
    assert browser.one("#theme").text == "Light"
    browser.click(browser.one("#theme"))


def test_names_and_reasons_stay_text_wherever_they_stand(browser: Page, tmp_path: Path) -> None:
    cases = [replace(case, label=f"{HOSTILE} {case.offload}", prompt=HOSTILE) for case in gpu_cases()[:2]]
    records = gpu_records(cases, repeats=1)
    records += [
        replace(record, outcome=Outcome.CRASH, reason=HOSTILE, resolved=None)
        for record in gpu_records([replace(gpu_cases()[5], label=HOSTILE)], repeats=1)
    ]
    made = report(tmp_path, records)
    browser.open(made)
    assert browser.one('#cost path[aria-roledescription="point"]').get_attribute("aria-label") == f"{HOSTILE} none"
    browser.hover(browser.one('#cost path[aria-roledescription="point"]'))
    browser.until(lambda: browser.all("#vg-tooltip-element.visible"))
    for button in browser.all("#cases .open"):
        browser.click(button)
    shown = browser.until(lambda: [one.text for one in browser.all(".breakdown")] if len(browser.all(".breakdown")) == 3 else None)
    assert f"Outcome: crash: {HOSTILE}" in shown[2]
    assert browser.driver.title == "h200-trade: wansweep report"
    assert browser.all("img[onerror], img[src=x]") == []
    assert (browser.console(), browser.requests()) == ([], [made.as_uri()])


def test_a_run_without_an_ok_case_says_why_there_are_no_pictures(browser: Page, tmp_path: Path) -> None:
    browser.open(report(tmp_path, gpu_records(gpu_cases()[:4], failed=True)))
    assert browser.one("#trade figure").text.endswith("The table below has every case with its reason.")
    assert "No case of this run ended ok." in browser.one("#answer").text
    assert "out of memory" in browser.one("#steps .picked").text
    assert browser.console() == []


def test_a_run_of_one_case_opens(browser: Page, tmp_path: Path) -> None:
    browser.open(report(tmp_path, gpu_records(gpu_cases()[:1], repeats=1)), size=PHONE)
    assert (browser.console(), overflow_px(browser)) == ([], 0)
    assert browser.all("#cost svg")
    assert "has a twin without offload" in browser.one("#ladder").text


def test_five_hundred_cases_open_quickly(browser: Page, tmp_path: Path) -> None:
    first = gpu_cases()[0]
    cases = [replace(first, seed=seed, label=f"case-{seed}") for seed in range(500)]
    made = tmp_path / "report.html"
    made.write_text(render(tabulate(gpu_sweep(cases), environment(), gpu_records(cases, repeats=1), [])))
    browser.open(made)
    assert browser.one("#count").text == "500 of 500 cases"
    assert browser.run(f"const begin = performance.now(); {FIND}; return performance.now() - begin", "-499") < 500
    assert len(browser.shown_cases()) == 1
    opened_ms = browser.run("return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert opened_ms < 10_000


def test_a_tiny_run_on_this_machine_opens_with_its_frames_its_memory_and_its_hash(browser: Page, tmp_path: Path) -> None:
    ran = wansweep("+sweep=quick", "weights=tiny", "sweep.only=[t2v_a14b_2gpus]", "procedure.keep_video=true", f"reports={tmp_path}")
    assert ran.returncode == 0, ran.stderr
    folder = run_folder(ran)
    ((record, *_), _) = folder.read()
    assert record.resolved
    browser.open(folder.path / "report.html")
    assert (browser.console(), browser.requests()) == ([], [(folder.path / "report.html").resolve().as_uri()])
    assert "host (PSS)" in browser.one("#memory").text
    browser.click(browser.one("#cases .open"))
    browser.until(lambda: browser.run("return document.querySelector('.breakdown img')?.naturalWidth"))
    assert record.resolved.output_sha256
    assert record.resolved.output_sha256[:8] in browser.one("#cases tbody tr").text
    assert browser.run("return document.querySelector('.breakdown img').src").startswith("data:image/jpeg")
    assert list((folder.path / "videos").iterdir())
