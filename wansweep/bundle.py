"""Run folders as a data set to publish: Parquet tables, the records' JSON schema and a card, as the Hugging Face Hub and DuckDB read them.

What may not be published is left out or hidden: log tails, host names, home folders and other paths, tokens.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

import wansweep
from wansweep.errors import StoreError
from wansweep.files import write_atomic
from wansweep.merging import Runs, environment_id, side_by_side
from wansweep.privacy import public
from wansweep.record import RECORD, Record, to_json
from wansweep.report.cells import cell, table
from wansweep.telemetry.environment import ENVIRONMENT

# Two folders at least: units like TFLOP/s, and a lone /name, are no paths.
_PATH = re.compile(r"(?<![\w.:/~-])(?:~|file:/|)(?:/[\w.+@=-]+)+/([\w.+@=-]*)")
TABLES = {
    "summary": "one row a case of a run; figures are medians over its trials",
    "stages": "one row a stage of a rank of a trial",
    "records": "one row a trial; column record is the whole record as JSON, record.schema.json its schema",
    "environments": "one row a run: where and with which versions it ran, and what was asked",
}


def export(paths: Sequence[Path], target: Path) -> Path:
    """The folder of the data set.

    Raises:
        StoreError: A run cannot be read, or something is at the target already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"{target}: is there already; name a folder that is not, or an empty one")
    runs = side_by_side(paths)
    frames = {"summary": runs.summary, "stages": runs.stages, "records": _records(runs), "environments": _environments(runs)}
    try:
        (target / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{target}: cannot be made ({error.strerror}); choose another folder with -o") from error
    for name, frame in frames.items():
        buffer = io.BytesIO()
        _public(frame).write_parquet(buffer)
        write_atomic(target / "data" / f"{name}.parquet", buffer.getvalue())
    write_atomic(target / "record.schema.json", json.dumps(RECORD.json_schema(), indent=1).encode())
    write_atomic(target / "README.md", published(_card(runs, frames)).encode())
    return target


def published(text: str) -> str:
    """The text without home folders, tokens and paths: of a path its last part is left."""
    return _PATH.sub(r"\1", public(text))


def _public(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with every text as it may be published; each is looked at once, of however many rows."""
    for name, dtype in frame.schema.items():
        if dtype == pl.String:
            told = {text: published(text) for text in frame[name].drop_nulls().unique()}
            changed = {text: shown for text, shown in told.items() if shown != text}
            frame = frame.with_columns(pl.col(name).replace(changed)) if changed else frame
    return frame


def _records(runs: Runs) -> pl.DataFrame:
    rows = [
        {
            "run": name,
            "environment_id": environment_id(results),
            "case_id": record.case_id,
            "label": record.label,
            "trial": record.trial,
            "outcome": str(record.outcome),
            "reason": record.reason,
            "started_utc": record.started_utc,
            "wall_s": record.wall_s,
            "record": to_json(_anonymous(record)).decode(),
        }
        for name, results in runs.runs.items()
        for record in results.records
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _anonymous(record: Record) -> Record:
    """Without what its ranks printed, and with hosts told apart but not named."""
    return replace(record, log_tail=(), node=_nameless(record.node), nodes=tuple(map(_nameless, record.nodes)))


def _nameless(host: str) -> str:
    return f"host-{hashlib.sha256(host.encode()).hexdigest()[:8]}" if host else ""


def _environments(runs: Runs) -> pl.DataFrame:
    rows = [
        {
            "run": name,
            "environment_id": environment_id(results),
            "sweep": results.sweep.name,
            "command": results.sweep.command,
            "gpus": ", ".join(gpu.name or "unnamed" for gpu in results.environment.gpus),
            "environment": ENVIRONMENT.dump_json(results.environment).decode(),
        }
        for name, results in runs.runs.items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _card(runs: Runs, frames: dict[str, pl.DataFrame]) -> str:
    return "\n".join([*_front_matter(), *_body(runs, frames)]) + "\n"


def _front_matter() -> Iterator[str]:
    yield from ("---", "pretty_name: Wan2.2 benchmark runs", "tags:", "- benchmark", "- wan2.2", "- wansweep", "configs:")
    for name in TABLES:
        yield from (f"- config_name: {name}", f"  data_files: data/{name}.parquet", *(["  default: true"] if name == "summary" else []))
    yield "---"


def _body(runs: Runs, frames: dict[str, pl.DataFrame]) -> Iterator[str]:
    yield from (
        "",
        "# Wan2.2 benchmark runs",
        "",
        f"Measured by wansweep {wansweep.__version__}. Seconds, bytes, J and percent; a null was not",
    )
    yield from ("measured. Rows of different `environment_id` were measured on other devices or versions: no figure is folded over them.", "")
    yield table(("Table", "Rows", "What"), [(name, str(frames[name].height), told) for name, told in TABLES.items()], numeric_from=3)
    rows = [(cell(name), environment_id(one), one.sweep.name, _machine(one.environment.cpu, frames, name)) for name, one in runs.runs.items()]
    yield from ("", table(("Run", "Environment", "Sweep", "GPUs, or CPU"), rows, numeric_from=4), "")
    yield '```python\nfrom datasets import load_dataset\n\nsummary = load_dataset("PATH_OR_REPO", "summary", split="train")\n```\n'
    yield "```sql\nSELECT label, total_s FROM 'data/summary.parquet' WHERE outcome = 'ok' ORDER BY total_s;\n```"


def _machine(cpu: str, frames: dict[str, pl.DataFrame], run: str) -> str:
    return str(frames["environments"].filter(pl.col("run") == run)["gpus"][0]) or cpu
