"""A run folder's rendered files, made again from what it holds: tables, reports, time line."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import polars as pl

from wansweep import twins
from wansweep.drift import measured
from wansweep.errors import SeedError, StoreError
from wansweep.files import content, opened, write_atomic
from wansweep.record import Record
from wansweep.report import markdown
from wansweep.seed import importing
from wansweep.seed.exporting import seed_report
from wansweep.seed.parse import parse
from wansweep.seed.render import render as seed_render
from wansweep.store import RunFolder, created_whole, stamp
from wansweep.tables.curves import curve_frame
from wansweep.tables.evidence import Evidence
from wansweep.tables.results import Results, tabulate
from wansweep.tables.traces import trace_frame
from wansweep.telemetry.trace import read_trace

# A rebuild may take this share of the time since the last one; with thousands of cases it would else be all the driver does.
SHARE = 0.1


def read_results(folder: RunFolder, *, measure: Callable[[str], None] | None = None) -> Results:
    """What the folder says.

    Args:
        folder: Of a run.
        measure: Drift that was not measured is, and kept in the folder; it is told each comparison. Null takes what is there.

    Raises:
        StoreError: It is no run folder.
    """
    sweep, (records, unreadable) = folder.sweep(), folder.read()
    distances = measured.measure(folder, sweep, records, measure) if measure else measured.known(folder, sweep, records)
    return tabulate(sweep, folder.environment(), records, unreadable, folder.predictions(), distances)


def write_tables(folder: RunFolder, results: Results) -> None:
    """Write summary.parquet, summary.csv, stages.parquet, report.md, report.html and trace.json."""
    for name, frame in (("summary", results.summary), ("stages", results.stages)):
        write_parquet(folder.path / f"{name}.parquet", frame)
    write_atomic(folder.path / "summary.csv", results.summary.write_csv().encode())
    from wansweep.report import perfetto

    breakdowns, beside = markdown.sections(results), evidence(folder)
    write_atomic(folder.report, markdown.render(results, breakdowns).encode())
    _write_page(folder, results, beside, breakdowns)
    write_atomic(folder.path / "trace.json", perfetto.render(results.records, beside.curves).encode())


def _write_page(folder: RunFolder, results: Results, beside: Evidence, breakdowns: Mapping[str, str]) -> None:
    """report.html, where what draws it is installed: a GPU machine without it leaves a folder that another machine renders."""
    try:
        from wansweep.report import html  # loads Altair, which re-rendering Markdown has no use for

        page = html.render(results, beside, breakdowns=breakdowns)
    except ModuleNotFoundError as missing:
        way_out = f"render it elsewhere: wansweep report {folder.path} --format html -o report.html"
        warnings.warn(f"no report.html here, {missing.name} is not installed; {way_out}", stacklevel=2)  # once
        return
    write_atomic(folder.path / "report.html", page.encode())


def evidence(folder: RunFolder) -> Evidence:
    """The folder's traces and contact sheets, read when they are asked for; one that cannot be read is one that is not there."""

    def curves(record: Record) -> pl.DataFrame | None:
        try:
            return curve_frame(read_parquet(folder.traces / f"{record.case_id}-{record.trial}.parquet"), record)
        except (OSError, pl.exceptions.PolarsError):
            return None

    def sheets(record: Record) -> bytes | None:
        try:
            return content(folder.frames / f"{record.case_id}-{record.trial}.jpg", follow=False)
        except OSError:
            return None

    return Evidence(curves=curves, sheets=sheets)


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write a frame of the run folder, whole or not at all.

    LZ4 is read in less than half of Zstandard's CPU, for files about 1.4 times as large: these are read often, and small beside videos.
    """
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="lz4")
    write_atomic(path, buffer.getvalue())


def read_parquet(path: Path) -> pl.DataFrame:
    """A frame that may be written again meanwhile.

    Polars opens a path twice, for the footer and for the pages, so that a file replaced in between looks torn; a file that is open stays one.

    Raises:
        OSError: It is not there, or cannot be read.
        polars.exceptions.PolarsError: It is no Parquet.
    """
    with opened(path) as file:
        try:
            return pl.read_parquet(file)
        except pl.exceptions.PanicException as error:  # no Exception to Python, and damage all the same: one in 1,500 damaged files
            raise pl.exceptions.ComputeError(f"{path}: damaged ({error})") from error


def import_report(source: Path, run_dir: Path | None, reports: Path = Path("reports")) -> RunFolder:
    """The run folder that a report in the seed format becomes: whole, or not at all.

    Args:
        source: The report.
        run_dir: Where the folder goes; by default ``reports/<name of the report>/<UTC stamp>``.
        reports: Folder that run folders go into.

    Raises:
        SeedError: It cannot be read, or not be given back byte for byte.
        StoreError: The folder cannot be made.
    """
    text = _read_text(source)
    document = parse(text, path=str(source))
    records = importing.records(document, file=source.name)
    sweep, environment = importing.sweep([record.case for record in records], file=source.name), importing.environment(file=source.name)
    results = tabulate(sweep, environment, records, ())
    if seed_render(seed_report(results)) != text:
        raise SeedError(
            f"{source}: its records would not give it back byte for byte; nothing was written. This is a fault of wansweep: report it"
        )
    target = run_dir or reports / sweep.name / stamp()
    with created_whole(target, sweep, environment) as folder:
        for record in records:
            folder.append(record)
        write_tables(folder, results)
    return RunFolder(path=target)


def _read_text(source: Path) -> str:
    try:
        return source.read_bytes().decode()
    except OSError as error:
        raise SeedError(f"{source}: cannot be read ({error.strerror}); name a Markdown report in the seed format") from error
    except UnicodeDecodeError as error:
        raise SeedError(f"{source}: is no UTF-8 text (byte {error.start}); name a Markdown report in the seed format") from error


class Publisher:
    """Keeps a run folder's rendered files up to date while its sweep runs."""

    def __init__(self, folder: RunFolder, *, departures: tuple[str, ...] = ()) -> None:
        """Read what the folder has; new records get ``departures``.

        Raises:
            StoreError: It is no run folder, or holds records of a newer wansweep.
        """
        self._folder = folder
        self._departures = departures
        with suppress(OSError):  # a folder of an older version is gone on with; without, only pictures are lost
            folder.frames.mkdir(exist_ok=True)
        self._sweep = folder.sweep()
        if twins.kept(self._sweep):
            folder.drift.mkdir(exist_ok=True)
        self._environment = folder.environment()
        records, self._unreadable = folder.read()
        if newer := [told for told in self._unreadable if told.newer]:
            raise StoreError(f"{folder.records / newer[0].name}: {newer[0].why}; its trial may be finished, so that nothing is run here")
        # By file: a trial that is run again takes the place of the accident it was, here as on disk.
        self._records = {(record.case_id, record.trial): record for record in records}
        for record in records:
            with suppress(StoreError):  # samples that a full disk did not take before
                self._store_trace(record)
        self._predictions = folder.predictions()
        self._unkept: list[Record] = []
        self._ended_s = float("-inf")
        self._took_s = 0.0

    def foretold(self) -> None:
        """The folder has predictions now."""
        self._predictions = self._folder.predictions()

    @property
    def records(self) -> list[Record]:
        """Every trial's record, oldest first."""
        return list(self._records.values())

    def add(self, record: Record) -> None:
        """Store a record, and then render the folder again unless that was done too short a while ago.

        Samples come first: a trial with a record is whole, and is not run again. A disk too full for them may still take the record, and one
        too full to render has lost nothing.

        Raises:
            StoreError: The record could not be written.
        """
        record = replace(record, departures=self._departures)
        with suppress(StoreError):
            self._store_trace(record)
        try:
            self._folder.append(record)
        except StoreError:
            self._unkept.append(record)
            raise
        self._records.pop((record.case_id, record.trial), None)
        self._records[record.case_id, record.trial] = record
        if self._took_s <= SHARE * (time.monotonic() - self._ended_s):
            with suppress(StoreError):
                self.render()

    def settle(self) -> None:
        """Write what the disk did not take when it came; there may be room by now.

        Raises:
            StoreError: There is none, or still none; a line for each trial that is lost.
        """
        lost = []
        for record in self._unkept:
            try:
                self._folder.append(record)
            except StoreError as error:
                lost.append(f"{record.label} #{record.trial} ended {record.outcome} and is not kept, and nothing more was started: {error}")
            else:
                self._records[record.case_id, record.trial] = record
        if lost:
            way_out = f"make room and go on: {self._sweep.command} resume={self._folder.path}"
            raise StoreError("\n".join([*lost, f"{way_out} runs what is not kept again"]))
        self._unkept = []

    def _store_trace(self, record: Record) -> None:
        """The trial's samples as Parquet, a tenth of the size of the lines that the sampler wrote."""
        lines = self._folder.traces / f"{record.case_id}-{record.trial}.jsonl"
        if lines.exists():
            write_parquet(lines.with_suffix(".parquet"), trace_frame(read_trace(lines).samples))
            lines.unlink()

    def conclude(self, tell: Callable[[str], None]) -> Results:
        """Measure what drift was not, telling each comparison, and render the folder."""
        measured.measure(self._folder, self._sweep, self.records, tell)
        return self.render()

    def render(self) -> Results:
        """Render the folder now."""
        begin_s = time.monotonic()
        distances = measured.known(self._folder, self._sweep, self.records)
        results = tabulate(self._sweep, self._environment, self.records, self._unreadable, self._predictions, distances)
        write_tables(self._folder, results)
        self._ended_s = time.monotonic()
        self._took_s = self._ended_s - begin_s
        return results
