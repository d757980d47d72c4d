"""A rank's accidents as endings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import make_case
from wansweep.record import Outcome
from wansweep.sweep import Isolation, ModelSource, Procedure
from wansweep.trial import runner
from wansweep.trial.invalid import Invalid
from wansweep.trial.task import Seat, Task
from wansweep.units import GIB


def more_than_any_host_has(*_: object) -> None:
    torch.empty(2**60, dtype=torch.uint8)


def python_refuses(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("accident", "reason"), [(more_than_any_host_has, "can't allocate memory"), (python_refuses, "the host ran out of memory")]
)
def test_a_host_that_refuses_memory_is_an_oom_and_the_log_says_where(
    accident, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner._Run, "__init__", accident)
    procedure = Procedure(repeats=1, timeout_s=1, isolation=Isolation.PROCESS, keep_video=False)
    source = ModelSource(repo="none", revision=None, fps=16, boundary=None)
    task = Task(case=make_case(), source=source, origin_s=0.0, scratch=tmp_path, procedure=procedure)
    threads = torch.get_num_threads()
    ending = runner.run_rank(task, Seat(rank=1, world=2, rendezvous="", cores=1.0))
    torch.set_num_threads(threads)
    assert (ending.rank, ending.outcome) == (1, Outcome.OOM)
    assert reason in ending.reason
    assert "Traceback (most recent call last)" in capfd.readouterr().err


def test_a_cap_without_a_gpu_is_told_and_nothing_runs() -> None:
    with pytest.raises(Invalid, match=r"procedure\.vram_cap_gib=24: there is no GPU"), runner.capped(24.0, torch.device("cpu")):
        pytest.fail("ran without the cap")


def test_a_cap_is_a_share_of_the_gpu_and_is_taken_back_for_the_next_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=96 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: shares.append(share))
    for gib in (24.0, 200.0, None):
        with runner.capped(gib, torch.device("cuda")):
            pass
    assert shares == [0.25, 1.0, 1.0, 1.0]
