"""Which case of one run is which of another, and why two that belong together may still say nothing of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from wansweep.case import Case, declared_fields
from wansweep.levers import Weights
from wansweep.record import Outcome, Record
from wansweep.tables.compute import device_names
from wansweep.tables.repeats import counted, is_warm
from wansweep.tables.results import Results


class MatchedBy(StrEnum):
    """How two cases were found to be one."""

    ID = "case id"
    NAME = "name"


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One run's part of a pair.

    Attributes:
        case: As declared.
        records: Its trials.
        outcome: As the summary has it; null when it has not run.
        reason: Why it is not ok.
    """

    case: Case
    records: tuple[Record, ...]
    outcome: Outcome | None
    reason: str

    @property
    def assumed(self) -> frozenset[str]:
        """Fields that an imported report does not state."""
        return frozenset(name for record in self.records if record.imported for name in record.imported.assumed)

    @property
    def is_imported(self) -> bool:
        """Whether it was read from an old report."""
        return any(record.imported for record in self.records)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One case on both sides; a side that does not have it is null."""

    label: str
    base: Side | None
    head: Side | None
    matched_by: MatchedBy | None


def pairs(base: Results, head: Results) -> list[Pair]:
    """Every case of either run once, the base's order first: matched by id, and of what is left by name where one side is imported."""
    bases, heads = _sides(base), _sides(head)
    names = {side.case.label: id_ for id_, side in heads.items() if id_ not in bases}
    found: list[Pair] = []
    used: set[str] = set()
    for id_, side in bases.items():
        other, by = (heads[id_], MatchedBy.ID) if id_ in heads else (None, None)
        if other is None and (by_name := heads.get(names.get(side.case.label, ""))) and (side.is_imported or by_name.is_imported):
            other, by = by_name, MatchedBy.NAME
        if other:
            used.add(other.case.id)
        found.append(Pair(label=side.case.label, base=side, head=other, matched_by=by))
    return found + [Pair(label=side.case.label, base=None, head=side, matched_by=None) for id_, side in heads.items() if id_ not in used]


def _sides(results: Results) -> dict[str, Side]:
    records: dict[str, list[Record]] = {}
    for record in results.records:
        records.setdefault(record.case_id, []).append(record)
    rows = {row["case_id"]: row for row in results.summary.iter_rows(named=True)}
    return {
        case.id: Side(
            case=case,
            records=tuple(records.get(case.id, ())),
            outcome=Outcome(rows[case.id]["outcome"]) if rows[case.id]["outcome"] else None,
            reason=rows[case.id]["reason"] or "",
        )
        for case in results.sweep.cases
    }


def obstacle(base: Side, head: Side) -> str | None:
    """Why the figures of two sides of a pair say nothing of each other; null when they may be compared."""
    for told in (_settings(base, head), _departures((base, head)), _devices(base.records, head.records), _warmth(base, head)):
        if told:
            return told
    return None


def _settings(base: Side, head: Side) -> str | None:
    """For sides matched by name: a stated setting that differs, or a miniature against a real model."""
    tiny = [side.case.weights == Weights.TINY for side in (base, head)]
    if tiny[0] != tiny[1]:
        return "a miniature (weights=tiny) against a real model"
    unstated = base.assumed | head.assumed | {"name"}
    differ = [
        f"{field.name} {getattr(base.case, field.name)} -> {getattr(head.case, field.name)}"
        for field in declared_fields()
        if field.name not in unstated and getattr(base.case, field.name) != getattr(head.case, field.name)
    ]
    return f"settings differ: {', '.join(differ)}" if differ else None


def _departures(sides: Sequence[Side]) -> str | None:
    """A trial of a forced resume did not run under what its run's environment says."""
    lines = dict.fromkeys(line for side in sides for record in counted(side.records) for line in record.departures)
    return f"trials of a forced resume: {', '.join(lines)}" if lines else None


def _devices(base: Sequence[Record], head: Sequence[Record]) -> str | None:
    there, here = ({name for record in counted(records) for name in device_names(record)} for records in (base, head))
    if there and here and there != here:
        return f"environment differs: device {_told(there)} -> {_told(here)}"
    return None


def _warmth(base: Side, head: Side) -> str | None:
    """First-run effects are in one side's figures and not in the other's; an imported report does not say."""
    if base.is_imported or head.is_imported:
        return None
    warm = [{is_warm(record) for record in counted(side.records)} for side in (base, head)]
    words = {True: "warm", False: "cold"}
    if all(warm) and warm[0] != warm[1]:
        return f"{' and '.join(words[w] for w in sorted(warm[0]))} trials -> {' and '.join(words[w] for w in sorted(warm[1]))} ones"
    return None


def _told(names: set[str]) -> str:
    return " and ".join(sorted(names))
