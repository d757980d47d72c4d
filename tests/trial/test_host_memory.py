"""Host memory is asked for before it is taken: what pinning and loading need, and what a host that is too small is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.conftest import make_a14b, make_case
from tests.trial.test_generate import loaded, source
from tests.trial.trials import QUIET
from wansweep.case import Model, Task
from wansweep.levers import Offload, TextEncoder
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.trial import host_memory, networks, options, pipeline
from wansweep.trial.host_memory import hold_loaded, hold_pinned, pinned_components, pinned_peak_bytes, tensors
from wansweep.trial.invalid import Invalid
from wansweep.trial.spans import Spans

pytestmark = QUIET
CUDA, CPU = torch.device("cuda"), torch.device("cpu")  # nothing is moved to the first


def test_each_pinned_tensor_is_rounded_up_to_a_power_of_two() -> None:
    assert pinned_peak_bytes([[1, 2, 3, 1000, 1024, 0]], lets_go=False) == 1 + 2 + 4 + 1024 + 1024
    # A linear layer of an A14B expert's feed-forward, bf16: 135 MiB take 256.
    assert pinned_peak_bytes([[5120 * 13824 * 2]], lets_go=False) == 256 << 20


def test_plain_copies_that_are_let_go_make_room_for_the_next_component() -> None:
    assert pinned_peak_bytes([[64], [64]], lets_go=False) == 128
    assert pinned_peak_bytes([[64], [64]], lets_go=True) == 64
    assert pinned_peak_bytes([], lets_go=True) == 0


def test_an_a14b_expert_pins_half_as_much_again_as_it_weighs() -> None:
    with torch.device("meta"):
        module = networks.transformer(ARCHITECTURES[Model.T2V_A14B].transformer).to(torch.bfloat16)
    sizes = tensors(module)
    assert sum(sizes) == pytest.approx(26.6 * 2**30, rel=0.01)
    assert pinned_peak_bytes([sizes], lets_go=False) / sum(sizes) == pytest.approx(1.53, abs=0.01)


GROUP = make_a14b(offload=Offload.GROUP_BLOCK)
EVERY = ["vae", "text_encoder", "transformer", "transformer_2"]


@pytest.mark.parametrize(
    ("case", "pinned"),
    [
        (make_a14b(offload=Offload.EXPERT_PINNED), ["transformer", "transformer_2"]),
        (make_a14b(offload=Offload.EXPERT), []),
        (make_a14b(offload=Offload.MODEL), []),
        (GROUP, EVERY),
        (replace(GROUP, offload=Offload.GROUP_LEAF), EVERY),
        (replace(GROUP, text_encoder=TextEncoder.CPU), ["vae", "transformer", "transformer_2"]),
        (replace(GROUP, group_stream=False), []),
        (replace(GROUP, group_low_cpu_mem=True), []),
        (replace(GROUP, group_disk=True), []),
    ],
)
def test_what_is_pinned_depends_on_the_mode(case, pinned: list[str]) -> None:
    pipe = loaded(make_a14b())
    assert sorted(pinned_components(pipe, case, CUDA)) == sorted(pinned)
    assert pinned_components(pipe, case, CPU) == []


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (make_a14b(offload=Offload.EXPERT_PINNED), "^offload=expert_pinned: .* offload=expert and model need no pinned memory$"),
        (GROUP, "^offload=group_block with group_stream=true: .* group_low_cpu_mem=true pins as it copies, group_stream=false and"),
    ],
)
def test_a_host_with_too_little_memory_to_pin_is_told_the_need_and_the_way_out(case, told: str) -> None:
    pipe = loaded(make_a14b())
    need = pinned_peak_bytes([tensors(pipeline.modules(pipe)[name]) for name in pinned_components(pipe, case, CUDA)], lets_go=False)
    hold_pinned(pipe, case, CUDA, available_bytes=int(need / 0.9) + 1)
    with pytest.raises(Invalid, match=told):
        hold_pinned(pipe, case, CUDA, available_bytes=int(need / 0.9) - 1)
    hold_pinned(pipe, case, CPU, available_bytes=0)


def test_pinning_is_asked_for_before_anything_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_a14b(offload=Offload.EXPERT_PINNED)
    pipe = loaded(case)
    monkeypatch.setattr(host_memory, "available_memory_bytes", lambda: 10_000)
    monkeypatch.setattr("wansweep.trial.attention.apply", lambda *_: None)
    with pytest.raises(Invalid, match="GB to pin .* of 0.0 GB of host memory available at most 90 % may be"):
        options.place(pipe, case, CUDA)


def test_weights_that_no_host_memory_is_left_for_are_refused() -> None:
    case = make_a14b(offload=Offload.MODEL, weights="random")
    hold_loaded(10_000, case, available_bytes=10_000)
    with pytest.raises(Invalid, match="^weights=random with offload=model: 68.7 GB of weights to keep on the host, which has 64.0 GB"):
        hold_loaded(68_700_000_000, case, available_bytes=64_000_000_000)


def test_random_weights_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_a14b(weights="random", offload=Offload.GROUP_LEAF)
    monkeypatch.setattr(host_memory, "available_memory_bytes", lambda: 60_000_000_000)
    monkeypatch.setattr("wansweep.trial.random_weights.materialise", lambda *_: pytest.fail("they were made"))
    with pytest.raises(Invalid, match=r"69\.\d GB of weights to keep on the host, which has 60.0 GB"):
        pipeline.load(case, source(case), pipeline.checkpoint(case, source(case)), device=CUDA, spans=Spans(CPU))


def test_random_weights_that_are_made_on_the_gpu_need_no_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(weights="random", task=Task.T2V)
    made = []
    monkeypatch.setattr(host_memory, "available_memory_bytes", lambda: 0)
    monkeypatch.setattr("wansweep.trial.random_weights.materialise", lambda _, __, device: made.append(device))
    pipeline.load(case, source(case), pipeline.checkpoint(case, source(case)), device=CUDA, spans=Spans(CPU))
    assert made == [CUDA]


def test_files_that_are_only_passed_through_need_no_host_memory_and_those_that_stay_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "available_memory_bytes", lambda: 0)
    for lever in ({}, {"offload": Offload.GROUP_BLOCK, "group_disk": True}):
        case = make_a14b(**lever)
        pipeline.load(case, source(case), pipeline.checkpoint(case, source(case)), device=CUDA, spans=Spans(CPU))
    stays = make_a14b(offload=Offload.MODEL)
    with pytest.raises(Invalid, match="weights=tiny with offload=model"):
        pipeline.load(stays, source(stays), pipeline.checkpoint(stays, source(stays)), device=CUDA, spans=Spans(CPU))
    # Cast at every load, they are memory of this process and no pages of a file.
    cast = make_a14b()
    with pytest.raises(Invalid, match="weights=tiny with offload=none"):
        pipeline.load(cast, source(cast), pipeline.checkpoint(cast, source(cast), convert=False), device=CUDA, spans=Spans(CPU))
