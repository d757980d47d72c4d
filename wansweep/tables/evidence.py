"""What a run folder holds of a trial beside its record: samples and pictures, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from wansweep.record import Record


def _nothing(_: Record) -> None:
    """Of no trial anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Gives what there is of a trial; null where there is nothing.

    Attributes:
        curves: Samples as `tables.curves` makes them.
        sheets: Contact sheet, JPEG.
    """

    curves: Callable[[Record], pl.DataFrame | None] = _nothing
    sheets: Callable[[Record], bytes | None] = _nothing
