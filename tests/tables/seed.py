"""The cases of the seed report's excerpt in our columns."""

from __future__ import annotations

import re

import polars as pl

from tests.conftest import DATA
from wansweep.record import StageKind
from wansweep.tables.frames import STAGES_SCHEMA, with_load

ROW = re.compile(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$", re.MULTILINE)
CASES = re.findall(r"## Case: (\S+)\n(.*?)\n---", (DATA / "seed_report.md").read_text(), re.DOTALL)


def kind_of(stage: str) -> StageKind:
    return next(kind for kind in StageKind if stage.endswith(kind))


def seed_stages(text: str) -> tuple[pl.DataFrame, list[int]]:
    """The stages of one seed case in our columns, and the Comp Load that the seed printed for each."""
    found = ROW.findall(text)
    rows = [
        {
            "case_id": "seed",
            "trial": 0,
            "rank": 0,
            "stage": name,
            "kind": str(kind_of(name)),
            "duration_s": float(seconds),
            "peak_allocated_bytes": float(memory) * 2**30,
            "sm_active_pct": float(sm),
        }
        for name, seconds, memory, _, _, sm, _ in found
    ]
    schema = {name: dtype for name, dtype in STAGES_SCHEMA.items() if name in rows[0]}
    frame = pl.DataFrame(rows, schema=schema)
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in STAGES_SCHEMA.items() if name not in schema]
    return with_load(frame.with_columns(missing)), [int(row[-1]) for row in found]
