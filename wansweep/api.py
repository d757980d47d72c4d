"""For notebooks and scripts: read a run folder, expand a sweep, run a case here. Each loads what it needs when it is called.

::

    import wansweep

    sweep = wansweep.expand("quick", "base.steps=2")
    record = wansweep.run_case(sweep.cases[0], sweep)
    run = wansweep.load("reports/quick/20260101T000000Z")
    run.summary.filter(pl.col("outcome") == "ok").sort("total_s")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from wansweep.case import Case
    from wansweep.merging import Runs
    from wansweep.record import Record
    from wansweep.sweep import Sweep
    from wansweep.tables.results import Results


@overload
def load(run_dir: str | os.PathLike[str]) -> Results: ...  # type: ignore[overload-overlap]  # a str is a Sequence[str] too
@overload
def load(run_dir: Sequence[str | os.PathLike[str]]) -> Runs: ...
def load(run_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Results | Runs:
    """What a run folder says: `summary` and `stages` as Polars frames, the records, the sweep and its environment.

    Of several folders the same frames, with ``run`` and ``environment_id`` before the other columns: nothing is folded over runs.

    Raises:
        StoreError: It is no run folder.
    """
    from wansweep.publish import read_results
    from wansweep.store import open_folder

    if isinstance(run_dir, str | os.PathLike):
        return read_results(open_folder(Path(run_dir)))
    from wansweep.merging import side_by_side

    return side_by_side([Path(one) for one in run_dir])


def expand(sweep: str, *overrides: str, config_dir: str | os.PathLike[str] | None = None) -> Sweep:
    """The sweep of a name with its cases, as ``wansweep plan`` would see it.

    Args:
        sweep: As after ``+sweep=``.
        overrides: As on the command line: ``"base.steps=4"``, ``"sweep.axes.offload=[none,model]"``.
        config_dir: A folder of configs of your own.

    Raises:
        ConfigError: With every problem found.
    """
    from wansweep.config import read_request

    return read_request([f"+sweep={sweep}", *overrides], config_dir=Path(config_dir) if config_dir is not None else None).sweep


def run_case(case: Case, sweep: Sweep) -> Record:
    """Run one case of one rank in this process, without Ray, and return its record; whatever happens to it is the record's outcome.

    Args:
        case: Of the sweep, or one made from its cases by `dataclasses.replace`.
        sweep: Says where its weights come from and how to measure.

    Raises:
        CaseError: The case wants more ranks than one.
    """
    import sys

    warm = "wansweep.trial.runner" in sys.modules
    from wansweep.trial.here import run_here

    return run_here(case, source=sweep.models[case.model], procedure=sweep.procedure, warm=warm)
