"""Going on with a run folder: what must be as it was before old trials and new ones may stand in one table, and what is kept when it is not.

A folder is gone on with under any of the sweeps and environments that it already holds. Of the sweep its cases count, where their weights come
from, and what of the procedure and the cluster changes figures; of the environment what `tables.surroundings` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wansweep.errors import ConfigError
from wansweep.store import RunFolder, open_folder
from wansweep.sweep import Sweep
from wansweep.tables import surroundings
from wansweep.telemetry.environment import Environment

# How long to wait, how often to try: the way on where trials ended by accident. None of it is in a figure of one that ended well.
FREE = ("timeout_s", "hang_s", "retries", "try_anyway")
# Of the cluster, who is beside a trial and how a gang is spread; its address and size are seen in the environment.
CLUSTER = ("exclusive", "straddle")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """A folder to go on with.

    Attributes:
        folder: It.
        departures: How the trials to come differ from what the folder was made with; a line each, empty unless forced.
    """

    folder: RunFolder
    departures: tuple[str, ...]


def resume(path: Path, sweep: Sweep, environment: Environment, *, force: bool) -> Resumed:
    """The folder at the path; sweep and environment are kept in it when they are not as it knows them. Only for the one that has its lock.

    Raises:
        ConfigError: They differ, and it is not forced; a line a difference.
        StoreError: It is no run folder, cannot be written, or holds records of a newer wansweep.
    """
    folder = open_folder(path)
    sweeps, environments = folder.sweeps(), folder.environments()
    local = sweep.cluster.address == "local"
    others = _least(sweeps, sweep)
    elsewhere = min((_words(surroundings.departures(there, environment, local=local)) for there in environments), key=len)
    if (others or elsewhere) and not force:
        raise _refusal(path, [*others, *elsewhere], sweeps[0])
    if others or elsewhere:
        folder.keep(sweep if others else None, environment if elsewhere else None)
    settings = _settings(sweeps[0], sweep)
    machine = surroundings.departures(environments[0], environment, local=local)
    return Resumed(folder=folder, departures=tuple(f"{name}: {there} -> {here}" for name, (there, here) in {**settings, **machine}.items()))


def of_the_sweep(path: Path, sweep: Sweep, *, force: bool) -> RunFolder:
    """The folder at the path, to be read: on any machine, and whoever has its lock.

    Raises:
        ConfigError: It was made for another sweep, and it is not forced.
        StoreError: It is no run folder.
    """
    folder = open_folder(path)
    sweeps = folder.sweeps()
    if (others := _least(sweeps, sweep)) and not force:
        raise _refusal(path, others, sweeps[0])
    return folder


def _refusal(path: Path, lines: Sequence[str], made_for: Sweep) -> ConfigError:
    way_out = f"repeat its own command ({made_for.command}), start anew without resume=, or go on all the same with resume.force=true"
    return ConfigError([f"resume={path}: {line}" for line in (*lines, way_out)])


def _least(sweeps: Sequence[Sweep], here: Sweep) -> list[str]:
    """How a sweep differs from the one of a folder that it is nearest to."""
    return min((_sweep_lines(there, here) for there in sweeps), key=len)


def _sweep_lines(there: Sweep, here: Sweep) -> list[str]:
    """How two sweeps differ, a line each."""
    return [*_case_lines(there, here), *_words(_settings(there, here))]


def _case_lines(there: Sweep, here: Sweep) -> list[str]:
    known, asked = ({case.id: case.label for case in sweep.cases} for sweep in (there, here))
    odd = {id_: label for id_, label in {**asked, **known}.items() if (id_ in asked) != (id_ in known)}
    if not odd:
        return []
    first, label = next(iter(odd.items()))
    side = "only in the sweep asked for" if first in asked else "only in the folder"
    return [f"made for other cases ({len(odd)} differ, {label} is {side})"]


def _settings(there: Sweep, here: Sweep) -> dict[str, tuple[str, str]]:
    """Settings of all cases that figures depend on and that differ: name to both values."""
    pairs: dict[str, tuple[object, object]] = {}
    for field in dataclasses.fields(there.procedure):
        if field.name not in FREE:
            pairs[f"procedure.{field.name}"] = (getattr(there.procedure, field.name), getattr(here.procedure, field.name))
    for name in CLUSTER:
        pairs[f"cluster.{name}"] = (getattr(there.cluster, name), getattr(here.cluster, name))
    for model in sorted({case.model for case in (*there.cases, *here.cases)} & there.models.keys() & here.models.keys()):
        for field in dataclasses.fields(there.models[model]):
            pairs[f"models.{model}.{field.name}"] = (getattr(there.models[model], field.name), getattr(here.models[model], field.name))
    return {name: (str(was), str(is_)) for name, (was, is_) in pairs.items() if was != is_}


def _words(differ: Mapping[str, tuple[str, str]]) -> Sequence[str]:
    return [f"{name} is {there} there, {here} here" for name, (there, here) in differ.items()]
