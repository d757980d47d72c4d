"""What a case must meet to be recommended, and by how much it does or does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wansweep.metrics import METRIC
from wansweep.units import GIB

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a case must meet; null for no limit.

    Attributes:
        vram_bytes: At most, on the fullest GPU.
        total_s: At most.
        gpus: At most.
        ssim: At least, against the lossless twin.
        allow_lossy: Whether lossy cases count without a measured drift.
    """

    vram_bytes: float | None = None
    total_s: float | None = None
    gpus: int | None = None
    ssim: float | None = None
    allow_lossy: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One constraint on one case.

    Attributes:
        name: ``max-vram``, ``max-time``, ``max-gpus``, ``min-ssim`` or ``drift``.
        met: Whether it is met; what was not measured is not met.
        told: By how much, or why not.
        excess_pct: How far beyond, in percent of the limit; null when met, or when it cannot be said.
    """

    name: str
    met: bool
    told: str
    excess_pct: float | None = None


def checks(row: Row, *, vram: float | None, ssim: float | None, lossy: Sequence[str], limits: Limits) -> tuple[Check, ...]:
    """Every constraint that is asked for, on one row of the summary; drift is asked of lossy cases whether or not the user does."""
    asked = [
        _at_most("max-vram", vram, limits.vram_bytes, GIB, "GiB"),
        _at_most("max-time", row["total_s"], limits.total_s, 1.0, "s"),
        _gpus(row["gpus"], limits.gpus),
        _ssim(ssim, limits.ssim),
        _drift(lossy, ssim, limits, row["drift_why"]),
    ]
    return tuple(check for check in asked if check)


def _at_most(name: str, value: float | None, limit: float | None, unit: float, symbol: str) -> Check | None:
    if limit is None:
        return None
    if value is None:
        return Check(name=name, met=False, told="not measured")
    left = (limit - value) / unit
    told = f"{left:.2f} {symbol} to spare" if left >= 0 else f"{-left:.2f} {symbol} too much"
    return Check(name=name, met=left >= 0, told=told, excess_pct=None if left >= 0 else 100 * (value - limit) / limit)


def _gpus(count: int | None, limit: int | None) -> Check | None:
    """GPUs are there or not: a case that takes more is no near miss."""
    if limit is None:
        return None
    if count is None:
        return Check(name="max-gpus", met=False, told="not stated")
    return Check(name="max-gpus", met=count <= limit, told=f"takes {count}")


def _ssim(ssim: float | None, limit: float | None) -> Check | None:
    if limit is None:
        return None
    if ssim is None:
        return Check(name="min-ssim", met=False, told="drift not measured")
    excess = None if ssim >= limit else 100 * (limit - ssim) / limit
    return Check(name="min-ssim", met=ssim >= limit, told=METRIC["ssim"].show(ssim), excess_pct=excess)


def _drift(lossy: Sequence[str], ssim: float | None, limits: Limits, why: str | None) -> Check | None:
    """A lossy case needs a measured drift, unless the user takes it as it is."""
    if not lossy:
        return None
    if ssim is not None or limits.allow_lossy:
        return Check(name="drift", met=True, told="measured" if ssim is not None else "not measured, allowed")
    return Check(name="drift", met=False, told=f"lossy ({', '.join(lossy)}) and its drift not measured{f': {why}' if why else ''}")
