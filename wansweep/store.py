"""The run folder: made once, appended to, read back. Nothing in it is ever overwritten but what is rendered from it.

::

    reports/<sweep>/<UTC stamp>/
        sweep.yaml            the resolved sweep, written before anything runs
        environment.json      versions, machine, command
        plan.json             what was predicted of each case
        resumed/001-*         sweep and environment of a forced resume, where they differ from these
        records/ID-TRIAL.json one durable file a finished trial
        traces/ID-TRIAL.parquet  what the sampler saw during it
        videos/               the mp4s, when they are kept
        live.json             progress, while the sweep runs only
        .lock                 who writes here, while one does (lock.py)
        frames/ID-TRIAL.jpg   a contact sheet of its video
        drift/ID-TRIAL.npz .json  its latents and some frames (may be deleted), and how far they are from its lossless twin's
        summary.parquet .csv, stages.parquet, report.md report.html, trace.json    rendered from the above after every trial
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from wansweep.errors import NewerSchemaError, StoreError
from wansweep.files import PART, content, write_atomic
from wansweep.record import Record, from_json, to_json
from wansweep.sweep import Sweep, joined
from wansweep.sweep_file import read_sweep, written_sweep
from wansweep.telemetry.environment import ENVIRONMENT, Environment

_BY_HAND = "put its old content back, or start anew without resume=; the records beside it are as they were"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A file in records/ that is no record of ours.

    Attributes:
        name: File name.
        why: What is wrong with it, and the way out.
        newer: A newer wansweep wrote it: it may be the record of a finished trial.
    """

    name: str
    why: str
    newer: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """One run on disk.

    Attributes:
        path: reports/<sweep>/<UTC stamp>.
    """

    path: Path

    @property
    def traces(self) -> Path:
        """Where samples are kept."""
        return self.path / "traces"

    @property
    def frames(self) -> Path:
        """Where contact sheets are kept."""
        return self.path / "frames"

    @property
    def drift(self) -> Path:
        """What trials kept of their videos, and how far these are from their lossless twins'; there where a run has any to compare."""
        return self.path / "drift"

    @property
    def report(self) -> Path:
        """The rendered report."""
        return self.path / "report.md"

    @property
    def live(self) -> Path:
        """Where a running sweep posts its progress; there while it runs only."""
        return self.path / "live.json"

    @property
    def records(self) -> Path:
        """Where records are."""
        return self.path / "records"

    @property
    def resumed(self) -> Path:
        """Sweeps and environments of forced resumes."""
        return self.path / "resumed"

    @property
    def plan(self) -> Path:
        """What was predicted of each case before it ran."""
        return self.path / "plan.json"

    def predictions(self) -> dict[str, dict[str, Any]]:
        """Rows of the plan by case id; none in a folder that was made without, or that cannot be read: a report does without them."""
        try:
            return {row["case_id"]: row for row in json.loads(content(self.plan)) if _is_prediction(row)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def sweep(self) -> Sweep:
        """The sweep that the folder was made for, with what forced resumes added to it.

        Raises:
            StoreError: There is none, or it cannot be read.
        """
        return functools.reduce(joined, self.sweeps())

    def sweeps(self) -> list[Sweep]:
        """The sweep that the folder was made for, and those of forced resumes, oldest first.

        Raises:
            StoreError: One is not there, or cannot be read.
        """
        return [self._sweep(file) for file in (self.path / "sweep.yaml", *sorted(self.resumed.glob("*-sweep.yaml")))]

    def _sweep(self, file: Path) -> Sweep:
        try:
            return read_sweep(content(file).decode())
        except FileNotFoundError:
            raise StoreError(f"{self.path}: not a run folder (no sweep.yaml); name one under reports/<sweep>/") from None
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise StoreError(f"{file}: cannot be read as a sweep ({_first_line(error)}); {_BY_HAND}") from error

    def environment(self) -> Environment:
        """Where the run ran first.

        Raises:
            StoreError: It is not there, or cannot be read.
        """
        return self._environment(self.path / "environment.json")

    def environments(self) -> list[Environment]:
        """Where the run ran first, and where forced resumes did, oldest first.

        Raises:
            StoreError: One is not there, or cannot be read.
        """
        return [self.environment(), *map(self._environment, sorted(self.resumed.glob("*-environment.json")))]

    def keep(self, sweep: Sweep | None, environment: Environment | None) -> None:
        """Add what a forced resume goes on with; what the folder was made with stays as it is.

        Raises:
            StoreError: The disk refuses it.
        """
        try:
            self.resumed.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.resumed}: cannot be made ({error.strerror})") from error
        number = 1 + max((int(file.name[:3]) for file in self.resumed.glob("[0-9][0-9][0-9]-*")), default=0)
        if environment is not None:
            write_atomic(self.resumed / f"{number:03d}-environment.json", ENVIRONMENT.dump_json(environment, indent=1))
        if sweep is not None:
            write_atomic(self.resumed / f"{number:03d}-sweep.yaml", written_sweep(sweep))

    def _environment(self, file: Path) -> Environment:
        try:
            return ENVIRONMENT.validate_json(content(file))
        except (OSError, ValidationError) as error:
            raise StoreError(f"{file}: cannot be read as an environment ({_first_line(error)}); {_BY_HAND}") from error

    def append(self, record: Record) -> None:
        """Add a trial's record; durable when this returns, and never seen half written.

        It takes the place of the same trial's accident. A file there that is no record is set aside.

        Raises:
            StoreError: The disk refuses it, or a newer wansweep's record is in its place.
        """
        file = self.records / f"{record.case_id}-{record.trial}.json"
        if file.exists() and isinstance(there := _read(file), Unreadable):
            if there.newer:
                raise StoreError(f"{file}: {there.why}; it is left as it is")
            _set_aside(file)
        write_atomic(file, to_json(record))

    def read(self) -> tuple[list[Record], list[Unreadable]]:
        """Every record, oldest first, and the files that are none; a bad file never hides a good one."""
        records: list[Record] = []
        unreadable: list[Unreadable] = []
        for file in sorted(self.records.glob("*.json")):
            found = _read(file)
            if isinstance(found, Unreadable):
                unreadable.append(found)
            else:
                records.append(found)
        records.sort(key=lambda record: (record.started_utc, record.label, record.trial))
        return records, unreadable

    def tidy(self) -> None:
        """Take away what a killed process had begun to write; only for the one that has the lock."""
        for folder in (self.path, self.records, self.traces, self.frames):
            for part in folder.glob(f".*{PART}"):
                with suppress(OSError):
                    part.unlink()


