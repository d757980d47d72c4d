"""The same trials on a CUDA device; skipped, visibly, without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import make_a14b
from tests.trial.test_generate import loaded, run
from tests.trial.trials import LOSSY, Runs
from wansweep.levers import Attention, Cache, Compile, Offload, Quant, TextEncoder
from wansweep.record import Outcome, StageKind, Timing
from wansweep.sweep import GpuTiming
from wansweep.trial import host_memory, options
from wansweep.trial.invalid import Invalid
from wansweep.trial.runner import capped, introduce
from wansweep.trial.stages import read_journal

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]

CASE = make_a14b(steps=6)


@pytest.mark.parametrize("offload", list(Offload))
def test_every_offload_mode_runs_and_its_memory_is_measured(offload: Offload, tmp_path: Path) -> None:
    task, ending = run(replace(CASE, offload=offload), tmp_path)
    assert (ending.outcome, ending.reason) == (Outcome.OK, "")
    assert ending.timing is Timing.EVENTS
    total = read_journal(task.journal(0))[0]
    assert (total.figures["peak_allocated_bytes"].value or 0) > 1e6
    assert (total.figures["device_used_bytes"].value or 0) > (total.figures["peak_reserved_bytes"].value or 0)


@pytest.mark.parametrize("timing", list(GpuTiming))
def test_the_stages_of_either_clock_add_up_to_the_total(timing: GpuTiming, tmp_path: Path) -> None:
    task, ending = run(replace(CASE, width=2560, height=1440), tmp_path, timing=timing, warmups=1)
    assert ending.outcome is Outcome.OK
    stages = {stage.name: stage for stage in read_journal(task.journal(0))}
    leaves = [stage for stage in stages.values() if stage.kind not in (StageKind.TOTAL_EXECUTION, StageKind.SAVE)]
    assert sum(stage.duration_s or 0 for stage in leaves) == pytest.approx(stages["Total_Execution"].duration_s, rel=0.05)


def test_a_rank_knows_its_gpu_by_the_uuid_that_nvml_gives() -> None:
    from wansweep.telemetry import nvml

    facts = introduce(0, 1.0)
    with nvml.library() as failed:
        assert failed is None
        assert facts.device_uuid in nvml.uuids()
    assert facts.device_total_bytes


def test_a_capped_gpu_refuses_what_is_over_the_cap_and_gives_it_afterwards() -> None:
    with capped(0.25, torch.device("cuda", 0)), pytest.raises(torch.OutOfMemoryError):
        torch.empty(2**29, dtype=torch.uint8, device="cuda")
    torch.empty(2**29, dtype=torch.uint8, device="cuda")


# Levers that need one


@pytest.mark.parametrize("field", ["quant", "quant_2", "text_encoder_quant"])
@pytest.mark.parametrize("quant", [Quant.BNB_8BIT, Quant.BNB_4BIT, Quant.TORCHAO_FP8_DYNAMIC, Quant.GGUF_Q8_0, Quant.FP8_CAST])
def test_quantisation_is_in_force_on_a_gpu(runs: Runs, field: str, quant: Quant) -> None:
    if quant in (Quant.BNB_8BIT, Quant.BNB_4BIT):
        pytest.importorskip("bitsandbytes")
    if quant is Quant.TORCHAO_FP8_DYNAMIC and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs compute capability 8.9")
    error, resolved = runs.error(make_a14b(**{field: quant}))
    assert 0 < error <= LOSSY
    component = {"quant": "transformer", "quant_2": "transformer_2", "text_encoder_quant": "text_encoder"}[field]
    share = resolved.quantised_layers[component]
    assert share.count == share.of > 0


def test_pinned_experts_swap_and_the_pinned_bytes_are_those_that_were_asked_for(runs: Runs) -> None:
    case = make_a14b(offload=Offload.EXPERT_PINNED)
    pipe = loaded(case)
    device = torch.device("cuda")
    sizes = [host_memory.tensors(expert) for expert in (pipe.transformer, pipe.transformer_2)]
    before = torch.cuda.host_memory_stats()["allocated_bytes.current"]
    options.place(pipe, case, device)
    pinned = torch.cuda.host_memory_stats()["allocated_bytes.current"] - before
    assert pinned == pytest.approx(host_memory.pinned_peak_bytes(sizes, lets_go=False), rel=0.01)
    error, resolved = runs.error(case)
    assert (error, resolved.expert_swaps) == (0.0, 2)


def test_a_host_without_room_to_pin_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_a14b(offload=Offload.GROUP_BLOCK)
    monkeypatch.setattr(host_memory, "available_memory_bytes", lambda: 10_000)
    with pytest.raises(Invalid, match="group_low_cpu_mem=true pins as it copies"):
        options.place(loaded(case), case, torch.device("cuda"))


@pytest.mark.parametrize("mode", [Offload.GROUP_BLOCK, Offload.GROUP_LEAF])
@pytest.mark.parametrize("option", ["group_stream", "group_record_stream", "group_low_cpu_mem"])
def test_a_stream_and_its_options_are_read_back_and_change_nothing(runs: Runs, mode: Offload, option: str) -> None:
    error, resolved = runs.error(make_a14b(offload=mode, **{option: True}))
    assert error == 0.0
    assert (resolved.group["group_stream"], resolved.group[option]) == ("True", "True")


@pytest.mark.parametrize("scope", [Compile.REGIONAL, Compile.FULL])
def test_inductor_compiles_before_the_first_step(runs: Runs, scope: Compile) -> None:
    error, resolved = runs.error(make_a14b(compile=scope))
    assert error <= LOSSY
    assert (resolved.compile, resolved.graphs) == (f"{scope} with inductor", 1)


@pytest.mark.parametrize("backend", [Attention.FLASH_HUB, Attention.SAGE_HUB, Attention.FLASH_3_HUB, Attention.NATIVE_CUDNN])
def test_a_kernel_of_the_hub_or_torch_runs_or_says_why_not(runs: Runs, backend: Attention) -> None:
    ending = runs.trial(make_a14b(attention=backend))
    assert ending.outcome in (Outcome.OK, Outcome.INVALID)
    if ending.outcome is Outcome.OK:
        assert ending.resolved is not None
        assert ending.resolved.attention == backend
    else:
        assert ending.reason.startswith(f"attention={backend} on cuda: ")


# Rules that need one (the others: test_rules.py)


@pytest.fixture
def bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "forbidden", lambda _: "")


@pytest.mark.usefixtures("bypassed")
@pytest.mark.parametrize(
    "fields",
    [
        {"offload": Offload.EXPERT, "quant": Quant.TORCHAO_INT8},
        {"offload": Offload.SEQUENTIAL, "quant": Quant.QUANTO_INT8},
        {"offload": Offload.SEQUENTIAL, "text_encoder": TextEncoder.CPU},
        {"offload": Offload.SEQUENTIAL, "vae_offload": True},
        {"offload": Offload.GROUP_BLOCK, "group_blocks": 2},
        {"cache": Cache.PAB, "compile": Compile.REGIONAL, "steps": 8, "shift": 5.0},
        {"text_encoder": TextEncoder.CPU, "text_encoder_quant": Quant.BNB_4BIT},
    ],
)
def test_what_a_rule_forbids_does_not_end_well(runs: Runs, fields: dict[str, object]) -> None:
    """An error of a library, or a mismatch that is read back."""
    assert runs.trial(make_a14b(**fields)).outcome is not Outcome.OK


@pytest.mark.usefixtures("bypassed")
def test_sage_s_sm90_kernel_gives_noise() -> None:
    pytest.importorskip("sageattention")
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs compute capability 9.0")
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    query, key, value = (torch.randn(1, 512, 24, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    exact = dispatch_attention_fn(query, key, value, backend="native")
    found = dispatch_attention_fn(query, key, value, backend=str(Attention.SAGE_INT8_FP8_SM90))
    assert (found - exact).abs().max() > 0.5 * exact.abs().max()


def test_model_offload_has_one_component_on_the_device_at_a_time(runs: Runs) -> None:
    _, resolved = runs.latents(replace(CASE, offload=Offload.MODEL))
    apart = {"text_encoder": "cpu", "transformer": "cpu", "transformer_2": "cpu", "vae": "cpu"}
    assert resolved.stage_devices["T5_Encoding"] == {**apart, "text_encoder": "cuda"}
    assert resolved.stage_devices["Inference (high)"] == {**apart, "transformer": "cuda"}
    assert resolved.stage_devices["Inference (low)"] == {**apart, "transformer_2": "cuda"}


@pytest.mark.parametrize("quant", [Quant.BNB_8BIT, Quant.BNB_4BIT])
def test_weights_of_bitsandbytes_do_not_go_back_to_the_host(runs: Runs, quant: Quant, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rule `offload with bitsandbytes` says, tried without it."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(options, "forbidden", lambda _: "")
    assert runs.trial(make_a14b(offload=Offload.MODEL, quant=quant)).outcome is not Outcome.OK
