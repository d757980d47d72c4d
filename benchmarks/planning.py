"""The planner against published figures: predicted, published, signed error a row, median, worst; and what foretelling a large sweep takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from benchmarks.jobs import jobs
from benchmarks.published import PUBLISHED, Published
from wansweep.hardware import GPUS
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.memory import memory
from wansweep.plan.packing import simulate
from wansweep.plan.roofline import times
from wansweep.plan.traces import Traces, cache_file
from wansweep.units import GIB

MANY, NODES = 10_000, 128


def run() -> None:
    """Print both tables, and what foretelling a large sweep takes."""
    traces = Traces(cache_file())
    seconds = [(row, _seconds(row, traces), row.seconds) for row in PUBLISHED if row.seconds is not None]
    print("| seconds of | GPU | code | predicted | published | error |\n|---|---|---|---:|---:|---:|")
    _table(seconds, digits=2)
    peaks = [(row, memory(row.case, ARCHITECTURES[row.case.model], traces, row.stack).peak_bytes / GIB, row.peak_gib) for row in PUBLISHED]
    print("\n| peak GiB of | GPU | code | predicted | published | error |\n|---|---|---|---:|---:|---:|")
    _table([(row, predicted, published) for row, predicted, published in peaks if published is not None], digits=1, all_count=True)
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
    found = times(row.case, ARCHITECTURES[row.case.model], GPUS[row.gpu], traces, stack=row.stack)
    match row.what:
        case "forward":
            return found.forward.total_s
        case "text_encode":
            return found.text_encode_s
        case "vae_decode":
            return found.vae_decode_s
        case "swap":
            return found.swap_s / 2
        case _:
            assert found.generation_s is not None, row
            return found.generation_s


def _table(rows: Sequence[tuple[Published, float, float]], *, digits: int, all_count: bool = False) -> None:
    judged = [row for row in rows if not row[0].apart]
    for row, predicted, published in [*judged, *(row for row in rows if row[0].apart)]:
        remark = " (a constant is from it)" if row.known and not all_count else f" (apart: {row.apart})" if row.apart else ""
        levers = [word for word in (row.case.offload, row.case.compile) if word != "none"]
        what = row.what if row.what != "generation" else ""
        name = ", ".join(word for word in (row.case.label, what, *levers) if word)
        error = 100 * (predicted / published - 1)
        print(f"| {name} | {row.gpu} | {row.stack.name} | {predicted:.{digits}f} | {published:.{digits}f} | {error:+.1f} %{remark} |")
    errors = [100 * (predicted / published - 1) for row, predicted, published in judged if all_count or not row.known]
    worst = max(errors, key=abs)
    median, mean = statistics.median(map(abs, errors)), statistics.mean(errors)
    apart = f"; {len(rows) - len(judged)} rows judged apart" if len(judged) < len(rows) else ""
    print(f"\nmedian |error| {median:.1f} %, mean {mean:+.1f} %, worst {worst:+.1f} %, n={len(errors)}{apart}")
