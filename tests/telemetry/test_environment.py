from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import wansweep
from wansweep.telemetry.environment import ENVIRONMENT, PACKAGES, environment, git_state, public_command

from .nvml_stub import NvmlStub

ROOT = Path(wansweep.__file__).parent.parent


def test_the_fingerprint_travels_as_json_and_comes_back_equal() -> None:
    one = environment()
    assert ENVIRONMENT.validate_json(ENVIRONMENT.dump_json(one)) == one
    assert one.packages.keys() == {"wansweep", *PACKAGES}
    assert one.packages["torch"]
    assert one.limits.memory_bytes > 2**30
    assert one.cpu


def test_the_fingerprint_names_no_host_and_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere/jane")
    monkeypatch.setattr(sys, "argv", ["/somewhere/jane/bin/wansweep", "weights=/somewhere/jane/wan", "/home/joe/x"])
    text = ENVIRONMENT.dump_json(environment()).decode()
    assert "jane" not in text
    assert "joe" not in text
    if len(platform.node()) > 4:
        assert platform.node() not in text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["/x/bin/wansweep", "+sweep=quick"], ("wansweep", "+sweep=quick")),
        (["/x/wansweep/__main__.py", "plan"], ("python -m wansweep", "plan")),
        (["w", "--token", "abc", "--fast"], ("w", "--token", "***", "--fast")),
        (["w", "hub.token=abc", "HF_API_KEY=1"], ("w", "hub.token=***", "HF_API_KEY=***")),
        (["w", "x=hf_abcdefghijklmnop"], ("w", "x=***")),
        (["w", "https://user:pw@example.org/m"], ("w", "https://***@example.org/m")),
        (["w", "a=/root/m", "/Users/ann/b", "/home/ann"], ("w", "a=~/m", "~/b", "~")),
        (["w", "/rooted/m", "prompt=a cat"], ("w", "/rooted/m", "prompt=a cat")),
        ([], ()),
    ],
)
def test_a_command_is_published_without_secrets_and_home_folders(given: list[str], shown: tuple[str, ...]) -> None:
    assert public_command(given) == shown


def test_a_checkout_is_dirty_when_a_tracked_file_differs(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    assert git_state(tmp_path) is None
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    clean = git_state(tmp_path)
    assert clean is not None
    assert (clean.commit, clean.dirty) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("2")
    dirty = git_state(tmp_path)
    assert dirty is not None
    assert dirty.dirty


def test_outside_a_checkout_there_is_no_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None


def test_each_gpu_stands_in_the_fingerprint_with_what_it_says_of_itself(nvml_stub: Callable[..., NvmlStub]) -> None:
    stub = nvml_stub(gpus=3, driver_branch=595)
    stub.set(1, gpm=0, fault_memory=4)
    stub.set(2, fault=15)
    script = "from wansweep.telemetry.environment import *; print(ENVIRONMENT.dump_json(environment()).decode())"
    done = subprocess.run([sys.executable, "-c", script], env={**stub.env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["driver"] == {"version": "595.65.06", "cuda": "13.0"}
    first, second = said["gpus"]  # the third is lost
    assert first == {
        "uuid": stub.uuid(0),
        "name": "NVIDIA Stub",
        "memory_bytes": 141_000_000_000,
        "compute_capability": "9.0",
        "ecc": True,
        "mig": False,
        "persistence": True,
        "power_limit_w": 700.0,
        "pcie_gen": 5,
        "pcie_width": 8,
        "pcie_gen_max": 5,
        "pcie_width_max": 16,
        "sm_clock_max_mhz": 1980,
        "mem_clock_max_mhz": 3201,
        "gpm": True,
    }
    assert (second["memory_bytes"], second["gpm"]) == (None, False)
