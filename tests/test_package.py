"""What a user installs: a wheel that carries its configs and works outside the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.runs import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as pip would lay it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=120, capture_output=True)
    (wheel,) = folder.glob("wansweep-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_carries_every_config(site: Path) -> None:
    shipped = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert {path.relative_to(site / "wansweep" / "conf") for path in (site / "wansweep" / "conf").rglob("*.yaml")} == shipped


def test_the_wheel_carries_its_types_and_the_pages_style_and_scripts(site: Path) -> None:
    ours = {path.name for path in (ROOT / "wansweep" / "report" / "page").iterdir()}
    assert (site / "wansweep" / "py.typed").exists()  # a type checker reads our types
    assert {"page.css", "table.js"} <= {path.name for path in (site / "wansweep" / "report" / "page").iterdir()} == ours


def test_the_wheel_carries_the_tested_set_for_the_doctor(site: Path) -> None:
    assert (site / "wansweep" / "constraints.txt").read_text() == (ROOT / "constraints.txt").read_text()
    where = [sys.executable, "-c", "from wansweep.doctor.software import constraints; print(constraints())"]
    found = subprocess.run(
        where, cwd=site, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=240, check=True
    )
    assert found.stdout.strip() == str(site / "wansweep" / "constraints.txt")


def test_the_wheel_plans_outside_the_checkout_with_its_own_configs(site: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = [sys.executable, "-m", "wansweep", "plan", "+sweep=quick"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "quick: 9 cases" in done.stdout
    where = [sys.executable, "-c", "from wansweep.shipped import conf_dir; print(conf_dir())"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=True).stdout.strip()
    assert found == str(site / "wansweep" / "conf")
    assert list(tmp_path.iterdir()) == []  # Hydra leaves nothing behind


def test_the_constraints_pin_every_dependency_and_name_no_index() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pins = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in text.splitlines() if "==" in line}
    declared = re.findall(r'^    "([A-Za-z0-9_.-]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    dependencies = {re.sub(r"[-_.]+", "-", name).lower() for name in declared} & {
        "torch", "diffusers", "transformers", "accelerate", "safetensors", "ftfy", "imageio", "ray", "polars", "hydra-core", "pydantic",
        "nvidia-ml-py", "psutil", "rich", "pyyaml", "pytest", "hypothesis", "ruff", "mypy", "import-linter", "hatchling",
        "altair", "vl-convert-python", "selenium",
    }  # fmt: skip
    assert len(dependencies) >= 20
    assert dependencies <= pins
    assert "torch==2.13.0" in text
    assert not re.search(r"https?://|--index|--find-links|\+cpu", text)
