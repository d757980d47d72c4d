"""The picture of a running sweep at any size, the board that others read, and those who read it."""

from __future__ import annotations

import io
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import make_case
from tests.makers import make_record
from tests.runs import ROOT, command, wansweep
from wansweep.config import read_request
from wansweep.record import Outcome, StageKind
from wansweep.schedule.board import Board, Running, post, posted
from wansweep.schedule.live import LiveView
from wansweep.schedule.progress import Progress
from wansweep.schedule.watching import Sight, follow
from wansweep.store import RunFolder, create
from wansweep.telemetry.environment import environment

AT = Progress(
    label="one", trial=0, doing="Step_3_Inference", kind=StageKind.STEP_INFERENCE, steps=40, step=3, step_s=1.25,
    readings={0: {"device_used_bytes": 3 * 2**30, "sm_active_pct": 97.0}, 1: {"device_used_bytes": 5 * 2**30}},
)  # fmt: skip


def a_board(running: int, *, total: int = 600) -> Board:
    rows = tuple(Running(label=f"case{i}", doing="Step_3_Inference", ran_s=10.0 + i, at=replace(AT, label=f"case{i}")) for i in range(running))
    return Board(title="sweep", total=total, outcomes={Outcome.OK: 3}, running=rows, left_s=90.0, written_s=time.time(), pid=1)


def drawn(board: Board, *, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(board)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (30, 6)])
@pytest.mark.parametrize("running", [0, 1, 19, 500])
def test_the_picture_fits_every_terminal_and_counts_what_it_does_not_show(running: int, width: int, height: int) -> None:
    lines = drawn(a_board(running), width=width, height=height)
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)
    shown = sum(line.startswith("case") for line in lines)
    more = re.fullmatch(r"and (\d+) more", lines[-1])
    assert shown + (int(more[1]) if more else 0) == running


def test_a_wide_terminal_shows_step_pace_memory_and_activity_of_the_busiest_rank() -> None:
    lines = drawn(a_board(1, total=9), width=120, height=24)
    assert lines[0] == "sweep: 3 of 9 done (3 ok), 1 running, 5 waiting, about 90 s left"
    assert re.sub(r" {2,}", "  ", lines[-1].strip()) == "case0  Step_3_Inference  step 4/40  1.25 s/step  5.0 GiB  97 %  10 s"


def test_a_narrow_terminal_does_without_them() -> None:
    assert re.sub(r" {2,}", "  ", drawn(a_board(1), width=60, height=24)[-1].strip()) == "case0  Step_3_Inference  10 s"


def test_on_a_narrow_terminal_labels_are_cut_and_nothing_else() -> None:
    board = a_board(2)
    long = replace(board, running=tuple(replace(trial, label="t2v_a14b-1280x720x81-group_block-" + trial.label) for trial in board.running))
    lines = drawn(long, width=40, height=24)
    assert " ".join(map(str.strip, lines[:2])) == "sweep: 3 of 600 done (3 ok), 2 running, 595 waiting, about 90 s left"
    assert [re.sub(r" {2,}", "  ", line) for line in lines[2:]] == [
        "t2v_a14b-1280x7…  Step_3_Inference  10 s",
        "t2v_a14b-1280x7…  Step_3_Inference  11 s",
    ]


def test_a_board_is_read_back_as_it_was_posted_and_never_half(tmp_path: Path) -> None:
    file, first = tmp_path / "live.json", a_board(500)
    post(first, file)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            post(first, file)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert [posted(file) == first for _ in range(20)] == [True] * 20
    finally:
        over.set()
        writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["live.json"]


