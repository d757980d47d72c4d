"""Real shapes on a real GPU, in parts that take at most ten minutes each on an H200.

::

    python -m benchmarks.real run PART [--weights random] [--reports reports]     one part, or several; a part that was interrupted goes on
    python -m benchmarks.real cost [--weights random]                             the instrumented pipeline beside the bare one
    python -m benchmarks.real tables [--reports reports]                          ours beside the published, predicted beside measured

The picture of a part's run: ``wansweep report reports/h200-14b-720p --format svg -o docs/images/h200.svg``.

Random weights run at the speed and in the memory of real ones. On a machine without a GPU ``--weights tiny`` tries every part.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

import wansweep
from wansweep.errors import StoreError
from wansweep.hardware import GPUS
from wansweep.levers import Weights
from wansweep.tables.calibration import calibrate
from wansweep.tables.results import Results
from wansweep.units import GIB

CONF = Path(__file__).parent / "conf"
# A part is a sweep of CONF; its run folders are reports/<name>/, and its name there begins with the machine.
PARTS = {
    "5b": "real_5b",
    "14b-480p": "real_14b_480p",
    "14b-720p": "real_14b_720p",
    "attention": "real_attention",
    "levers": "real_levers",
    "short": "real_short",
    "oom": "real_oom",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Theirs:
    """A published figure and the case of ours that it is about.

    Attributes:
        what: In words.
        source: Who says so, on which card.
        seconds: Published.
        parts: Of PARTS.
        label: End of our case's label; the fastest is taken where several end so.
        figure: Of the summary, or ``generation_s``: the whole without loading.
        why: Why the two may differ.
    """

    what: str
    source: str
    seconds: float
    parts: tuple[str, ...]
    label: str
    figure: str
    why: str


PUBLISHED = (
    Theirs(
        what="T2V-A14B 1280x720x81, a step, best lossless",
        source="LightX2V, H100",
        seconds=19.9,
        parts=("attention", "levers"),
        label="",
        figure="step_s",
        why="FlashAttention 3 and fused kernels there; ours has diffusers' kernels, or regional compile",
    ),
    Theirs(
        what="T2V-A14B 1280x720x81, a step",
        source="official, H100",
        seconds=1041.5 / 40,
        parts=("14b-720p",),
        label="-model",
        figure="step_s",
        why="theirs has loading of experts, T5 and decode in it: 40 steps, not one",
    ),
    Theirs(
        what="T2V-A14B 832x480x81, a step",
        source="official, H100",
        seconds=326.9 / 40,
        parts=("14b-480p",),
        label="-model",
        figure="step_s",
        why="as above",
    ),
    Theirs(
        what="T2V-A14B 832x480x81, VAE decode",
        source="LightX2V, H100",
        seconds=2.15,
        parts=("14b-480p",),
        label="-none",
        figure="vae_decode_s",
        why="2.0 to 2.3 s there, bf16",
    ),
    *(
        Theirs(
            what=f"{name} 17 frames, 4 steps, {how}",
            source="sglang, H200",
            seconds=seconds,
            parts=("short",),
            label=f"{model}_{how}",
            figure="generation_s",
            why="a server's whole request there, its VAE format is not said",
        )
        for name, model, how, seconds in (
            ("T2V-A14B 832x480", "t2v_a14b", "resident", 4.22),
            ("T2V-A14B 832x480", "t2v_a14b", "streamed", 6.77),
            ("TI2V-5B 1280x704", "ti2v_5b", "resident", 5.91),
            ("TI2V-5B 1280x704", "ti2v_5b", "streamed", 9.86),
        )
    ),
)
# Levers that change the video have no place among the lossless.
LOSSY = ("fp8_cast", "sage")


def run(parts: Sequence[str], *, weights: str, reports: Path) -> int:
    """Run the parts one after the other; returns the worst exit code."""
    worst = 0
    for part in parts:
        command = [sys.executable, "-m", "wansweep", "run", f"+sweep={PARTS[part]}", "--config-dir", str(CONF)]
        command += [f"base.weights={weights}", f"reports={reports}", "procedure.keep_video=false"]
        begun = sorted((reports / _name(part)).glob("*/sweep.yaml"))
        if begun and not (begun[-1].parent / "finished").exists():
            command.append(f"resume={begun[-1].parent}")
        code = subprocess.run(command, check=False).returncode
        worst = max(worst, code)
        if code in (0, 1):
            newest = sorted((reports / _name(part)).glob("*/sweep.yaml"))[-1].parent
            (newest / "finished").touch()
    return worst


def tables(reports: Path) -> None:
    """Print ours beside the published, predicted beside measured, and what half of the cases teach of the other half, of the newest runs."""
    runs = {part: found for part in PARTS if (found := _run(reports, part))}
    print("| what | published | seconds | ours | seconds | ratio | why they differ |\n|---|---|---:|---|---:|---:|---|")
    for row in PUBLISHED:
        if (mine := _ours(runs, row)) is not None:
            label, seconds = mine
            print(f"| {row.what} | {row.source} | {row.seconds:.2f} | {label} | {seconds:.2f} | {seconds / row.seconds:.2f} | {row.why} |")
    print("\n| part | case | step s, predicted | measured | error | peak GiB, predicted | measured | error |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    times, peaks = [], []
    for part, case in _predicted(runs):
        time, peak = (_error(case[f"predicted_{name}"], case[name]) for name in ("step_s", "peak_allocated_bytes"))
        times += [time] if time is not None else []
        peaks += [peak] if peak is not None else []
        seconds = [_text(case["predicted_step_s"]), _text(case["step_s"]), _percent(time)]
        gib = [*(_text(case[name], GIB) for name in ("predicted_peak_allocated_bytes", "peak_allocated_bytes")), _percent(peak)]
        print(f"| {part} | {case['label']} | {' | '.join(seconds + gib)} |")
    for name, errors in (("step", times), ("peak", peaks)):
        if errors:
            print(f"\n{name}: median |error| {statistics.median(map(abs, errors)):.1f} %, worst {max(errors, key=abs):+.1f} %, n={len(errors)}")
    records = [record for results in runs.values() for record in results.records]
    learnt = calibrate(records, GPUS["h200"])
    print("\n" + ("\n".join(learnt.lines()) if learnt else "nothing to calibrate on: no trial ended ok on an H200 with real networks"))


def _name(part: str) -> str:
    return wansweep.expand(PARTS[part], config_dir=CONF).name


def _run(reports: Path, part: str) -> Results | None:
    """The newest run of a part; null without one, and of miniatures, whose seconds are nobody's."""
    try:
        results = wansweep.load(reports / _name(part))
    except StoreError:
        return None
    if all(case.weights == Weights.TINY for case in results.sweep.cases):
        print(f"{part}: miniatures; nothing to set beside", file=sys.stderr)
        return None
    return results


