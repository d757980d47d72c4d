"""Records, sweeps and environments with anything in them: every verb that reads a folder answers, and no file hides another."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import answered, many, nested, paths, put
from tests.makers import make_record, on_gpu, sampled, with_figures
from wansweep.config import read_request
from wansweep.record import Outcome, Record, to_json
from wansweep.store import RunFolder, create
from wansweep.telemetry.environment import environment

CASES = read_request(["+sweep=quick", "weights=tiny"]).sweep.cases[:3]
VERBS = ("md", "html", "terminal", "seed", "compare", "recommend")


def _records() -> list[Record]:
    ok, oom, crash = (make_record(case, outcome=outcome) for case, outcome in zip(CASES, (Outcome.OK, Outcome.OOM, Outcome.CRASH), strict=True))
    ok = on_gpu(ok, "NVIDIA L40S", total_bytes=46 * 10**9)
    return [Record(**{**_fields(ok), "stages": with_figures(ok.stages, peak_allocated_bytes=1e9, sm_active_pct=sampled(90.0))}), oom, crash]


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


DOCUMENTS: list[dict[str, Any]] = [json.loads(to_json(record)) for record in _records()]
PLACES = [path for path in paths(DOCUMENTS[0]) if path]


def _like(value: object) -> st.SearchStrategy[object]:
    """Values of the same type, so that more than the reader is tried."""
    if isinstance(value, int) and not isinstance(value, bool):
        return st.integers(-3, 10**6) | st.sampled_from([2**63, -(2**70), 10**30])
    return st.floats() if isinstance(value, float) else st.text(max_size=8) if isinstance(value, str) else nested()


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENTS[0])
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=4)):
        there: Any = DOCUMENTS[0]
        for key in path:
            there = there[key]
        put(document, path, draw(_like(there) | nested()))
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return create(tmp_path_factory.mktemp("reports"), read_request(["+sweep=quick", "weights=tiny"]).sweep, environment())


@many(100)
@given(document=damaged(), verb=st.sampled_from(VERBS))
def test_a_record_with_anything_in_it_is_told_of_or_shown(folder: RunFolder, document: dict[str, Any], verb: str) -> None:
    for original, written in zip(DOCUMENTS, [document, *DOCUMENTS[1:]], strict=True):
        (folder.records / f"{original['case_id']}-0.json").write_text(json.dumps(written))
    path = str(folder.path)
    arguments = {"compare": ["compare", path, path], "recommend": ["recommend", path]}.get(verb, ["report", path, "--format", verb])
    code, out, err = answered(*arguments)
    assert code in (0, 2, 3, 4)
    assert out or err
    if verb == "md":
        assert out.count("## Case: ") == 9


@many(60)
@given(
    text=st.one_of(st.binary(max_size=60), nested().map(lambda value: repr(value).encode("utf-8", "replace"))),
    name=st.sampled_from(["sweep.yaml", "environment.json"]),
)
def test_a_folder_with_a_garbled_file_is_one_line_and_exit_code_2(tmp_path_factory: pytest.TempPathFactory, text: bytes, name: str) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "garbled"
    if not path.exists():
        create(tmp_path_factory.getbasetemp(), read_request(["+sweep=quick"]).sweep, environment()).path.rename(path)
    kept = (path / name).read_bytes()
    (path / name).write_bytes(text)
    try:
        code, out, err = answered("report", str(path))
    finally:
        (path / name).write_bytes(kept)
    assert (code, out) == (2, "")
    assert err.startswith("wansweep: ")
