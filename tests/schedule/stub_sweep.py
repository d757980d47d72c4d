"""A sweep of stub work in a process of its own: a JSON request on stdin, records as lines on stdout."""

from __future__ import annotations

import json
import sys

from tests.conftest import make_case
from wansweep.case import Model
from wansweep.record import Record, to_json
from wansweep.schedule.cluster import connect
from wansweep.schedule.tuning import run_trials
from wansweep.sweep import Cluster, Hardware, Isolation, ModelSource, Procedure, Sweep


class Lines:
    """Each record as a line, progress on stderr."""

    def doing(self, label: str, trial: int, what: str) -> None:
        print(f"{label}: {what}", file=sys.stderr, flush=True)

    def progress(self, now: object) -> None:
        """Not looked at."""

    def finishing(self) -> None:
        """Not looked at."""

    def finished(self, record: Record) -> None:
        print(to_json(record).decode(), flush=True)


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    # One that runs out of memory is of a kind of its own, or those that need no less would be skipped after it.
    cases = tuple(
        make_case(label=label, name=label, gpus=gpus, ulysses=gpus, prompt=prompt, vae_tiling=prompt.startswith("oom"))
        for label, gpus, prompt in asked["cases"]
    )
    settings = {"repeats": 1, "timeout_s": 120, "isolation": Isolation.PROCESS, "keep_video": False, **asked.get("procedure", {})}
    sweep = Sweep(
        name="stub",
        cases=cases,
        excluded=(),
        procedure=Procedure(**settings),
        cluster=Cluster(**{"address": "local", "gpus": None, "exclusive": False, **asked.get("cluster", {})}),
        hardware=Hardware(name="cpu", gpus=1),
        models={Model.TI2V_5B: ModelSource(repo="none", revision=None, fps=16, boundary=None)},
        command="stub",
    )
    with connect(sweep.cluster) as connection:
        todo = [(case, 0) for case in cases]
        run_trials(sweep, todo, connection=connection, run_folder=asked.get("run_folder", ""), watcher=Lines(), work="tests.schedule.stub_work")


if __name__ == "__main__":
    main()
