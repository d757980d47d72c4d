"""Shared by the suite: an offline, private environment, and makers of cases and records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports a library that reads them. A cache of the suite's own shows that miniatures are built on first use.
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
# A miniature's products are over before a second thread is awake, and threads that wait for each other spin on cores that other tests need.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from wansweep.case import Case, Model, Task

# How long an example takes says nothing on a machine that runs others beside it.
settings.register_profile("suite", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how often test_kills kills a driver, of a sweep of 10 cases more; 20 for the record")


# The files that take half a minute and more, longest first: begun first, so that all workers end at about the same time.
LONG = (
    "schedule/test_runs.py",
    "schedule/test_documented.py",
    "schedule/test_kills.py",
    "launch/test_scripts.py",
    "schedule/test_sweeps.py",
    "schedule/test_gang.py",
    "trial/test_parallel.py",
    "fuzz/test_config.py",
    "schedule/test_nodes.py",
    "trial/test_rules.py",
    "schedule/test_export.py",
    "report/test_html_in_browser.py",
    "telemetry/test_run_on_stub.py",
    "launch/test_monitoring.py",
    "doctor/test_examine.py",
    "trial/test_quantise.py",
    "trial/test_levers.py",
    "schedule/test_load.py",
    "drift/test_measured.py",
    "schedule/test_disk.py",
    "test_cli.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turn = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: turn.get(item.path, len(turn)))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(autouse=True)
def _gpu_tests_are_skipped_without_one(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


DATA = Path(__file__).parent / "data"

BASE = {
    "model": Model.TI2V_5B,
    "task": Task.T2V,
    "width": 1280,
    "height": 704,
    "frames": 121,
    "steps": 4,
    "shift": 5.0,
    "guidance": 5.0,
    "guidance_2": None,
    "weights": "tiny",
    "prompt": "a cat",
    "negative_prompt": "blurred",
}


def make_case(**fields: object) -> Case:
    """A TI2V-5B case at its official size, with other fields as given."""
    return Case(**{"label": "case", **BASE, **fields})  # type: ignore[arg-type]


def make_a14b(**fields: object) -> Case:
    """A T2V-A14B case at its official size, with other fields as given."""
    a14b = {"model": Model.T2V_A14B, "height": 720, "frames": 81, "shift": 12.0, "guidance": 4.0, "guidance_2": 3.0}
    return make_case(**{**a14b, **fields})
