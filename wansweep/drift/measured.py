"""Distances of a run's videos from their lossless twins', measured once and kept in its folder.

``drift/ID-TRIAL.json`` stands there beside what the trial kept, ``ID-TRIAL.npz``.
A distance holds for the latents whose hashes it names; the .npz may be deleted once it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from wansweep.drift.distance import DISTANCE, Distance, DriftError, distance, none
from wansweep.drift.keepsake import read
from wansweep.files import content, write_atomic
from wansweep.record import Outcome, Record
from wansweep.store import RunFolder
from wansweep.sweep import Sweep
from wansweep.twins import references


def known(folder: RunFolder, sweep: Sweep, records: Sequence[Record]) -> dict[str, Distance]:
    """``ID-TRIAL`` to the distance that the folder has of it, for every trial that has a reference. Measures nothing."""
    found = {}
    for trial, against in _pairs(sweep, records):
        try:
            kept = DISTANCE.validate_json(content(folder.drift / f"{key(trial)}.json"))
        except (OSError, ValidationError):
            continue
        if (kept.trial, kept.against, kept.latents_sha256) == (key(trial), key(against), _hashes(trial, against)):
            found[key(trial)] = kept
    return found


def measure(folder: RunFolder, sweep: Sweep, records: Sequence[Record], tell: Callable[[str], None] | None = None) -> dict[str, Distance]:
    """Likewise, after those that the folder has not are measured and kept there; trials that kept nothing, or other frames, have none.

    Raises:
        StoreError: The disk refuses one.
    """
    found = known(folder, sweep, records)
    left = [(trial, against) for trial, against in _pairs(sweep, records) if key(trial) not in found]
    for place, (trial, against) in enumerate(left):
        if tell:
            tell(f"drift {place + 1}/{len(left)}: {trial.label} against {against.label}")
        if made := _measured(folder, trial, against):
            write_atomic(folder.drift / f"{made.trial}.json", DISTANCE.dump_json(made))
            found[made.trial] = made
    return found


def key(record: Record) -> str:
    """What a trial's files are called."""
    return f"{record.case_id}-{record.trial}"


def starting_points(sweep: Sweep, records: Sequence[Record]) -> Mapping[str, Record]:
    """Case id to its first ok trial."""
    first: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: record.trial):
        if record.outcome is Outcome.OK and record.resolved:
            first.setdefault(record.case_id, record)
    return first


def _pairs(sweep: Sweep, records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Every ok trial with the trial it is held against: its twin's first, and of a twin's later trials its own first."""
    held, first = references(sweep.cases), starting_points(sweep, records)
    twins = {reference.id for reference in held.values()}
    pairs = []
    for record in records:
        if record.outcome is not Outcome.OK or record.resolved is None:
            continue
        # Its own repeats are the floor: for a twin that comes first, whatever plainer case there is.
        if record.case_id in twins and record is not first[record.case_id]:
            against = record.case_id
        elif record.case_id in held:
            against = held[record.case_id].id
        else:
            continue
        if against in first and first[against] is not record:
            pairs.append((record, first[against]))
    return pairs


def _hashes(trial: Record, against: Record) -> tuple[str, str]:
    assert trial.resolved
    assert against.resolved
    return trial.resolved.latents_sha256, against.resolved.latents_sha256


def _measured(folder: RunFolder, trial: Record, against: Record) -> Distance | None:
    hashes = _hashes(trial, against)
    ran = [record.resolved.output_sha256 if record.resolved else None for record in (trial, against)]
    if hashes[0] == hashes[1] and ran[0] and ran[0] == ran[1]:
        return none(key(trial), key(against), hashes)
    video, reference = (read(folder.drift / f"{key(record)}.npz") for record in (trial, against))
    if video is None or reference is None:
        return None
    try:
        return distance(video, reference, trial=key(trial), against=key(against), latents_sha256=hashes)
    except DriftError:
        return None