def test_a_view_posts_while_it_lasts_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "live.json"
    with LiveView(total=2, title="sweep", on_record=lambda _: None, file=file, stream=io.StringIO()) as view:
        view.doing("one", 0, "Step_3_Inference")
        view.progress(AT)
        seen = soon(lambda: (now := posted(file)) and now.running and now.running[0].at and now)
        assert (seen.total, seen.done, seen.running[0].doing, seen.running[0].at) == (2, 0, "Step_3_Inference", AT)
        view.finished(make_record(make_case(label="one")))
        seen = soon(lambda: (now := posted(file)) and now.done and now)
        assert (seen.outcomes, seen.running) == ({Outcome.OK: 1}, ())
    assert list(tmp_path.iterdir()) == []


def test_a_view_renews_its_board_while_nothing_happens(tmp_path: Path) -> None:
    """As on a cluster that others fill: who watches must not take the driver for dead."""
    file = tmp_path / "live.json"
    with LiveView(total=2, title="sweep", on_record=lambda _: None, file=file, stream=io.StringIO()):
        first = soon(lambda: posted(file))
        assert soon(lambda: (now := posted(file)) and now.written_s > first.written_s and now).done == 0


def soon(look, *, seconds: float = 20):
    """What ``look`` finds, once it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_a_full_disk_does_not_end_a_sweep(tmp_path: Path) -> None:
    post(a_board(1), tmp_path / "not there" / "live.json")


def test_without_a_terminal_one_look_is_all(tmp_path: Path) -> None:
    stream = io.StringIO()
    post(a_board(2), tmp_path / "live.json")
    sight, _ = follow(tmp_path / "live.json", stream=stream)
    assert sight is Sight.LOOKED
    assert "2 running" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_board_that_nobody_renews_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "live.json"
    assert follow(file, stream=io.StringIO())[0] is Sight.NOTHING
    post(replace(a_board(2), written_s=time.time() - 3600), file)
    assert follow(file, stream=io.StringIO())[0] is Sight.SILENT


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    sweep = read_request(["+sweep=quick", "sweep.only=[ti2v_5b]"]).sweep
    made = create(tmp_path, sweep, environment())
    made.append(make_record(sweep.cases[0]))
    return made


def test_watching_a_run_that_is_over_prints_its_summary(folder: RunFolder) -> None:
    done = wansweep("watch", str(folder.path))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"ti2v_5b +ok", done.stdout)


def test_watching_a_run_whose_driver_died_says_how_to_go_on(folder: RunFolder) -> None:
    post(replace(a_board(1), written_s=time.time() - 3600, pid=4711), folder.live)
    done = wansweep("watch", str(folder.path))
    last = done.stdout.splitlines()[-1]
    assert last.startswith("its driver (pid 4711) has said nothing for 36")
    assert last.endswith(f"resume={folder.path}")


def test_on_a_terminal_it_is_followed_to_its_end_through_a_change_of_size(folder: RunFolder) -> None:
    """A pty of 100 x 12 that becomes 60 x 8 while 30 trials run; then the driver takes its board away."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 100, 0, 0))
    post(a_board(30), folder.live)
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    with subprocess.Popen(command("watch", str(folder.path)), cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as watch:
        os.close(theirs)
        text = read_while(ours, lambda seen: "and 23 more" in seen)
        ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 60, 0, 0))
        text += read_while(ours, lambda seen: "and 27 more" in seen, keep=lambda: post(a_board(30), folder.live))
        folder.live.unlink()
        text += read_while(ours, lambda seen: False)
        assert watch.wait(timeout=240) == 0
    os.close(ours)
    after = text.rpartition("more")[2]
    assert re.search(r"  ti\S+ .*ok", after)  # the summary comes last, at the new width
    assert "\x1b[?25h" in after  # and the cursor is back


def read_while(terminal: int, done, *, keep=lambda: None, seconds: float = 90) -> str:
    """What the terminal shows until ``done`` says so or it closes."""
    seen, end = "", time.monotonic() + seconds
    while not done(seen):
        assert time.monotonic() < end, seen[-2000:]
        keep()
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # closed at the other end
            break
        seen += piece.decode(errors="replace")
    return seen
