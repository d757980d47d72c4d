"""Which trials of a case its figures are made from. Warm and cold ones never share a median."""

from __future__ import annotations

from collections.abc import Sequence

from wansweep.record import Outcome, Record


def is_warm(record: Record) -> bool:
    """Whether first-run effects (CUDA modules, autotuning, allocator growth, page cache) were behind it before it was measured."""
    return record.warm or bool(record.warmup_s)


def counted(records: Sequence[Record]) -> tuple[Record, ...]:
    """The trials of one case that make its figures and its n: its ok ones, and where there are warm and cold ones, the warm."""
    ok = tuple(record for record in records if record.outcome is Outcome.OK)
    return tuple(record for record in ok if is_warm(record)) or ok


def left_out(records: Sequence[Record]) -> int:
    """How many cold trials of one case stand in no figure, because it has warm ones."""
    return sum(record.outcome is Outcome.OK for record in records) - len(counted(records))
