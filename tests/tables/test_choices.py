"""What a report says one could run, and on which card."""

from __future__ import annotations

from dataclasses import replace

from tests.conftest import make_case
from tests.makers import make_record, make_stages, with_figures
from wansweep.config import read_request
from wansweep.levers import Quant
from wansweep.record import Outcome, Record
from wansweep.report import choosing, markdown, terminal
from wansweep.tables.choices import Choice, choices, not_ok
from wansweep.tables.recommendation import Objective
from wansweep.tables.results import Results, tabulate
from wansweep.telemetry.environment import environment
from wansweep.units import GIB

QUICK = read_request(["+sweep=quick"]).sweep


def measured(label: str, step_s: float, gib: float, **fields: object) -> Record:
    """A case of 3.75 s and four steps."""
    case = make_case(label=label, **fields)
    return make_record(case, stages=with_figures(make_stages(case, step_s=step_s), peak_allocated_bytes=gib * GIB, energy_j=10.0 * case.gpus))


def run(*records: Record) -> Results:
    return tabulate(replace(QUICK, cases=tuple(record.case for record in records)), environment(), records, ())


RUN = run(
    measured("none", 1.0, 60.0, weights="random"),
    measured("model", 1.5, 22.0, weights="random", offload="model"),
    measured("leaf", 4.0, 30.0, weights="random", offload="group_leaf"),
    measured("two", 0.6, 65.0, weights="random", gpus=2, ulysses=2),
    measured("fp8", 0.5, 20.0, weights="random", quant=Quant.TORCHAO_FP8),
    make_record(make_case(label="large", weights="random", seed=7), outcome=Outcome.OOM, reason="no room"),
)


def told(one: Choice) -> tuple[str, str | None, float, float | None]:
    saved = None if one.saved_bytes is None else one.saved_bytes / GIB
    return one.candidate.case.label, one.card, one.extra_s, saved


def test_the_choices_are_what_no_case_with_as_few_gpus_beats_each_with_its_card_and_its_price() -> None:
    (video,) = choices(RUN)
    assert [told(one) for one in video.choices] == [
        ("none", "a100-80gb, h100 (80 GiB)", 0.0, 0.0),
        ("model", "rtx4090, l4, a10g (24 GiB)", 2.0, 38.0),
        ("two", "a100-80gb, h100 (80 GiB)", 0.0, 0.0),
    ]
    assert (video.measured, video.uncounted) == (5, 1)
    best = {of: one.candidate.case.label for of, one in video.best.items()}
    assert best == {Objective.TIME: "two", Objective.VRAM: "model", Objective.GPU_SECONDS: "none", Objective.ENERGY: "none"}


def test_the_report_the_page_and_the_terminal_begin_with_them_and_with_what_failed() -> None:
    text = choosing.section(RUN)
    assert "5 cases ended ok, 3 that no other beats; 1 lossy without a measured drift do not count" in text
    assert "| model | 1 | 9.75 | 22.00 | rtx4090, l4, a10g (24 GiB) | +2.00 s, -38.0 GiB: 0.05 s/GiB |" in text
    assert "| two | 2 | 6.15 | 65.00 | a100-80gb, h100 (80 GiB) | fastest on 2 GPUs |" in text
    report = markdown.render(RUN)
    assert report.index("| Case | Res |") < report.index("# Choosing") < report.index("# Detailed Breakdown")
    page = choosing.page(RUN)
    assert "<span>Fastest</span><strong>6.15 s</strong>" in page
    assert "1 did not end ok" in page
    assert "no room" in page
    assert "fastest two 6.15 s on 2 GPUs, least VRAM model 22.00 GiB, fewest GPU-seconds none 7.75 s" in terminal.render(RUN, width=300)
    assert [row["label"] for row in not_ok(RUN)] == ["large"]


def test_a_run_without_a_choice_has_no_such_section_and_its_page_says_what_there_is() -> None:
    alone = run(measured("only", 1.0, 10.0, weights="random"))
    assert choosing.section(alone) == ""
    page = choosing.page(alone)
    assert "Made in one way" in page
    assert '<th scope="row">ti2v_5b t2v 128x64x17, 4 steps</th><td><a href="#case-' in page
    assert '<td class="number" data-unit="s">7.75</td>' in page
    assert "Fastest" not in page
    lossy = run(measured("fp8", 1.0, 10.0, weights="random", quant=Quant.TORCHAO_FP8))
    assert "1 lossy without a measured drift do not count" in choosing.page(lossy)
    failed = run(make_record(make_case(label="a"), outcome=Outcome.CRASH, reason="died"))
    assert "No case of this run ended ok." in choosing.page(failed)
    assert choosing.lines(failed) == []


def test_videos_of_different_settings_are_no_alternatives_to_each_other() -> None:
    both = run(*(measured(f"{frames}-{mode}", 1.0, 10.0, frames=frames, offload=mode) for frames in (17, 33) for mode in ("none", "model")))
    assert [one.measured for one in choices(both)] == [2, 2]
    asked = run(*(measured(f"{prompt}", 1.0, 10.0, prompt=f"a\n{prompt}", weights="random") for prompt in ("cat", "dog")))
    assert [one.title for one in choices(asked)] == [f"ti2v_5b t2v 128x64x17, 4 steps, prompt a {prompt}" for prompt in ("cat", "dog")]


def test_a_reader_is_warned_of_miniatures_single_trials_and_noise() -> None:
    tiny = list(choosing.cautions(run(measured("a", 1.0, 10.0))))
    assert tiny[0].startswith("Every case ran as a miniature (weights=tiny)")
    assert "of one trial, so no spread is known; procedure.repeats=3" in tiny[1]
    one = measured("a", 1.0, 10.0, weights="random")
    spread = [replace(one, trial=trial, stages=make_stages(one.case, step_s=step_s)) for trial, step_s in enumerate((1.0, 1.2, 0.8))]
    results = tabulate(replace(QUICK, cases=(one.case,)), environment(), spread, ())
    (noisy,) = choosing.cautions(results)
    assert noisy.startswith("Noisy, repeat before believing a small difference: a (±")
    assert list(choosing.cautions(RUN)) == [tiny[1]]
