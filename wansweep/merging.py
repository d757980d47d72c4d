"""Several run folders read as one: as tables side by side, or as one new run folder where they were measured under one environment.

Figures of different hardware or versions never share a median: `merge` refuses them and says what differs, `side_by_side` keeps a row a run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from wansweep.drift.distance import DISTANCE
from wansweep.drift.measured import key
from wansweep.errors import StoreError
from wansweep.files import content, opened, write_atomic
from wansweep.publish import read_results, write_tables
from wansweep.record import Record
from wansweep.store import RunFolder, created_whole, open_folder
from wansweep.sweep import Sweep
from wansweep.tables import surroundings
from wansweep.tables.compute import device_names
from wansweep.tables.results import Results


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Several runs, read.

    Attributes:
        runs: By the name that the rows have in ``run``.
        summary: One row a case of a run: ``run``, ``environment_id`` and the summary's columns.
        stages: One row a stage of a rank of a trial, likewise.
    """

    runs: dict[str, Results]
    summary: pl.DataFrame
    stages: pl.DataFrame


def side_by_side(paths: Sequence[Path]) -> Runs:
    """Run folders as one table; nothing is folded over runs.

    Raises:
        StoreError: One is no run folder, or is named twice.
    """
    runs = {name: read_results(folder) for name, folder in _opened(paths).items()}
    frames = {}
    for table in ("summary", "stages"):
        marked = []
        for name, results in runs.items():
            frame: pl.DataFrame = getattr(results, table)
            marked.append(frame.select(pl.lit(name).alias("run"), pl.lit(environment_id(results)).alias("environment_id"), pl.all()))
        frames[table] = pl.concat(marked, how="vertical")
    return Runs(runs=runs, summary=frames["summary"], stages=frames["stages"])


def environment_id(results: Results) -> str:
    """Eight hex digits over what must be equal before figures are compared: devices, driver, power limit, versions of what computes."""
    facts = [*surroundings.must_be_equal(results.environment).items(), ("devices", sorted(_devices(results.records)))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def merge(paths: Sequence[Path], target: Path) -> RunFolder:
    """A new run folder with the trials of several, whose records say which run each came from.

    Raises:
        StoreError: The runs were not measured under one environment, or one cannot be read, or the folder cannot be made.
    """
    folders = _opened(paths)
    if len(folders) < 2:
        raise StoreError("merge: takes two run folders at least")
    runs = {name: read_results(folder) for name, folder in folders.items()}
    first, *others = runs
    for other in others:
        if told := _obstacle(runs[first], runs[other]):
            raise StoreError(
                f"{folders[other].path}: not measured as {folders[first].path} ({told}), and figures of both would share a median; "
                "hold them side by side with wansweep.load([...]) or wansweep export"
            )
    sweep = _sweep(runs)
    labels = {case.id: case.label for case in sweep.cases}
    count: dict[str, int] = {}
    with created_whole(target, sweep, runs[first].environment) as made:
        made.drift.mkdir(exist_ok=True)
        write_atomic(made.plan, json.dumps([row for one in runs.values() for row in one.predictions.values()]).encode())
        for name, folder in folders.items():
            moved: dict[str, Record] = {}
            for record in sorted(runs[name].records, key=lambda record: record.trial):
                number = count[record.case_id] = count.get(record.case_id, -1) + 1
                moved[key(record)] = replace(record, trial=number, label=labels[record.case_id], run=record.run or name)
                made.append(moved[key(record)])
            _carry(folder, made, moved)
        write_tables(made, read_results(made, measure=lambda _: None))
    return RunFolder(path=target)


def _opened(paths: Sequence[Path]) -> dict[str, RunFolder]:
    """Folders by name: the folder's own where that is told apart, else with its parents'."""
    resolved = [path.resolve() for path in paths]
    for path in resolved:
        if resolved.count(path) > 1:
            raise StoreError(f"{path}: named twice; its trials would count twice")
    for parts in range(1, 1 + max(len(path.parts) for path in resolved)):
        names = ["/".join(path.parts[-parts:]) for path in resolved]
        if len(set(names)) == len(names):
            break
    return {name: open_folder(path) for name, path in zip(names, paths, strict=True)}


def _obstacle(one: Results, other: Results) -> str | None:
    """What differs of two environments, of what must be equal."""
    differing = surroundings.compare(one.environment, other.environment).differing
    told = [f"{name} {change}" for name, change in differing.items()]
    there, here = (_devices(results.records) for results in (one, other))
    if there and here and there != here:
        told.append(f"device {', '.join(sorted(there))} -> {', '.join(sorted(here))}")
    return "; ".join(told) or None


def _devices(records: Sequence[Record]) -> set[str]:
    return {name for record in records for name in device_names(record)}


def _sweep(runs: dict[str, Results]) -> Sweep:
    """All cases once, each with the command of the run that it came from first; a label that two have is told apart by the run's name."""
    sweeps = {name: results.sweep for name, results in runs.items()}
    first = next(iter(sweeps.values()))
    cases, commands, labels = {}, {}, set[str]()
    for name, sweep in sweeps.items():
        for case in sweep.cases:
            if case.id not in cases:
                cases[case.id] = replace(case, label=f"{case.label} ({name})") if case.label in labels else case
                commands[case.id] = sweep.command_for(case.label)
                labels.add(cases[case.id].label)
    left = {one.case.id: one for sweep in sweeps.values() for one in sweep.excluded if one.case.id not in cases}
    names = list(dict.fromkeys(sweep.name for sweep in sweeps.values()))
    drift = any(sweep.procedure.drift for sweep in sweeps.values())
    return replace(
        first,
        name="+".join(names),
        cases=tuple(cases.values()),
        excluded=tuple(left.values()),
        procedure=replace(first.procedure, drift=drift),
        models={model: source for sweep in reversed(sweeps.values()) for model, source in sweep.models.items()},
        commands=commands,
    )


def _carry(folder: RunFolder, made: RunFolder, moved: dict[str, Record]) -> None:
    """Copy what the folder holds beside its records, under the trials' new numbers. Videos stay where they are."""
    for place in ("traces", "frames", "drift"):
        for file in sorted((folder.path / place).glob("*")):
            if file.stem in moved and file.suffix != ".json":
                _copy(file, made.path / place / f"{key(moved[file.stem])}{file.suffix}")
    for file in sorted(folder.drift.glob("*.json")):
        try:
            kept = DISTANCE.validate_json(content(file))
        except (OSError, ValidationError):
            continue  # is measured again
        if kept.trial in moved and kept.against in moved:
            new = replace(kept, trial=key(moved[kept.trial]), against=key(moved[kept.against]))
            write_atomic(made.drift / f"{new.trial}.json", DISTANCE.dump_json(new))


def _copy(file: Path, to: Path) -> None:
    """A file of a run folder to another; what is none, or leads out of the folder, is left."""
    try:
        source = opened(file, follow=False)
    except OSError:
        return
    with source, to.open("wb") as copy:
        shutil.copyfileobj(source, copy)
