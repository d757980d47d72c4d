"""A run folder's rendered files while its sweep runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from tests.makers import make_record
from wansweep.config import read_request
from wansweep.publish import Publisher, read_results
from wansweep.record import Outcome
from wansweep.store import create
from wansweep.telemetry.environment import environment


def test_a_trial_run_again_takes_the_place_of_its_accident_in_the_tables_as_on_disk(tmp_path: Path) -> None:
    sweep = read_request(["+sweep=quick"]).sweep
    case = sweep.cases[0]
    folder = create(tmp_path, sweep, environment())
    Publisher(folder).add(make_record(case, outcome=Outcome.CRASH, reason="its process died"))

    resumed = Publisher(folder)
    resumed.add(replace(make_record(case), started_utc="2026-01-02T00:00:00+00:00"))
    results = resumed.render()

    assert [record.outcome for record in results.records] == [Outcome.OK]
    assert results.summary["outcome"][0] == "ok"
    assert pl.read_parquet(folder.path / "summary.parquet").equals(read_results(folder).summary)
