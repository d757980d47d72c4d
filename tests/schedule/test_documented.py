"""Every command of the documents, typed by this suite in the order in which a reader meets them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.documented import PAGES, blocks, commands
from tests.makers import make_record, make_stages, on_gpu, with_figures
from tests.runs import ROOT
from wansweep.config import read_request
from wansweep.record import StageKind
from wansweep.store import create
from wansweep.telemetry.environment import environment

# What this machine has not, or what is run by another test of the suite.
ELSEWHERE = {
    "make ": "runs this suite",
    "launch/monitoring/": "tests/launch/test_monitoring.py",
    "ray start ": "tests/schedule/test_nodes.py starts raylets",
    "wansweep doctor": "tests/doctor/test_examine.py",
}  # fmt: skip
# compare says by its exit code what it found.
ANSWERS = {"wansweep compare": (0, 3, 4)}
STEP_S = {"none": 34.0, "model": 34.1, "group_leaf": 34.2, "group_block": 34.4}


def ready(page: str, folder: Path) -> None:
    """What a page takes for granted: its own YAML files, the runs that it names, and wansweep on the PATH."""
    for text in blocks(page, "yaml"):
        named = next((line.split(":")[0].removeprefix("# ") for line in text.splitlines() if line.startswith("# my/")), None)
        if named:
            (folder / named).parent.mkdir(parents=True, exist_ok=True)
            (folder / named).write_text(text)
    for name in ("reports/offload", "base", "head"):
        measured_run(folder / name)
    (folder / "bin").mkdir()
    for name, what in {"wansweep": f"{sys.executable} -m tests.documented", "python": sys.executable}.items():
        program = folder / "bin" / name
        program.write_text(f'#!/usr/bin/env bash\nexec {what} "$@"\n')
        program.chmod(0o755)


def measured_run(place: Path) -> None:
    """A run of the offload ladder on an H100, with figures of our making."""
    sweep = read_request(["+sweep=offload", "model=t2v_a14b"]).sweep
    cases = tuple(case for case in sweep.cases if case.label.split("-")[-1] in STEP_S)
    folder = create(place.parent, replace(sweep, name=place.name, cases=cases), environment())
    for case in cases:
        stages = with_figures(make_stages(case, step_s=STEP_S[case.offload]), StageKind.STEP_INFERENCE, peak_reserved_bytes=30 * 2**30)
        folder.append(on_gpu(make_record(case, stages=stages), "NVIDIA H100 80GB HBM3"))
    # Newer than what a command of the page makes here, which a reader would make on that card.
    folder.path.rename(place / "20990101T000000Z")


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders of the sweeps that were typed so far."""
    return tmp_path_factory.mktemp("typed")


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_does_what_it_says(page: str, ray_address: str, tmp_path: Path, typed: Path) -> None:
    ready(page, tmp_path)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    root, cluster = ROOT, ray_address
    if changes := blocks(page, "diff"):
        # The suite's Ray has this tree's modules, not the changed ones.
        root, cluster = tmp_path / "tree", "local"
        for name in ("wansweep", "conf", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
        shutil.copy(ROOT / "pyproject.toml", root)
        for change in changes:
            patched(root, change)
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(root), "WANSWEEP_TEST_RAY": cluster, "WANSWEEP_TEST_TYPED": str(typed)}
    for command in commands(page):
        if any(command.startswith(prefix) for prefix in ELSEWHERE):
            continue
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        allowed = next((codes for prefix, codes in ANSWERS.items() if command.startswith(prefix)), (0,))
        assert done.returncode in allowed, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_what_is_run_elsewhere_is_in_some_page() -> None:
    every = [command for page in PAGES for command in commands(page)]
    assert [prefix for prefix in ELSEWHERE if not any(command.startswith(prefix) for command in every)] == []


def patched(root: Path, change: str) -> None:
    """Lay a change over a tree: of each hunk, the lines that stay or go must stand there just once."""
    file, before, after = root, "", ""

    def lay() -> None:
        if before:
            text = file.read_text()
            assert text.count(before) == 1, f"{file}: {before}"
            file.write_text(text.replace(before, after))

    for line in change.splitlines():
        if line.startswith(("--- ", "+++ ", "@@")):
            lay()
            before = after = ""
            if line.startswith("+++ b/"):
                file = root / line.removeprefix("+++ b/")
        else:
            before += "" if line.startswith("+") else f"{line[1:]}\n"
            after += "" if line.startswith("-") else f"{line[1:]}\n"
    lay()
