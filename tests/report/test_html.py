"""report.html as text; tests/report/test_html_in_browser.py opens it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import polars as pl
import pytest

from tests.gpu_runs import gpu_cases, gpu_records, gpu_results, sheet
from wansweep.record import Record
from wansweep.report import html, plots
from wansweep.report.html import in_script, render
from wansweep.report.markdown import sections
from wansweep.report.pictures import PALETTES, Picture
from wansweep.tables.evidence import Evidence


def picture(records: Sequence[Record], key: str) -> Picture:
    return next(one for one in plots.pictures(gpu_results(records)) if one.key == key)


def block(page: str, id_: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{id_}">(.*?)</script>', page, re.DOTALL)
    assert found, id_
    return json.loads(found[1])


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return gpu_records(gpu_cases(), repeats=2)


def test_the_page_names_no_address_that_it_would_load() -> None:
    class Loads(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loading = {"src", "srcset", "data"} | ({"href"} if tag == "link" else set())
            self.found += [value or "" for name, value in attrs if name in loading]

    parser = Loads()
    page = render(gpu_results(gpu_records(gpu_cases()[:1])))
    parser.feed(page)
    assert parser.found == ["data:,"]
    assert "default-src 'none'" in page
    assert "@import" not in page


def test_json_cannot_end_the_script_it_stands_in() -> None:
    hostile = "</script><!-- <script>\u2028&"
    text = in_script({hostile: hostile})
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {hostile: hostile}


def test_labels_and_reasons_are_escaped_in_the_page(records: list[Record]) -> None:
    hostile = '"><svg onload=x>{0}'
    odd = replace(records[0].case, label=hostile, prompt=hostile)
    page = render(gpu_results([replace(records[0], case=odd, label=hostile, case_id=odd.id, reason=hostile)]))
    assert "<svg onload" not in page
    assert "&quot;&gt;&lt;svg onload=x&gt;{0}" in page
    assert block(page, f"data-{odd.id}")["label"] == hostile


def test_every_case_stands_in_the_table_and_has_its_data(records: list[Record]) -> None:
    page = render(gpu_results(records))
    for case in gpu_cases():
        assert f'<tr id="case-{case.id}"' in page
        assert block(page, f"data-{case.id}")["breakdown"].startswith(f"## Case: {case.label}")
    assert page.count("<tr id=") == len(gpu_cases())


def test_a_column_without_any_value_is_left_out_and_a_missing_value_is_not_a_zero(records: list[Record]) -> None:
    page = render(gpu_results(records))
    assert "Predicted time" not in page
    row = re.search(r'<tr id="case-\w+" data-case="\w+" data-outcome="oom".*?</tr>', page)
    assert row
    assert '<td class="number none">n/a</td>' in row[0]
    assert "CUDA out of memory" in row[0]


def test_the_points_are_the_ok_cases_and_the_line_is_the_frontier(records: list[Record]) -> None:
    cost = picture(records, "cost")
    assert len(cost.data["points"]) == len(gpu_cases()) - 1
    # A line a video and number of GPUs: what eight of them do is no answer for one, nor is another model's video.
    ends: dict[str, list[str]] = {}
    for row in cost.data["frontier"]:
        ends.setdefault(row["line"], []).append(row["label"])
    assert {(line[0], line[-1]) for line in ends.values()} == {
        ("ti2v_5b-none", "ti2v_5b-sequential"),
        ("t2v_a14b-none", "t2v_a14b-sequential"),
    }
    assert "1 case(s) ran out of memory" in cost.reading
    assert all("(n=2)" in row["time"] and "±" in row["time"] for row in cost.data["points"])


def test_points_have_the_colours_of_the_lever_that_the_run_turned(records: list[Record]) -> None:
    assert '"title": "Offload"' in json.dumps(picture(records, "cost").chart)
    wide = [record for record in records if record.case.offload == "none" and record.case.model == "t2v_a14b"]
    chart = json.dumps(picture(wide, "cost").chart)
    assert '"title": "Parallel"' in chart
    assert '"title": "Model"' not in chart  # of one model


def test_card_lines_end_with_the_first_card_that_holds_every_case(records: list[Record]) -> None:
    cards = picture(records, "cost").data["cards"]
    top = max(row["gib"] for row in picture(records, "cost").data["points"])
    assert [card["gib"] > top for card in cards] == [False] * (len(cards) - 1) + [True]
    named = " ".join(card["names"] for card in cards)
    assert "l4, a10g, rtx4090: 23.5" in named
    assert "h200" not in named


def test_without_gpu_memory_cases_are_held_by_the_hosts_and_no_card_is_drawn(records: list[Record]) -> None:
    gone = ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes")
    bare = [
        replace(record, stages=tuple(replace(one, figures={k: v for k, v in one.figures.items() if k not in gone}) for one in record.stages))
        for record in records[:4]
    ]
    cost = picture(bare, "cost")
    assert "host memory (GiB)" in json.dumps(cost.chart)
    assert cost.data["cards"] == []


def test_predictions_are_drawn_where_there_are_any_and_missed_aloud_where_there_are_none(records: list[Record]) -> None:
    none = picture(records, "predicted")
    assert none.chart is None
    assert "no predictions" in none.why
    run = gpu_results(records)
    guessed = replace(run, summary=run.summary.with_columns(predicted_total_s=run.summary["total_s"] * 1.5))
    drawn = next(one for one in plots.pictures(guessed) if one.key == "predicted")
    assert (drawn.key, drawn.why) == ("predicted", "")
    assert len(drawn.data["pairs"]) == len(gpu_cases()) - 1
    assert all("1.50 times" in row["told"] for row in drawn.data["pairs"])


def test_the_parts_of_a_cases_time_are_its_seconds_and_end_at_its_total(records: list[Record]) -> None:
    time = picture(records, "time")
    parts = [row for row in time.data["parts"] if row["label"] == "t2v_a14b-expert"]
    assert [row["part"] for row in parts] == ["Loading", "Text encoding", "Denoising", "VAE decoding", "Rest"]
    assert [one["from"] for one in parts[1:]] == [one["to"] for one in parts[:-1]]
    assert parts[-1]["to"] == pytest.approx(100)
    row = gpu_results(records).summary.row(by_predicate=pl.col("label") == "t2v_a14b-expert", named=True)
    assert parts[2]["to"] - parts[2]["from"] == pytest.approx(100 * row["step_s"] * row["steps"] / row["total_s"])
    assert {row["label"] for row in time.data["totals"]} == {case.label for case in gpu_cases()} - {"t2v_a14b-1080p"}


def test_every_colour_of_a_chart_is_in_both_palettes(records: list[Record]) -> None:
    page = render(gpu_results(records))
    used = set(re.findall(r'"colour:(\w+)"', page))
    assert used
    for palette in PALETTES.values():
        assert used <= palette.keys()


def test_contact_sheets_are_in_the_page_while_there_is_room_and_beside_it_after(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    picture_bytes = sheet("x")
    monkeypatch.setattr(html, "SHEETS_BYTES", 2 * len(picture_bytes))
    page = render(gpu_results(records), Evidence(sheets=lambda _: picture_bytes))
    sheets = [block(page, f"data-{case.id}")["sheet"] for case in gpu_cases()]
    assert [address.partition(",")[0] for address in sheets[:3]] == ["data:image/jpeg;base64"] * 2 + [f"frames/{gpu_cases()[2].id}-0.jpg"]


def test_cases_with_the_same_video_are_told(records: list[Record]) -> None:
    page = render(gpu_results(records))
    assert "5 cases have this very video" in page  # the five of ti2v_5b, which differ in offload


def test_reports_in_other_formats_do_not_load_the_plotting_library() -> None:
    code = (
        "import sys, wansweep.cli, wansweep.publish, wansweep.report.markdown; print([m for m in ('altair', 'vl_convert') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_case_beyond_the_pages_room_says_where_its_breakdown_is(records: list[Record]) -> None:
    run = gpu_results(records)
    kept = dict(list(sections(run).items())[:1])
    page = render(run, breakdowns=kept)
    first, second = run.summary["case_id"][:2]
    assert block(page, f"data-{first}")["breakdown"] == kept[first]
    assert f"`wansweep report RUN_DIR --case {run.summary['label'][1]}`" in block(page, f"data-{second}")["breakdown"]
    assert page.count('<tr id="case-') == run.summary.height
