"""What a notebook does with wansweep: run a few cases here, keep them in a run folder, and ask the frames. Takes half a minute on a CPU."""

# %% A sweep, as the command line would read it
import tempfile
from dataclasses import replace
from pathlib import Path

import polars as pl

import wansweep
from wansweep.store import create
from wansweep.telemetry.environment import environment

sweep = wansweep.expand("quick", "weights=tiny", "base.steps=2", "sweep.only=[ti2v_5b,t2v_a14b]")
print([case.label for case in sweep.cases])

# %% Run its cases in this process, and one more that differs in a field
cases = [*sweep.cases, replace(sweep.cases[0], steps=4, label="ti2v_5b at 4 steps")]
records = [wansweep.run_case(case, sweep) for case in cases]
print([(record.label, str(record.outcome), round(record.wall_s, 1)) for record in records])

# %% Keep them as a run folder: `wansweep report`, `watch` and `load` read it
folder = create(Path(tempfile.mkdtemp()), replace(sweep, cases=tuple(cases)), environment())
for record in records:
    folder.append(record)

# %% Ask the frames
run = wansweep.load(folder.path)
print(run.summary.select("label", "outcome", "steps", "total_s", "step_s", "peak_host_bytes"))
steps = run.stages.filter(pl.col("stage").str.ends_with("_Inference")).group_by("label").agg(pl.col("duration_s").median())
print(steps.sort("label"))