def _ours(runs: dict[str, Results], row: Theirs) -> tuple[str, float] | None:
    """The label and seconds of our fastest case that the figure is about; null when none ended ok."""
    there = [runs[part].summary for part in row.parts if part in runs]
    if not there:
        return None
    ok = pl.concat(there).filter(pl.col("outcome") == "ok").with_columns(generation_s=pl.col("total_s") - pl.col("load_s"))
    lossless = ok.filter(pl.col("label").str.ends_with(row.label) & ~pl.col("label").is_in(LOSSY))
    found = lossless.drop_nulls(row.figure).sort(row.figure).select("label", row.figure).rows()
    return found[0] if found else None


def _predicted(runs: dict[str, Results]) -> Iterator[tuple[str, dict[str, float | None]]]:
    for part, results in runs.items():
        frame = results.summary.rename({"predicted_peak_bytes": "predicted_peak_allocated_bytes"})
        for case in frame.filter(pl.col("outcome") == "ok").iter_rows(named=True):
            yield part, case


def _error(predicted: float | None, measured: float | None) -> float | None:
    return None if predicted is None or not measured else 100 * (predicted / measured - 1)


def _text(value: float | None, unit: float = 1.0) -> str:
    return "n/a" if value is None else f"{value / unit:.2f}"


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.1f} %"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("run", "cost", "tables"))
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without one")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; one of {', '.join(PARTS)}")
    if options.verb == "run":
        return run(options.parts or list(PARTS), weights=options.weights, reports=options.reports)
    if options.verb == "cost":
        from benchmarks import measuring  # loads torch and diffusers, of which the tables have no need

        measuring.on_gpu(options.weights)
    else:
        tables(options.reports)
    return 0


if __name__ == "__main__":
    sys.exit(main())
