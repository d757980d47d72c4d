"""The documents, held against the code they speak of."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.runs import ROOT
from wansweep.case import declared_fields
from wansweep.config import read_request, sweep_names


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
