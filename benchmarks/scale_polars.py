"""One run of wansweep's own aggregation over the stage rows of a folder; prints seconds and peak memory as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl

from benchmarks import stage_rows
from benchmarks.memory import peak_bytes
from benchmarks.stopwatch import Stopwatch
from wansweep.report.markdown import BREAKDOWNS
from wansweep.tables.frames import counted_key, counted_trials, summary_frame
from wansweep.tables.trials import case_frame
from wansweep.tables.typical import STAGE_TABLE, shown_stages, typical_stages


def main(folder: Path) -> dict[str, float]:
    """Make the tables; the cases and records that the summary describes are there before, as they are when a run folder has been read.

    The figures are made once by themselves, as pandas makes them, and once more in the summary, which also says what a case is, how it ended
    and how far its repeats agree.
    """
    cases, records = stage_rows.cases_and_records(folder)
    shown = [records[first : first + stage_rows.TRIALS_A_CASE] for first in range(0, len(records), stage_rows.TRIALS_A_CASE)][:BREAKDOWNS]
    stages, watch = pl.scan_parquet(folder / "stages-*.parquet"), Stopwatch()
    with watch("figures"):
        case_frame(counted_trials(records, stages).lazy()).collect()
    with watch("shown"):
        typical_stages(shown_stages(stages, shown)).select(STAGE_TABLE).collect(engine="streaming")
    with watch("summary"):
        summary = summary_frame(cases, records, stages)
    most_bytes = peak_bytes()
    with watch("typical"):
        counting = stages.join(counted_key(records).lazy(), on=["case_id", "trial"], how="semi")
        typical = typical_stages(counting).select(STAGE_TABLE).collect(engine="streaming")
    summary.write_parquet(folder / "polars-summary.parquet")
    typical.write_parquet(folder / "polars-typical.parquet")
    return {**watch.figures(), "peak_bytes": most_bytes, "peak_of_all_bytes": peak_bytes()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
