"""What `import wansweep` gives."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import wansweep
from tests.makers import make_record
from tests.runs import ROOT
from wansweep.errors import CaseError, ConfigError, StoreError
from wansweep.levers import Offload
from wansweep.record import Outcome
from wansweep.store import create
from wansweep.telemetry.environment import environment


def test_importing_it_is_light() -> None:
    probe = "import sys, json, wansweep; print(json.dumps(sorted(m for m in sys.modules if not m.startswith(('_', 'wansweep')))))"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=240, check=True)
    assert not {"torch", "ray", "diffusers", "transformers", "polars", "hydra", "pydantic", "rich"} & set(json.loads(done.stdout))


def test_it_has_what_it_says_and_nothing_by_accident() -> None:
    assert all(callable(getattr(wansweep, name)) for name in ("load", "expand", "run_case"))
    with pytest.raises(AttributeError, match="no attribute 'lode'; it has: .*load"):
        wansweep.lode  # noqa: B018


def test_a_sweep_is_expanded_as_on_the_command_line() -> None:
    sweep = wansweep.expand("quick", "base.steps=3", "sweep.only=[ti2v_5b]")
    assert [(case.label, case.steps) for case in sweep.cases] == [("ti2v_5b", 3)]
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        wansweep.expand("quick", "base.stpes=3")


def test_a_sweep_of_ones_own_is_found_in_its_folder() -> None:
    assert len(wansweep.expand("four", config_dir=ROOT / "tests" / "conf").cases) == 4


def test_a_run_folder_is_loaded_as_frames(tmp_path: Path) -> None:
    sweep = wansweep.expand("quick", "sweep.only=[ti2v_5b,t2v_a14b]")
    folder = create(tmp_path, sweep, environment())
    folder.append(make_record(sweep.cases[0]))
    run = wansweep.load(str(folder.path))
    assert run.summary["label"].to_list() == ["ti2v_5b", "t2v_a14b"]
    assert run.summary["outcome"].to_list() == ["ok", None]
    assert set(run.stages["label"]) == {"ti2v_5b"}
    with pytest.raises(StoreError, match="no such folder"):
        wansweep.load(tmp_path / "nowhere")


def test_a_gang_does_not_run_in_one_process() -> None:
    sweep = wansweep.expand("quick", "sweep.only=[t2v_a14b_2gpus]")
    with pytest.raises(CaseError, match="gpus=2: one process is one rank"):
        wansweep.run_case(sweep.cases[0], sweep)


def test_a_case_that_cannot_run_here_is_a_record_like_any_other() -> None:
    sweep = wansweep.expand("quick", "sweep.only=[ti2v_5b]")
    record = wansweep.run_case(replace(sweep.cases[0], offload=Offload.SEQUENTIAL), sweep)
    assert record.outcome in (Outcome.INVALID, Outcome.OK)
    assert record.reason or record.resolved


def test_the_example_runs() -> None:
    """As a script, whole: docs/examples/notebook.py."""
    done = subprocess.run([sys.executable, "docs/examples/notebook.py"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "('ti2v_5b', 'ok'" in done.stdout
    assert "('ti2v_5b at 4 steps', 'ok'" in done.stdout
    assert "step_s" in done.stdout
