from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .nvml_stub import NvmlStub, build


@pytest.fixture(scope="session")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: the stub of libnvidia-ml cannot be built")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_stub_library(stub_library: Path) -> Path:
    return build(stub_library / "old", old_driver=True)


@pytest.fixture
def nvml_stub(stub_library: Path, tmp_path: Path) -> Iterator[Callable[..., NvmlStub]]:
    """Makes stubs: `nvml_stub(gpus=2, driver_branch=595)`."""
    made: list[NvmlStub] = []

    def make(library: Path = stub_library, **settings: int) -> NvmlStub:
        made.append(NvmlStub(library, tmp_path / f"stub{len(made)}.state", **settings))
        return made[-1]

    yield make
    for stub in made:
        stub.close()
