"""Which case's video each is held against: its lossless twin, the case that is asked for the same video and pulls no lossy lever.

Only cases of one workload (`lossy.workload`: model, size, frames, steps, seed, prompts, solver, guidance ...) are twins. Of several lossless
ones the nearest in the other levers is taken, so that a difference is the lossy lever's. Lossless cases are held against the plainest of
them: what lossless levers do to the order of sums is seen there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wansweep.case import Case, declared_fields
from wansweep.lossy import FREE, LOSSLESS, lossy_levers, without_loss, workload
from wansweep.sweep import Sweep

# dtype too: fp32 experts are no lossy lever, and yet another video than bf16 ones make.
_LEVERS = (*(name for name in FREE if name != "name"), "dtype")
_PLAIN = {field.name: field.default for field in declared_fields() if field.name in _LEVERS}
# Fields of which a difference makes two cases no twins.
_WORKLOAD = [field.name for field in declared_fields() if field.name not in (*FREE, "dtype", *LOSSLESS)]
# A video made twice: so far apart are two that nothing was changed for.
LEAST_REPEATS = 2


def references(cases: Sequence[Case]) -> dict[str, Case]:
    """Case id to its lossless twin; of workloads with lossy and lossless cases. The plainest lossless one has none: it is where drift is 0."""
    found: dict[str, Case] = {}
    for group in _mixed(cases):
        lossless = [case for case in group if not lossy_levers(case)]
        plainest = min(lossless, key=lambda case: sum(getattr(case, name) != plain for name, plain in _PLAIN.items()))
        for case in group:
            if lossy_levers(case):
                found[case.id] = _nearest(without_loss(case), lossless, _LEVERS)
            elif case is not plainest:
                found[case.id] = plainest
    return found


def kept(sweep: Sweep) -> frozenset[str]:
    """Ids of the cases whose videos are held against each other, and so must be kept."""
    return frozenset(case.id for group in _mixed(sweep.cases) for case in group) if sweep.procedure.drift else frozenset()


def repeats(sweep: Sweep) -> dict[str, int]:
    """Case id to its trials: as the procedure says, and of cases that lossy ones are held against two at least, for the floor of drift."""
    held = references(sweep.cases) if sweep.procedure.drift else {}
    lossy = {case.id for case in sweep.cases if lossy_levers(case)}
    twice = {reference.id for id_, reference in held.items() if id_ in lossy}
    asked = sweep.procedure.repeats
    return {case.id: max(asked, LEAST_REPEATS) if case.id in twice else asked for case in sweep.cases}


def why_alone(case: Case, cases: Iterable[Case]) -> str:
    """Why a case has no twin, with what the nearest lossless case differs in."""
    if not lossy_levers(case):
        return "lossless, with no lossy case of its workload beside it"
    others = [other for other in cases if not lossy_levers(other)]
    if not others:
        return "no lossless case in the run"
    nearest = _nearest(case, others, _WORKLOAD)
    differ = ", ".join(f"{name} {getattr(nearest, name)} -> {getattr(case, name)}"[:80] for name in _apart(case, nearest, _WORKLOAD))
    return f"no lossless twin: the nearest lossless case, {nearest.label}, is asked for another video ({differ})"


def _mixed(cases: Sequence[Case]) -> list[list[Case]]:
    """Groups of cases of one workload, of those that have lossy and lossless ones."""
    groups: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(workload(case), []).append(case)
    return [group for group in groups.values() if len({bool(lossy_levers(case)) for case in group}) > 1]


def _nearest(case: Case, others: Iterable[Case], names: Iterable[str]) -> Case:
    """The first of those that differ least in the named fields."""
    return min(others, key=lambda other: len(_apart(case, other, names)))


def _apart(one: Case, other: Case, names: Iterable[str]) -> list[str]:
    return [name for name in names if getattr(one, name) != getattr(other, name)]
