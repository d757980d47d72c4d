"""The documents, held against the code they speak of."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import make_case
from tests.makers import make_record
from tests.runs import ROOT
from wansweep.case import declared_fields
from wansweep.composition import sweep_names
from wansweep.config import read_request
from wansweep.metrics import METRIC, STAGE_METRIC, Metric
from wansweep.plan.planner import plan
from wansweep.sweep import Hardware
from wansweep.tables.results import tabulate
from wansweep.telemetry.environment import environment
from wansweep.units import BYTES, BYTES_PER_S, CELSIUS, COUNT, JOULES, SM_SECONDS, TIMES


def first_line(module: Path) -> str:
    return (ast.get_docstring(ast.parse(module.read_text())) or "").splitlines()[0]


def modules() -> list[Path]:
    return sorted(path for path in (ROOT / "wansweep").rglob("*.py") if path.name != "__init__.py")


def test_the_tree_names_every_module_by_the_first_line_of_its_docstring() -> None:
    text = (ROOT / "docs" / "tree.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE)
    assert listed == [(str(path.relative_to(ROOT)), first_line(path)) for path in modules()]


def test_the_readmes_sweep_composes(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "ladder.yaml").write_text(example)
    sweep = read_request(["+sweep=ladder"], config_dir=tmp_path).sweep
    # One named, 4 modes at 2 sizes, less one excluded, and one more.
    assert len(sweep.cases) == 1 + (8 - 1) + 1
    assert sweep.excluded[0].reason == "both experts and the decode do not fit"


def test_the_readme_names_every_sweep_that_ships() -> None:
    told = re.search(r"Sweeps that ship: (.*?)\. Levers", (ROOT / "README.md").read_text(), re.DOTALL)
    assert told
    assert set(re.findall(r"`(\w+)`", told[1])) == set(sweep_names())


def test_every_field_of_a_case_stands_in_the_root_config() -> None:
    base = re.search(r"^base:\n(.*?)^\S", (ROOT / "conf" / "config.yaml").read_text(), re.DOTALL | re.MULTILINE)
    assert base
    assert set(re.findall(r"^  (\w+):", base[1], re.MULTILINE)) == {field.name for field in declared_fields()} - {"name"} | {"preset"}


def documented_columns(heading: str) -> dict[str, str]:
    """The columns that docs/columns.md defines under a heading, with their units."""
    (section,) = re.findall(
        rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", (ROOT / "docs" / "columns.md").read_text(), re.DOTALL | re.MULTILINE
    )
    found = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            names, unit = (cell.strip() for cell in line.split("|")[1:3])
            columns, units = re.findall(r"`(\w+)`", names), unit.split(", ")
            found.update(zip(columns, units if len(units) > 1 else units * len(columns), strict=True))
    return found


STORED = {BYTES: "bytes", JOULES: "J", SM_SECONDS: "SM-% s", CELSIUS: "C", BYTES_PER_S: "bytes/s", TIMES: "times", COUNT: "count"}


@pytest.mark.parametrize(("heading", "metrics"), [("summary.parquet", METRIC), ("stages.parquet", STAGE_METRIC)])
def test_every_column_is_defined_with_the_unit_that_it_is_stored_in(heading: str, metrics: dict[str, Metric]) -> None:
    sweep = read_request(["+sweep=quick"]).sweep
    results = tabulate(sweep, environment(), [make_record(case) for case in sweep.cases], ())
    frame = results.summary if heading.startswith("summary") else results.stages
    told = documented_columns(heading)
    whys = {f"{name}_why" for name in metrics} - told.keys()
    assert told.keys() == set(frame.columns) - whys
    for name, metric in metrics.items():
        assert told[name] == STORED.get(metric.unit, metric.unit.symbol), name


def test_every_key_of_the_plans_json_is_defined() -> None:
    row = plan([make_case(weights="hub")], Hardware(name="cpu", gpus=1))[0].as_row()
    assert documented_columns("plan format=json").keys() == row.keys() - {field.name for field in declared_fields()} - {"preset"}


def test_the_readme_lists_every_page() -> None:
    listed = set(re.findall(r"\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("page", ["README.md", "launch/README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_what_a_page_links_to_is_there(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert link.startswith("https://") or ((ROOT / page).parent / link).exists(), link
