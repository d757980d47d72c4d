"""How a gang's trial ended: of everything that its ranks said or left unsaid, the one thing that explains the rest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wansweep.record import Outcome
from wansweep.trial.task import Ending

_SEVERITY = (Outcome.OOM, Outcome.INVALID, Outcome.CRASH)
# What gloo, NCCL and sockets say of a rank whose peer is gone; the peer's own end explains more.
_SYMPTOMS = ("closed by peer", "reset by peer", "remote process exited", "NCCL error", "Broken pipe", "Connection refused")


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How a trial ended.

    Attributes:
        outcome: Of the record.
        reason: One line; empty for ok.
        rank: The one that failed; null for ok.
        lost: A node went away, and the case is not to blame.
    """

    outcome: Outcome
    reason: str = ""
    rank: int | None = None
    lost: bool = False


def culprit(failures: Sequence[Ending], *, died: Collection[int]) -> Ending:
    """The failure that explains the others: an OOM, a process that died, an error of a rank's own, and last a connection that broke."""
    return min(failures, key=lambda ending: (_SEVERITY.index(ending.outcome), ending.rank not in died, _is_symptom(ending), ending.rank))


def _is_symptom(ending: Ending) -> bool:
    return any(word in ending.reason for word in _SYMPTOMS)
