"""What a reader chooses from, a video at a time: the cases that no other beats, and the card that each asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wansweep.hardware import GPUS
from wansweep.record import Outcome
from wansweep.tables.constraints import Limits
from wansweep.tables.recommendation import Candidate, Objective, Recommendation, recommend
from wansweep.tables.results import Results
from wansweep.tables.tradeoffs import HOST, memory_measured, unbeaten
from wansweep.units import GIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A case worth running.

    Attributes:
        candidate: The case with its figures.
        memory_bytes: Peak of the fullest GPU, or of the host; null where it was not measured.
        card: The smallest cards that have room for it; null without GPU memory or where none has.
        against: The fastest lossless choice on as many GPUs (without one the fastest); itself for that one.
        saved_bytes: Memory less than that one's; null where either was not measured.
    """

    candidate: Candidate
    memory_bytes: float | None
    card: str | None
    against: Candidate
    saved_bytes: float | None

    @property
    def extra_s(self) -> float:
        """Seconds more than ``against``."""
        return _time(self.candidate) - _time(self.against)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """One video and the ways to make it.

    Attributes:
        title: Model, size and steps as they ran.
        memory: The column that ``memory_bytes`` are of; null where nothing was measured.
        measured: Cases that ended ok.
        uncounted: Of them the lossy ones without a measured drift, which are no choices.
        choices: Fewest GPUs first, then fastest.
        best: The least by each objective; without those that nobody measured.
    """

    title: str
    memory: str | None
    measured: int
    uncounted: int
    choices: tuple[Choice, ...]
    best: dict[Objective, Choice]


def choices(results: Results) -> tuple[Choices, ...]:
    """Of each video of the run that a case was made of, in the sweep's order."""
    memory = memory_measured(results.summary)
    return tuple(_choices(answer, memory) for answer in recommend(results, Limits(), Objective.TIME))


def not_ok(results: Results) -> list[dict[str, str]]:
    """Label, case id, outcome and reason of the cases that ended otherwise than ok, in the sweep's order."""
    rows = results.summary.select("case_id", "label", "outcome", "reason").iter_rows(named=True)
    return [row for row in rows if row["outcome"] not in (None, str(Outcome.OK))]


def _choices(answer: Recommendation, memory: str | None) -> Choices:
    countable = [one for one in answer.candidates if one.counts and one.figures[Objective.TIME] is not None]
    ahead = unbeaten([(_time(one), _memory(one, memory), one.gpus, one.loss) for one in countable])
    worth = sorted((countable[place] for place in ahead), key=lambda one: (one.gpus or 1, _time(one)))
    firsts: dict[int, Candidate] = {}
    for one in sorted(worth, key=lambda one: bool(one.lossy)):
        firsts.setdefault(one.gpus or 1, one)
    return Choices(
        title=answer.title,
        memory=memory,
        measured=len(answer.candidates),
        uncounted=sum(not one.counts for one in answer.candidates),
        choices=tuple(_choice(one, memory, firsts[one.gpus or 1]) for one in worth),
        best={of: _choice(least, memory, least) for of in Objective if (least := _least(countable, of))},
    )


def _choice(one: Candidate, memory: str | None, against: Candidate) -> Choice:
    peak, base = _memory(one, memory), _memory(against, memory)
    return Choice(
        candidate=one,
        memory_bytes=peak,
        card=_card(peak) if memory != HOST else None,
        against=against,
        saved_bytes=None if peak is None or base is None else base - peak,
    )


def _least(candidates: Sequence[Candidate], objective: Objective) -> Candidate | None:
    return min((one for one in candidates if one.figures[objective] is not None), key=lambda one: one.figures[objective] or 0.0, default=None)


def _card(peak: float | None) -> str | None:
    """``a100-80gb, h100 (80 GiB)``: of the least nominal size with a card that has room, the names of those that have."""
    sizes: dict[int, list[str]] = {}
    for gpu in GPUS.values():
        if gpu.usable_bytes is not None and peak is not None and gpu.usable_bytes >= peak:
            sizes.setdefault(gpu.vram_bytes, []).append(gpu.name)
    return f"{', '.join(sizes[least])} ({least / GIB:.0f} GiB)" if (least := min(sizes, default=None)) is not None else None


def _time(one: Candidate) -> float:
    seconds = one.figures[Objective.TIME]
    assert seconds is not None
    return seconds


def _memory(one: Candidate, name: str | None) -> float | None:
    value: float | None = one.row[name] if name else None
    return value
