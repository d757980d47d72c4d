"""A finding: one thing that was looked at, how it stands, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a thing stands."""

    OK = "ok"
    WARN = "warn"
    PROBLEM = "problem"
    NOT_HERE = "n/a"

    @property
    def stops_sweeps(self) -> bool:
        """Whether sweeps that this machine should run will not."""
        return self is State.PROBLEM


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: Which check looked: ``gpus``, ``driver``, ``metrics``, ``levers``, ``storage``, ``memory``, ``ray``, ``versions``.
        what: The thing, within its area.
        state: ok; warn: sweeps run, and something is lost; problem: sweeps will fail; n/a: this machine has no such thing.
        detail: What was seen, with its figures.
        fix: A command to paste or a sentence; empty only when there is nothing to mend.
    """

    area: str
    what: str
    state: State
    detail: str
    fix: str = ""
