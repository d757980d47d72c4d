"""Options of group offload, each read back from diffusers' own groups; one that was declared and is not there is caught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.hooks import group_offloading
from diffusers.hooks.group_offloading import GroupOffloadingConfig, GroupOffloadingType, ModuleGroup

from tests.conftest import make_a14b
from tests.trial.test_generate import loaded
from tests.trial.trials import QUIET, Runs
from wansweep.case import Case
from wansweep.levers import Offload
from wansweep.trial import groups
from wansweep.trial.experts import experts
from wansweep.trial.invalid import Invalid
from wansweep.trial.pipeline import WanPipe

pytestmark = QUIET
CUDA = torch.device("cuda")  # only its name is used here


@pytest.fixture
def _streams_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' own grouping with a stream in name: nothing is pinned or moved."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(ModuleGroup, "offload_", lambda _: None)


def grouped(pipe: WanPipe, case: Case, folder: Path, *, only: str | None = None) -> None:
    """What trial.offload asks diffusers for on a GPU."""
    for name, expert in experts(pipe).items():
        if only not in (None, name):
            continue
        config = GroupOffloadingConfig(
            onload_device=torch.device("cpu"),
            offload_device=torch.device("cpu"),
            offload_type=GroupOffloadingType.LEAF_LEVEL if case.offload is Offload.GROUP_LEAF else GroupOffloadingType.BLOCK_LEVEL,
            non_blocking=case.group_non_blocking,
            record_stream=case.group_record_stream,
            low_cpu_mem_usage=case.group_low_cpu_mem,
            num_blocks_per_group=case.group_blocks,
            offload_to_disk_path=str(folder) if case.group_disk else None,
            stream=object() if case.group_stream else None,
        )
        group_offloading._apply_group_offloading(expert, config)


BLOCK = make_a14b(offload=Offload.GROUP_BLOCK)
NO_STREAM = replace(BLOCK, group_stream=False)
OPTIONS = {
    "group_stream": (NO_STREAM, BLOCK, "True", "False"),
    "group_record_stream": (BLOCK, replace(BLOCK, group_record_stream=True), "True", "False"),
    "group_low_cpu_mem": (BLOCK, replace(BLOCK, group_low_cpu_mem=True), "True", "False"),
    "group_non_blocking": (NO_STREAM, replace(NO_STREAM, group_non_blocking=True), "True", "False"),
    "group_blocks": (NO_STREAM, replace(NO_STREAM, group_blocks=2), "2", "1"),
    "group_disk": (NO_STREAM, replace(NO_STREAM, group_disk=True), "True", "False"),
}


@pytest.mark.usefixtures("_streams_without_a_gpu")
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("mode", [Offload.GROUP_BLOCK, Offload.GROUP_LEAF])
def test_an_option_in_force_is_read_back(option: str, mode: Offload, tmp_path: Path) -> None:
    case = OPTIONS[option][1] if option == "group_blocks" else replace(OPTIONS[option][1], offload=mode)
    pipe = loaded(case)
    grouped(pipe, case, tmp_path)
    groups.check(pipe, case, CUDA)
    assert groups.resolved(pipe)[option] == OPTIONS[option][2]


@pytest.mark.usefixtures("_streams_without_a_gpu")
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_diffusers_was_not_given_is_invalid(option: str, tmp_path: Path) -> None:
    installed, declared, value, found = OPTIONS[option]
    pipe = loaded(declared)
    grouped(pipe, installed, tmp_path)
    with pytest.raises(Invalid, match=f"^declared {option}={value}, resolved {found}$"):
        groups.check(pipe, declared, CUDA)


@pytest.mark.usefixtures("_streams_without_a_gpu")
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_on_one_expert_alone_is_invalid(option: str, tmp_path: Path) -> None:
    installed, declared, value, found = OPTIONS[option]
    pipe = loaded(declared)
    grouped(pipe, declared, tmp_path, only="transformer")
    grouped(pipe, installed, tmp_path, only="transformer_2")
    with pytest.raises(Invalid, match=f"^declared {option}={value}, resolved {' and '.join(sorted((value, found)))}$"):
        groups.check(pipe, declared, CUDA)


@pytest.mark.usefixtures("_streams_without_a_gpu")
def test_diffusers_moves_one_block_at_a_time_with_a_stream_whatever_was_asked(tmp_path: Path) -> None:
    case = replace(BLOCK, group_blocks=2)
    pipe = loaded(case)
    grouped(pipe, case, tmp_path)
    with pytest.raises(Invalid, match="declared group_blocks=2, resolved 1"):
        groups.check(pipe, case, CUDA)


@pytest.mark.usefixtures("_streams_without_a_gpu")
def test_with_a_stream_non_blocking_copies_are_what_diffusers_does_anyway(tmp_path: Path) -> None:
    block_groups = []
    for case in (BLOCK, replace(BLOCK, group_non_blocking=True)):
        pipe = loaded(case)
        grouped(pipe, case, tmp_path)
        block_groups.append([hook.group.non_blocking for hook in _block_hooks(pipe)])
    assert block_groups[0] == block_groups[1]


@pytest.mark.usefixtures("_streams_without_a_gpu")
def test_weights_on_disk_are_kept_nowhere_on_the_host_so_low_cpu_mem_does_nothing(tmp_path: Path) -> None:
    for low_cpu_mem in (False, True):
        case = replace(BLOCK, group_disk=True, group_low_cpu_mem=low_cpu_mem)
        pipe = loaded(case)
        grouped(pipe, case, tmp_path)
        assert [hook.group.cpu_param_dict for hook in _block_hooks(pipe)] == [{}] * 4


def _block_hooks(pipe: WanPipe) -> list[group_offloading.GroupOffloadingHook]:
    return [block._diffusers_hook.get_hook("group_offloading") for expert in experts(pipe).values() for block in expert.blocks]


def test_what_the_groups_are_is_in_the_record(runs: Runs) -> None:
    _, resolved = runs.latents(replace(NO_STREAM, group_blocks=2, group_disk=True))
    told = {"group_blocks": "2", "group_stream": "False", "group_record_stream": "False", "group_non_blocking": "False"}
    assert resolved.group == {**told, "group_low_cpu_mem": "False", "group_disk": "True"}
    assert runs.latents(make_a14b())[1].group == {}
