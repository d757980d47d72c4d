"""The run folder: made once, appended to, read back. Nothing in it is ever overwritten but what is rendered from it.

::

    reports/<sweep>/<UTC stamp>/
        sweep.yaml            the resolved sweep, written before anything runs
        environment.json      versions, machine, command
        plan.json             what was predicted of each case
        records/ID-TRIAL.json one durable file a finished trial
        traces/ID-TRIAL.parquet  what the sampler saw during it
        videos/               the mp4s, when they are kept
        live.json             progress, while the sweep runs only
        frames/ID-TRIAL.jpg   a contact sheet of its video
        drift/ID-TRIAL.npz .json  its latents and some frames (may be deleted), and how far they are from its lossless twin's
        summary.parquet .csv, stages.parquet, report.md report.html, trace.json    rendered from the above after every trial
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from wansweep.errors import StoreError
from wansweep.record import Record, from_json, to_json
from wansweep.sweep import Sweep
from wansweep.telemetry.environment import ENVIRONMENT, Environment

_SWEEP = TypeAdapter(Sweep)
# The C emitter and parser are ten times as fast, and not in every build of PyYAML.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A file in records/ that is no record of ours.

    Attributes:
        name: File name.
        why: What is wrong with it.
    """

    name: str
    why: str


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
    def plan(self) -> Path:
        """What was predicted of each case before it ran."""
        return self.path / "plan.json"

    def predictions(self) -> dict[str, dict[str, Any]]:
        """Rows of the plan by case id; none in a folder that was made without, or where it cannot be read: a report does without them."""
        try:
            return {row["case_id"]: row for row in json.loads(self.plan.read_bytes())}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def sweep(self) -> Sweep:
        """The sweep that the folder was made for.

        Raises:
            StoreError: There is none, or it cannot be read.
        """
        file = self.path / "sweep.yaml"
        try:
            return _SWEEP.validate_python(yaml.load(file.read_text(), Loader=_Loader))
        except FileNotFoundError:
            raise StoreError(f"{self.path}: not a run folder (no sweep.yaml); name one under reports/<sweep>/") from None
        except (OSError, yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
            raise StoreError(f"{file}: cannot be read as a sweep ({_first_line(error)})") from error

    def environment(self) -> Environment:
        """Where the run ran.

        Raises:
            StoreError: It is not there, or cannot be read.
        """
        file = self.path / "environment.json"
        try:
            return ENVIRONMENT.validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise StoreError(f"{file}: cannot be read as an environment ({_first_line(error)})") from error

    def append(self, record: Record) -> None:
        """Add a trial's record; durable when this returns, and never seen half written.

        Raises:
            StoreError: The disk refuses it.
        """
        write_atomic(self.records / f"{record.case_id}-{record.trial}.json", to_json(record))

    def read(self) -> tuple[list[Record], list[Unreadable]]:
        """Every record, oldest first, and the files that are none; a bad file never hides a good one."""
        records: list[Record] = []
        unreadable: list[Unreadable] = []
        for file in sorted(self.records.glob("*.json")):
            try:
                records.append(from_json(file.read_bytes()))
            except (OSError, ValidationError) as error:
                unreadable.append(Unreadable(name=file.name, why=_first_line(error)))
        records.sort(key=lambda record: (record.started_utc, record.label, record.trial))
        return records, unreadable


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
    document = yaml.dump(_SWEEP.dump_python(sweep, mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=160)
    write_atomic(path / "sweep.yaml", document.encode())
    write_atomic(path / "environment.json", ENVIRONMENT.dump_json(environment, indent=1))
    return RunFolder(path=path)


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


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    Raises:
        StoreError: The disk refuses it.
    """
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(scratch).chmod(0o644)
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); what was recorded before is safe") from error


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    return str(error).splitlines()[0]
