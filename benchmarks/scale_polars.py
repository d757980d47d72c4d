"""One run of wansweep's own aggregation over the stage rows of a folder; prints seconds and peak memory as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import polars as pl

from benchmarks import stage_rows
from benchmarks.memory import peak_bytes
from wansweep.tables.frames import counted_key, summary_frame
from wansweep.tables.typical import STAGE_TABLE, typical_stages


def main(folder: Path) -> dict[str, float]:
    """Make both tables; the cases and records that the summary describes are there before, as they are when a run folder has been read."""
    cases, records = stage_rows.cases_and_records(folder)
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    stages = pl.scan_parquet(folder / "stages-*.parquet")
    summary = summary_frame(cases, records, stages)
    summary_s = time.perf_counter() - begin_s
    shown = stages.join(counted_key(records).lazy(), on=["case_id", "trial"], how="semi")
    typical = typical_stages(shown).select(STAGE_TABLE).collect(engine="streaming")
    seconds = time.perf_counter() - begin_s
    cpu_s = time.process_time() - begin_cpu_s
    most_bytes = peak_bytes()
    summary.write_parquet(folder / "polars-summary.parquet")
    typical.write_parquet(folder / "polars-typical.parquet")
    return {"seconds": seconds, "summary_s": summary_s, "typical_s": seconds - summary_s, "cpu_s": cpu_s, "peak_bytes": most_bytes}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
