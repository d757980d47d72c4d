"""Units of figures: what is stored, and how it is shown.

Everything is stored in s, bytes, J, W, FLOP, percent or a bare count; conversion happens here and only when rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024**2
GIB = 1024**3
NOT_MEASURED = "n/a"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """How a stored number is shown.

    Attributes:
        symbol: Printed after the number or in a column's heading; empty for a count.
        stored_per_shown: Stored units in one shown unit (1 GiB is 2**30 stored bytes).
    """

    symbol: str
    stored_per_shown: float = 1.0


SECONDS = Unit(symbol="s")
BYTES = Unit(symbol="GiB", stored_per_shown=GIB)
PERCENT = Unit(symbol="%")
JOULES = Unit(symbol="kJ", stored_per_shown=1e3)
PFLOP = Unit(symbol="PFLOP", stored_per_shown=1e15)
TFLOPS = Unit(symbol="TFLOP/s")
SM_SECONDS = Unit(symbol="SM%·s")
WATTS = Unit(symbol="W")
CELSIUS = Unit(symbol="°C")
MEGAHERTZ = Unit(symbol="MHz")
BYTES_PER_S = Unit(symbol="GB/s", stored_per_shown=1e9)
TIMES = Unit(symbol="x")
DECIBELS = Unit(symbol="dB")
COUNT = Unit(symbol="")


def show(value: float | None, unit: Unit, *, digits: int) -> str:
    """The number as text without its symbol; ``n/a`` for what was not measured, never a zero in its place."""
    return NOT_MEASURED if value is None else f"{value / unit.stored_per_shown:.{digits}f}"
