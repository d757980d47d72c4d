"""The planner against published figures: predicted, published, signed error a row, median, worst; and what foretelling a large sweep takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from benchmarks.jobs import jobs
from benchmarks.published import PUBLISHED, Published
from wansweep.hardware import GPUS
from wansweep.plan.memory import memory
from wansweep.plan.packing import simulate
from wansweep.plan.roofline import times
from wansweep.plan.traces import Traces, cache_file
from wansweep.units import GIB

MANY, NODES = 10_000, 128
# A row, what is predicted and what is published.
Compared = tuple[Published, float, float]


def run() -> None:
    """Print both tables, and what foretelling a large sweep takes."""
    traces = Traces(cache_file())
    seconds = [(row, _seconds(row, traces), row.seconds) for row in PUBLISHED if row.seconds is not None]
    print("| seconds of | GPU | code | predicted | published | error |\n|---|---|---|---:|---:|---:|")
    _table(seconds, digits=2)
    peaks = [(row, _peak_gib(row, traces), row.peak_gib) for row in PUBLISHED if row.peak_gib is not None]
    print("\n| peak GiB of | GPU | code | predicted | published | error |\n|---|---|---|---:|---:|---:|")
    _table(peaks, digits=1)
    traces.save()
    _scale()


def _scale() -> None:
    """The scheduler's order of many trials on many nodes, simulated."""
    nodes = {f"node{number}": 8.0 for number in range(NODES)}
    for exclusive in (False, True):
        drawn = jobs(0, MANY, median_s=55.0)
        begin_s = time.process_time()
        found = simulate(drawn, nodes, exclusive=exclusive)
        took_s = time.process_time() - begin_s
        print(
            f"\n{MANY} trials on {8 * NODES} GPUs, {'a node each' if exclusive else 'sharing nodes'}, simulated in {took_s:.1f} s of CPU, "
            f"{1e3 * took_s / MANY:.2f} ms a trial; makespan over the lower bound {found.makespan_s / found.bound_s:.3f}"
        )


def _seconds(row: Published, traces: Traces) -> float:
    found = times(row.case, row.networks, GPUS[row.gpu], traces, stack=row.stack)
    match row.what:
        case "forward":
            return found.forward.total_s
        case "step":
            assert found.step_s is not None, row
            return found.step_s
        case "text_encode":
            return found.text_encode_s
        case "vae_decode":
            return found.vae_decode_s
        case "swap":
            return found.swap_s / 2
        case _:
            assert found.generation_s is not None, row
            return found.generation_s


def _peak_gib(row: Published, traces: Traces) -> float:
    found = memory(row.case, row.networks, traces, row.stack)
    return (found.peak_bytes + (found.beside_bytes if row.device else 0)) / GIB


def _table(rows: Sequence[Compared], *, digits: int) -> None:
    """The rows, those apart after those judged, further ones after both; and what their errors come to."""
    for row, predicted, published in sorted(rows, key=lambda each: (each[0].further, bool(each[0].apart))):
        remark = f" ({notes})" if (notes := _notes(row, memory=digits == 1)) else ""
        error = f"{100 * (predicted / published - 1):+.1f} %{remark}"
        print(f"| {_name(row)} | {row.gpu} | {row.stack.name} | {predicted:.{digits}f} | {published:.{digits}f} | {error} |")
    print()
    counted = [each for each in rows if digits == 1 or not each[0].known]
    known, further = ([each for each in counted if each[0].further is late] for late in (False, True))
    _errors("judged", [each for each in known if not each[0].apart])
    _errors("with those apart", known)
    _errors("further, judged", [each for each in further if not each[0].apart])
    _errors("further, with those apart", further)


def _name(row: Published) -> str:
    levers = [word for word in (row.case.offload, row.case.compile) if word != "none"]
    return ", ".join(word for word in (row.case.label, row.what if row.what != "generation" else "", *levers) if word)


def _notes(row: Published, *, memory: bool) -> str:
    device = "by device" if memory and row.device else ""
    known = "a constant is from it" if row.known and not memory else ""
    return "; ".join(note for note in (device, known, f"apart: {row.apart}" if row.apart else "") if note)


def _errors(which: str, rows: Sequence[Compared]) -> None:
    if rows:
        errors = [100 * (predicted / published - 1) for _, predicted, published in rows]
        worst, median, mean = max(errors, key=abs), statistics.median(map(abs, errors)), statistics.mean(errors)
        print(f"{which}: median |error| {median:.1f} %, mean {mean:+.1f} %, worst {worst:+.1f} %, n={len(errors)}")