def _is_prediction(row: Mapping[str, object]) -> bool:
    """Whether every figure of a plan's row is a number that tables can hold, or null."""
    figures = [value for name, value in row.items() if name.startswith("predicted_") and not name.endswith("_stage")]
    return all(figure is None or (type(figure) in (int, float) and abs(figure) < 2**63) for figure in figures)  # type: ignore[arg-type]


def _read(file: Path) -> Record | Unreadable:
    try:
        record = from_json(content(file))
    except NewerSchemaError as error:
        return Unreadable(name=file.name, why=str(error), newer=True)
    except ValidationError as error:
        way_out = "resume=RUN_DIR runs its trial again, and keeps this file as *.unreadable"
        return Unreadable(name=file.name, why=f"no record, or one cut short ({_first_line(error)}); {way_out}")
    except OSError as error:
        return Unreadable(name=file.name, why=f"cannot be read ({error.strerror})")
    if file.stem != f"{record.case_id}-{record.trial}":
        return Unreadable(
            name=file.name, why=f"the record of {record.case_id}-{record.trial} under another name; rename it, or take the copy away"
        )
    return record


def _set_aside(file: Path) -> None:
    """Keep a file that is no record under a name that no record has.

    Raises:
        StoreError: The disk refuses it.
    """
    try:
        kept = next(name for i in range(1000) if not (name := file.with_name(f"{file.name}.unreadable{f'-{i}' if i else ''}")).exists())
        file.replace(kept)
    except OSError as error:
        raise StoreError(f"{file}: is no record, and cannot be set aside ({error.strerror}); move it away") from error


def create(reports: Path, sweep: Sweep, environment: Environment) -> RunFolder:
    """A new run folder with the sweep and its environment in it.

    Raises:
        StoreError: It cannot be made.
    """
    name, parent = stamp(), reports / sweep.name
    try:
        for attempt in range(100):
            path = parent / (f"{name}-{attempt}" if attempt else name)
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                continue
        (path / "records").mkdir()
        (path / "traces").mkdir()
        (path / "frames").mkdir()
        if sweep.procedure.keep_video:
            (path / "videos").mkdir()
    except OSError as error:
        raise StoreError(f"reports={reports}: cannot make a run folder there ({error.strerror}); choose another with reports=FOLDER") from error
    folder = RunFolder(path=path)
    try:
        write_atomic(path / "sweep.yaml", written_sweep(sweep))
        write_atomic(path / "environment.json", ENVIRONMENT.dump_json(environment, indent=1))
    except StoreError:
        shutil.rmtree(path, ignore_errors=True)  # nothing has run, and what is half made cannot be gone on with
        raise
    return folder


@contextmanager
def created_whole(path: Path, sweep: Sweep, environment: Environment) -> Iterator[RunFolder]:
    """A run folder to be filled, which is at ``path`` when the block ends well and leaves nothing when it does not.

    Raises:
        StoreError: Something is at the path already, or it cannot be made.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{path}: is there already; name a folder that is not, or an empty one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            folder = create(Path(scratch), sweep, environment)
            yield folder
            folder.path.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be made ({error.strerror}); choose another folder with -o") from error


def stamp() -> str:
    """A run folder's name: the time now, UTC."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def open_folder(path: Path) -> RunFolder:
    """An existing run folder: the one at the path, or the newest of those in it (``reports/quick``).

    Raises:
        StoreError: There is none at the path.
    """
    if not path.is_dir():
        raise StoreError(f"{path}: no such folder; name a run folder under reports/<sweep>/")
    if not (path / "sweep.yaml").exists() and (runs := sorted(path.glob("*/sweep.yaml"))):
        path = runs[-1].parent
    folder = RunFolder(path=path)
    folder.sweep()
    return folder


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0]
