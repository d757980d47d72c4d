"""Under which conditions a case was measured, as bullets: repeats, memories, timing, page cache, the sampler's cost; why figures are n/a."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from wansweep.record import Record, Shortage
from wansweep.report.cells import cell, fence, figure
from wansweep.units import GIB, NOT_MEASURED

Row = dict[str, Any]

_MEMORIES = {
    "peak allocated": "peak_allocated_bytes",
    "peak reserved": "peak_reserved_bytes",
    "device used": "peak_device_bytes",
    "host process tree": "peak_host_bytes",
    "pinned host": "peak_pinned_bytes",
}
# Of the stage table, the five memories and energy; stages.parquet has the reasons of every other figure too.
_EXPLAINED = (
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "device_used_bytes",
    "host_bytes",
    "pinned_bytes",
    "cpu_pct",
    "sm_active_pct",
    "gpu_busy_pct",
    "energy_j",
)


def repeats(row: Row) -> str:
    """How many trials the figures are made from, how far apart they were, and what to do about it."""
    kind = {True: "warm", False: "cold", None: "(warm or cold not stated)"}[row["warm"]]
    spread = f", standard deviation of the total {figure(row, 'total_s_spread')}" if row["total_s_spread"] is not None else ""
    aside = f", {row['left_out']} cold left out" if row["left_out"] else ""
    return f"- **Repeats**: n={row['n']} {kind}{aside}{spread}; {row['advice']}"


def memories(row: Row) -> str:
    """The five memories; those of the host are of all ranks together."""
    told = ", ".join(f"{words} {figure(row, name)}" for words, name in _MEMORIES.items())
    return f"- **Memory**: {told}" + (
        f" (of the GPU the fullest of {row['gpus']} ranks, of the host all together)" if (row["gpus"] or 1) > 1 else ""
    )


def measured(record: Record) -> str:
    """How stages were timed, where the weights came from, and what sampling cost."""
    timing = str(record.timing) if record.timing else NOT_MEASURED
    warmups = ", ".join(f"{seconds:.2f} s" for seconds in record.warmup_s)
    cores = f"CPU in % of one core, {record.ranks[0].cores:g} reserved a rank" if record.ranks else f"cores {NOT_MEASURED}"
    parts = [f"timed by {timing}", cores, _page_cache(record), _sampler(record), *([f"warm-ups before it: {warmups}"] if warmups else [])]
    return f"- **Measured**: {'; '.join(parts)}"


def circumstances(records: Sequence[Record]) -> Iterator[str]:
    """What else happened around the case's trials: others on their nodes, attempts that were lost, and a resume under other conditions."""
    sharers = sorted({title for record in records for title in record.shared_with})
    if sharers:
        yield f"- **Node shared with**: {', '.join(map(cell, sharers))}"
    unclean = sorted({note for record in records for note in record.device_notes})
    if unclean:
        yield f"- **GPUs not clean**: {'; '.join(map(cell, unclean))}"
    missing = next((record.shortage for record in records if record.shortage), None)
    if missing:
        yield _shortage(missing)
    lost = [told for record in records for told in record.earlier_attempts]
    if lost:
        yield f"- **Tried again**: {'; '.join(map(cell, lost))}"
    for departures in dict.fromkeys(record.departures for record in records if record.departures):
        trials = ", ".join(f"#{record.trial}" for record in records if record.departures == departures)
        yield f"- **Resumed under other conditions** (resume.force): {cell('; '.join(departures))}; of trial {trials}"


def _shortage(of: Shortage) -> str:
    """What was missing: asked for, there, and taken."""
    amounts = {
        "requested": of.requested_bytes,
        "allocated": of.allocated_bytes,
        "reserved": of.reserved_bytes,
        "free on the device": of.device_free_bytes,
        "of": of.device_total_bytes,
    }
    told = [f"{words} {NOT_MEASURED if amount is None else f'{amount / GIB:.2f} GiB'}" for words, amount in amounts.items()]
    where = f" in {cell(of.stage)}" if of.stage else ""
    return f"- **Out of memory**: of the {'host' if of.of_host else 'GPU'}{where}: {', '.join(told[:1] if of.of_host else told)}"


def log_tail(records: Sequence[Record]) -> str:
    """What the first rank that failed wrote last; empty when none did."""
    tail = next((record.log_tail for record in records if record.log_tail), ())
    ticks = fence("\n".join(tail), least=4)
    return "\n".join(["### Log of the Rank that Failed", "", f"{ticks}text", *tail, ticks]) if tail else ""


def not_measured(stages: pl.DataFrame) -> Iterator[str]:
    """One line with every reason for a figure that is n/a in the case's stages; none where all were measured."""
    by_reasons: dict[str, list[str]] = {}
    for name in _EXPLAINED:
        whys = Counter(stages.filter(pl.col(name).is_null())[f"{name}_why"].to_list())
        if not whys:
            continue
        first, *others = whys.most_common()
        told = [f"{first[0]} in {first[1]} stage{'s' if first[1] > 1 else ''}", *(f"{why} in {count}" for why, count in others)]
        by_reasons.setdefault(", ".join(told), []).append(name)
    if by_reasons:
        yield f"- **{NOT_MEASURED}**: " + "; ".join(f"{', '.join(names)} {told}" for told, names in by_reasons.items())


def _page_cache(record: Record) -> str:
    cached = record.weights_cached
    if cached is None or cached.value is None:
        return f"page cache at load {NOT_MEASURED}" + (f" ({cached.why})" if cached and cached.why else "")
    return f"page cache held {100 * cached.value:.1f} % of the weights at load"


def _sampler(record: Record) -> str:
    facts = record.sampler
    if facts is None:
        return "no sampler"
    core = f"{facts.cpu_s:.2f} CPU s in {facts.wall_s:.1f} s" if facts.cpu_s is not None and facts.wall_s else f"cost {NOT_MEASURED}"
    driver = f", {1e3 * facts.nvml_s:.2f} ms a reading of a GPU" if facts.nvml_s is not None else ""
    failed = f", {len(facts.errors)} error(s)" if facts.errors else ""
    return f"sampler {core}{driver}{failed}"


def warned(lines: Sequence[str]) -> str:
    """The instability warnings; empty without any."""
    return "**Instability warnings:**\n" + "\n".join(f"- {cell(line)}" for line in lines) if lines else ""
