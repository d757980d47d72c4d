from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.conftest import make_case
from tests.makers import make_record
from wansweep.record import Outcome, Record
from wansweep.schedule.live import LiveView


def view(total: int) -> tuple[LiveView, list[Record], io.StringIO]:
    kept: list[Record] = []
    stream = io.StringIO()
    return LiveView(total=total, title="sweep", on_record=kept.append, stream=stream), kept, stream


def picture(shown: LiveView) -> str:
    console = Console(file=io.StringIO(), width=100, height=24, force_terminal=False)
    console.print(shown.board())
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_every_record_is_passed_on_and_told_on_a_line() -> None:
    shown, kept, stream = view(2)
    with shown:
        shown.doing("case", "starting")
        shown.doing("case", "Step_3_Inference")
        shown.finished(make_record(make_case()))
        shown.finished(make_record(make_case(seed=1, label="other"), outcome=Outcome.OOM, reason="CUDA out of memory"))
    assert len(kept) == 2
    lines = stream.getvalue().splitlines()
    assert lines[0] == "case: starting"
    assert lines[1].startswith("[1/2] case: ok, 20.0 s, about ")
    assert lines[2] == "[2/2] other: oom (CUDA out of memory), 20.0 s"


def test_a_record_is_kept_before_it_is_shown() -> None:
    def refuse(_: Record) -> None:
        raise OSError("disk full")

    shown = LiveView(total=1, title="sweep", on_record=refuse, stream=io.StringIO())
    with pytest.raises(OSError, match="disk full"):
        shown.finished(make_record(make_case()))
    assert shown.done == 0


def test_the_picture_counts_what_runs_waits_and_is_over() -> None:
    shown, _, _ = view(10)
    shown.doing("one", "Step_1_Inference")
    shown.doing("two", "VAE_Decoding")
    shown.finished(make_record(make_case(label="two"), outcome=Outcome.CRASH, reason="died"))
    text = picture(shown)
    assert "sweep: 1 of 10 done (1 crash), 1 running, 8 waiting" in text
    assert "Step_1_Inference" in text
    assert "two" not in text


def test_the_picture_of_five_hundred_running_trials_fits_a_screen() -> None:
    shown, _, _ = view(600)
    for i in range(500):
        shown.doing(f"case{i}", "Step_0_Inference")
    text = picture(shown)
    assert len(text.splitlines()) < 25
    assert "and 481 more" in text
