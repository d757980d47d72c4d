"""Fixtures of trials in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from tests.trial.trials import Runs
from wansweep.trial import runner


@pytest.fixture(autouse=True)
def _one_thread_and_the_default_backend() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


@pytest.fixture(scope="module")
def module_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("levers"))


@pytest.fixture
def runs(module_runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Runs:
    plain = runner.generate

    def kept(*args: object, **kwargs: object) -> object:
        latents, video = plain(*args, **kwargs)
        module_runs.keep(latents)
        return latents, video

    monkeypatch.setattr(runner, "generate", kept)
    return module_runs
