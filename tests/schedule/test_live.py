from __future__ import annotations

import io
import re
import sys
import threading

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
        shown.doing("case", 0, "starting")
        shown.doing("case", 0, "Step_3_Inference")
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
    shown.doing("one", 0, "Step_1_Inference")
    shown.doing("two", 0, "VAE_Decoding")
    shown.finished(make_record(make_case(label="two"), outcome=Outcome.CRASH, reason="died"))
    text = picture(shown)
    assert "sweep: 1 of 10 done (1 crash), 1 running, 8 waiting" in text
    assert "Step_1_Inference" in text
    assert "two" not in text


def test_the_picture_of_five_hundred_running_trials_fits_a_screen() -> None:
    shown, _, _ = view(600)
    for i in range(500):
        shown.doing(f"case{i}", 0, "Step_0_Inference")
    text = picture(shown)
    assert len(text.splitlines()) < 25
    assert "and 481 more" in text


def test_two_repeats_of_a_case_that_run_at_once_are_two_rows() -> None:
    shown, _, _ = view(3)
    for trial in (0, 1):
        shown.doing("case", trial, f"Step_{trial}_Inference")
    text = picture(shown)
    assert "2 running, 1 waiting" in text
    assert re.findall(r"case #\d +Step_\d", text) == ["case #0   Step_0", "case #1   Step_1"]
    shown.finished(make_record(make_case(), trial=0))
    assert re.search(r"^case +Step_1_Inference", picture(shown), re.MULTILINE)


def test_an_interrupt_is_told_at_once_on_a_screen_and_once_on_lines() -> None:
    shown, _, stream = view(10)
    shown.doing("case", 0, "Step_0_Inference")
    shown.finishing()
    assert " ".join(picture(shown).split()).startswith(
        "sweep: interrupted, what runs may finish (Ctrl-C again stops it): 0 of 10 done, 1 running case Step_0"
    )
    for step in (1, 2):
        shown.doing("case", 0, f"Step_{step}_Inference")
    assert stream.getvalue().splitlines() == ["case: Step_0_Inference", "interrupted, what runs may finish (Ctrl-C again stops it)"]


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich calls it a terminal, and draws nothing on it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with LiveView(total=1, title="sweep", on_record=lambda _: None, stream=stream) as shown:
        shown.doing("case", 0, "starting")
    assert stream.getvalue() == "case: starting\n"


def test_the_picture_is_drawn_while_trials_come_and_go() -> None:
    """Rich draws in a thread of its own, which an error would end: the table would stand still."""
    shown, _, _ = view(600)
    over, errors, before_s = threading.Event(), list[RuntimeError](), sys.getswitchinterval()

    def draw() -> None:
        try:
            while not over.is_set():
                shown.board()
        except RuntimeError as error:
            errors.append(error)

    drawer = threading.Thread(target=draw)
    sys.setswitchinterval(1e-6)
    try:
        drawer.start()
        for _ in range(30):
            for number in range(400):
                shown.doing(f"case{number}", 0, "Step_0_Inference")
            shown.running.clear()
    finally:
        over.set()
        drawer.join()
        sys.setswitchinterval(before_s)
    assert errors == []
