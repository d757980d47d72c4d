"""Whole trials in this process, with the latents that each made."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.conftest import make_case
from tests.trial.test_generate import PROCEDURE, source
from wansweep.case import Case
from wansweep.record import Outcome, Resolved
from wansweep.trial import runner
from wansweep.trial.task import Seat, Task

# Of the final latents, whose standard deviation is 1.1; the plain run's own bf16 noise (another kernel for one sum) is 0.03.
ROUNDING, LOSSY = 0.07, 0.15
EIGHT_STEPS = {"steps": 8, "shift": 5.0}  # 4 in each expert
QUANTISERS = pytest.mark.skipif(not all(map(find_spec, ("torchao", "optimum", "gguf"))), reason="needs the extra `quant`")
QUIET = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    # torch's own compiler and torchao warn of what they will change.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Runs:
    """Trials of cases, and what each made; a case's plain twin runs once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[torch.Tensor] = []
        self._plain: dict[str, torch.Tensor] = {}

    def trial(self, case: Case, **procedure: object) -> runner.Ending:
        scratch = self._folder / case.id
        scratch.mkdir(exist_ok=True)
        task = Task(case=case, source=source(case), origin_s=0.0, scratch=scratch, procedure=replace(PROCEDURE, **procedure))
        return runner.run_rank(task, Seat(rank=0, world=1, rendezvous="", cores=1))

    def latents(self, case: Case, **procedure: object) -> tuple[torch.Tensor, Resolved]:
        ending = self.trial(case, **procedure)
        assert (ending.outcome, ending.reason) == (Outcome.OK, "")
        assert ending.resolved is not None
        return self._made[-1], ending.resolved

    def error(self, case: Case) -> tuple[float, Resolved]:
        """Largest absolute difference of the final latents to the plain run."""
        kept = ("model", "task", "steps", "shift", "dtype", "guidance", "guidance_2")
        plain = make_case(**{**{name: getattr(case, name) for name in kept}, "height": case.height, "frames": case.frames})
        if plain.id not in self._plain:
            self._plain[plain.id] = self.latents(plain)[0]
        latents, resolved = self.latents(case)
        return float((latents - self._plain[plain.id]).abs().max()), resolved

    def keep(self, latents: torch.Tensor) -> None:
        self._made.append(latents.float().clone())
