"""Amounts as a user types them: ``24GB``, ``90s``, ``2min``, to bytes and seconds; counts and shares."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wansweep.errors import ConfigError
from wansweep.units import GIB, KIB, MIB

_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": float(KIB), "mib": float(MIB), "gib": float(GIB), "tib": 1024.0 * GIB}
_SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]+)")


def byte_count(text: str, *, option: str) -> float:
    """Bytes: GB is 1e9 of them, GiB 2**30.

    Raises:
        ConfigError: It is no positive amount of memory with its unit.
    """
    return _amount(
        text, _BYTES, option=option, rule="an amount of memory above 0 with its unit, as 24GB (24e9 bytes), 24GiB (24 x 2^30) or 800MB"
    )


def seconds(text: str, *, option: str) -> float:
    """Seconds.

    Raises:
        ConfigError: It is no positive length of time with its unit.
    """
    return _amount(text, _SECONDS, option=option, rule="a length of time above 0 with its unit, as 120s, 1.5min, 2h or 800ms")


def count(text: str, *, option: str) -> int:
    """How many, 1 at least.

    Raises:
        ConfigError: It is no such number.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text.strip()):
        raise ConfigError([f"{option} {text}: write a whole number above 0, as 2"])
    return int(text)


def share(text: str, *, option: str) -> float:
    """A number from 0 to 1.

    Raises:
        ConfigError: It is none.
    """
    if not re.fullmatch(r"0|1|0?\.[0-9]+|1\.0+", text.strip()):
        raise ConfigError([f"{option} {text}: write a number from 0 to 1, as 0.95"])
    return float(text)


def _amount(text: str, units: Mapping[str, float], *, option: str, rule: str) -> float:
    found = _AMOUNT.fullmatch(text.strip())
    factor = units.get(found[2].lower()) if found else None
    if found is None or factor is None or float(found[1]) <= 0:
        raise ConfigError([f"{option} {text}: write {rule}"])
    return float(found[1]) * factor
