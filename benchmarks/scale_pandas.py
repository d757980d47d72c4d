"""The same tables by pandas, as one would write them with it; prints seconds and peak memory as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from benchmarks import stage_rows
from benchmarks.memory import peak_bytes
from benchmarks.stopwatch import Stopwatch
from wansweep.report.markdown import BREAKDOWNS

_PEAKS = {
    "peak_allocated_bytes": "peak_allocated_bytes",
    "peak_reserved_bytes": "peak_reserved_bytes",
    "device_used_bytes": "peak_device_bytes",
    "host_bytes": "peak_host_bytes",
    "pinned_bytes": "peak_pinned_bytes",
}
_SHARES = ("sm_active_pct", "gpu_busy_pct")
_SUMMARY = ["case_id", "trial", "rank", "kind", "step", "duration_s", "communication_s", "energy_j", "compute_load", *_SHARES, *_PEAKS]
_SHOWN = ["duration_s", "peak_allocated_bytes", "cpu_pct", "host_bytes", "sm_active_pct", "gpu_busy_pct", "compute_load"]
_KINDS = {
    "total_s": ["Total_Execution"],
    "load_s": ["Model_Initialization", "Loading"],
    "text_encode_s": ["T5_Encoding"],
    "vae_decode_s": ["VAE_Decoding"],
    "save_s": ["Save"],
}
_SUMMED_OVER_RANKS = ["peak_host_bytes", "peak_pinned_bytes", "energy_j", "compute_load"]
_MEAN_OVER_RANKS = [*_SHARES, "load_coverage_pct", "energy_coverage_pct", "communication_s"]


def _read(folder: Path, columns: list[str], cases: list[str] | None = None) -> pd.DataFrame:
    """Rows of the trials that count: a column store's reader is asked for the columns and cases that are needed, and for no others."""
    trials = pd.read_parquet(folder / "trials.parquet")
    wanted = None if cases is None else [("case_id", "in", cases)]
    stages = pd.read_parquet(sorted(map(str, folder.glob("stages-*.parquet"))), columns=columns, filters=wanted)
    return stages.merge(trials.loc[trials["counts"], ["case_id", "trial"]], on=["case_id", "trial"])


def summary(folder: Path) -> pd.DataFrame:
    """A case's figures: over the stages of a rank, over the ranks of a trial, over the trials."""
    stages = _read(folder, _SUMMARY)
    seconds, kind = stages["duration_s"], stages["kind"]
    is_step, is_leaf = kind == "Inference", ~kind.isin(["Total_Execution", "Save"])
    columns = {name: seconds.where(kind.isin(kinds)) for name, kinds in _KINDS.items()}
    columns |= {"leaves_s": seconds.where(is_leaf)}
    columns |= {name: stages[name].where(is_leaf) for name in ("energy_j", "compute_load")}
    columns |= {f"{name}_having": seconds.where(is_leaf & stages[name].notna()) for name in ("energy_j", "compute_load")}
    columns |= {f"{name}_weight": seconds.where(is_step & stages[name].notna()) for name in _SHARES}
    columns |= {f"{name}_sum": (stages[name] * seconds).where(is_step) for name in _SHARES}
    keys = [stages["case_id"], stages["trial"], stages["rank"]]
    sums = pd.DataFrame(columns).groupby(keys, sort=False).sum(min_count=1)
    peaks = stages[list(_PEAKS)].groupby(keys, sort=False).max().rename(columns=_PEAKS)
    steps = stages.loc[is_step].assign(own_s=lambda rows: rows["duration_s"] - rows["communication_s"].fillna(0.0))
    by_rank = steps.groupby(["case_id", "trial", "rank"], sort=False)
    means = by_rank.agg(
        step_s=("duration_s", "mean"),
        step_s_stdev=("duration_s", "std"),
        communication_s=("communication_s", "mean"),
        own_step_s=("own_s", "mean"),
    )
    of_rank = ["case_id", "trial", "rank"]
    steady_s = steps.loc[steps["step"] > 0].groupby(of_rank, sort=False)["duration_s"].median()
    first_s = steps.loc[steps["step"] == 0].groupby(of_rank, sort=False)["duration_s"].max()
    ranks = sums.join([peaks, means]).assign(steady_step_s=steady_s, first_step_ratio=first_s / steady_s)
    for name in _SHARES:
        ranks[name] = ranks.pop(f"{name}_sum") / ranks.pop(f"{name}_weight")
    for name, share in (("compute_load", "load_coverage_pct"), ("energy_j", "energy_coverage_pct")):
        ranks[share] = 100 * ranks.pop(f"{name}_having") / ranks["leaves_s"]
    ranks["unattributed_pct"] = 100 * (ranks["total_s"] - ranks.pop("leaves_s")) / ranks["total_s"]
    return _cases(_trials(ranks))


def _trials(ranks: pd.DataFrame) -> pd.DataFrame:
    own_s = ranks.pop("own_step_s").groupby(level=["case_id", "trial"], sort=False).agg(["min", "max"])
    by_trial = ranks.groupby(level=["case_id", "trial"], sort=False)
    trials = by_trial.max()
    trials[_SUMMED_OVER_RANKS] = by_trial[_SUMMED_OVER_RANKS].sum(min_count=1)
    trials[_MEAN_OVER_RANKS] = by_trial[_MEAN_OVER_RANKS].mean()
    return trials.assign(step_imbalance_pct=100 * (own_s["max"] - own_s["min"]) / own_s["max"])


def _cases(trials: pd.DataFrame) -> pd.DataFrame:
    by_case = trials.groupby(level="case_id")
    spread = by_case[["total_s", "step_s"]].std().add_suffix("_spread")
    return by_case.median().join(spread).reset_index()


def typical(folder: Path, shown: list[str] | None = None) -> pd.DataFrame:
    """The stages of every case, or of those: the slowest and fullest rank of each, the median over the trials."""
    stages = _read(folder, ["case_id", "trial", "stage", "start_s", *_SHOWN], shown)
    by_trial = stages.groupby(["case_id", "trial", "stage"], sort=False)
    trials = by_trial[_SHOWN].max().assign(start_s=by_trial["start_s"].min())
    cases = trials.groupby(level=["case_id", "stage"], sort=False).median()
    return cases.reset_index().sort_values(["case_id", "start_s"]).drop(columns="start_s")


def main(folder: Path) -> dict[str, float]:
    """Make the tables."""
    shown, watch = [case.id for case in stage_rows.cases(folder)[:BREAKDOWNS]], Stopwatch()
    with watch("figures"):
        cases = summary(folder)
    with watch("shown"):
        typical(folder, shown)
    most_bytes = peak_bytes()
    with watch("typical"):
        stages = typical(folder)
    cases.to_parquet(folder / "pandas-summary.parquet", index=False)
    stages.to_parquet(folder / "pandas-typical.parquet", index=False)
    return {**watch.figures(), "peak_bytes": most_bytes, "peak_of_all_bytes": peak_bytes()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
