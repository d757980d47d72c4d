"""Every way to share a video among ranks, on gloo, against the single process; what cannot be shared, in the libraries' own words; and a mode
that did nothing is caught."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models import attention_dispatch

from tests.conftest import make_a14b, make_case
from tests.trial.gang import Seen, Trial, run_gang, run_one
from wansweep.case import Case, Model, Task
from wansweep.levers import Attention, Cache, Compile, Dtype, Offload, Quant
from wansweep.record import Outcome, StageKind
from wansweep.tables.scaling import twin
from wansweep.trial import options, parallel, runner
from wansweep.trial.experts import experts
from wansweep.trial.guidance import Guidance
from wansweep.trial.task import Seat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

TOLERANCE = 1e-4
FAMILIES = {
    # Four steps: three in the high-noise expert, one in the low-noise one.
    "t2v": make_a14b(steps=4, dtype=Dtype.FP32),
    "i2v": make_a14b(model=Model.I2V_A14B, task=Task.I2V, guidance=3.5, guidance_2=3.5, steps=4, dtype=Dtype.FP32),
    "5b": make_case(steps=2, dtype=Dtype.FP32),
    "5b_image": make_case(task=Task.I2V, steps=2, dtype=Dtype.FP32),
}
ULYSSES, RING, CFG = {"ulysses": 2}, {"ring": 2}, {"cfg_parallel": 2}


@contextmanager
def without_rules(_: int = 0) -> Iterator[None]:
    with patch.object(options, "forbidden", lambda _: ""):
        yield


@contextmanager
def native_with_lse(_: int) -> Iterator[None]:
    """No backend of diffusers gives the log-sum-exp on a CPU; torch's own CPU kernel does, so it stands in for native."""

    def forward(_, query, key, value, *args, **kwargs):
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*(x.permute(0, 2, 1, 3) for x in (query, key, value)))
        out, lse = out.permute(0, 2, 1, 3), lse.permute(0, 2, 1)
        asked = args[5] if len(args) > 5 else kwargs.get("return_lse", False)
        return (out, lse) if asked else out

    with without_rules(), patch.object(attention_dispatch, "_native_attention_forward_op", forward):
        yield


@contextmanager
def no_split(_: int) -> Iterator[None]:
    with patch.object(WanTransformer3DModel, "enable_parallelism", lambda *_, **__: None):
        yield


@contextmanager
def one_expert_split(_: int) -> Iterator[None]:
    with patch.object(parallel, "experts", lambda pipe: {"transformer": pipe.transformer}), ExitStack() as late:
        late.enter_context(patch.object(parallel, "resolved_parallel", lambda pipe, cfg: ", ".join(_each(pipe, cfg))))
        yield


def _each(pipe, cfg: int) -> list[str]:
    return [parallel._in_force(expert, cfg=cfg) for expert in experts(pipe).values()]


@contextmanager
def no_sharding(_: int) -> Iterator[None]:
    with patch.object(parallel, "fully_shard", lambda *_, **__: None):
        yield


@contextmanager
def both_forwards(_: int) -> Iterator[None]:
    with patch.object(runner, "Guidance", lambda _: Guidance(None)):
        yield


@contextmanager
def another_seed(rank: int) -> Iterator[None]:
    """A bit of noise on one rank, after the last collective of the loop."""
    generate = runner.generate

    def disturbed(*args, **kwargs):
        latents, video = generate(*args, **kwargs)
        return latents + 0.01 * rank, video

    with patch.object(runner, "generate", disturbed):
        yield


def gang(case: Case, gpus: int = 2, **fields: object) -> Case:
    return replace(case, gpus=gpus, **fields)


CORRECT_ON_TWO = {
    **{f"{family}_ulysses2": Trial(case=gang(case, **ULYSSES)) for family, case in FAMILIES.items()},
    **{f"{family}_cfg2": Trial(case=gang(case, **CFG)) for family, case in FAMILIES.items()},
    **{f"{family}_fsdp": Trial(case=gang(FAMILIES[family], fsdp=True)) for family in ("t2v", "5b_image")},
    "t2v_bf16_fsdp": Trial(case=gang(make_a14b(steps=4), fsdp=True)),
    "t2v_fp8_cast_fsdp": Trial(case=gang(make_a14b(steps=4, quant=Quant.FP8_CAST), fsdp=True)),
    "t2v_ulysses2_fsdp": Trial(case=gang(FAMILIES["t2v"], fsdp=True, **ULYSSES)),
    "i2v_cfg2_fsdp": Trial(case=gang(FAMILIES["i2v"], fsdp=True, **CFG)),
    "t2v_ring2": Trial(case=gang(FAMILIES["t2v"], **RING), tampering=native_with_lse),
    "5b_ring2": Trial(case=gang(FAMILIES["5b"], **RING), tampering=native_with_lse),
}
CORRECT_ON_FOUR = {
    "t2v_ulysses4": Trial(case=gang(FAMILIES["t2v"], 4, ulysses=4)),
    "5b_image_ulysses4": Trial(case=gang(FAMILIES["5b_image"], 4, ulysses=4)),
    "t2v_cfg2_ulysses2": Trial(case=gang(FAMILIES["t2v"], 4, **CFG, **ULYSSES)),
    "i2v_cfg2_ulysses2_fsdp": Trial(case=gang(FAMILIES["i2v"], 4, fsdp=True, **CFG, **ULYSSES)),
    "5b_ulysses2_fsdp_with_copies": Trial(case=gang(FAMILIES["5b"], 4, fsdp=True, **ULYSSES)),
    "t2v_ring2_ulysses2": Trial(case=gang(FAMILIES["t2v"], 4, **RING, **ULYSSES), tampering=native_with_lse),
    "5b_cfg2_ring2": Trial(case=gang(FAMILIES["5b"], 4, **CFG, **RING), tampering=native_with_lse),
}
T2V = FAMILIES["t2v"]
WRONG = {
    "no split": (Trial(case=gang(T2V, **ULYSSES), tampering=no_split), "declared parallel=ulysses2, resolved none"),
    "one expert": (Trial(case=gang(T2V, **ULYSSES), tampering=one_expert_split), "declared parallel=ulysses2, resolved ulysses2, none"),
    "no sharding": (Trial(case=gang(T2V, fsdp=True), tampering=no_sharding), "declared parallel=fsdp, resolved none"),
    "both forwards": (Trial(case=gang(T2V, **CFG), tampering=both_forwards), "declared parallel=cfg2, resolved none"),
    "ranks differ": (Trial(case=gang(T2V, **ULYSSES), tampering=another_seed), "the ranks ended with different latents, by 0.01 at most where"),
    # Without the rule that tells so before.
    "ring on native": (
        Trial(case=gang(T2V, **RING), tampering=without_rules),
        "attention=native on cpu: Native attention does not support return_lse=True",
    ),
    "ring on a GPU's kernel": (
        Trial(case=gang(make_a14b(attention=Attention.NATIVE_FLASH), **RING)),
        "attention=_native_flash on cpu: Could not run 'aten::_scaled_dot_product_flash_attention' with arguments from the 'CPU' backend",
    ),
    "cfg without guidance": (
        Trial(case=gang(replace(T2V, guidance=1.0), **CFG), tampering=without_rules),
        "declared parallel=cfg2, resolved none",
    ),
    "fsdp and regional": (
        Trial(case=gang(replace(T2V, compile=Compile.REGIONAL, compile_backend="eager"), fsdp=True), tampering=without_rules),
        "Regional compilation failed because ['WanTransformerBlock'] classes are not found",
    ),
    "fsdp and offload": (
        Trial(case=gang(replace(T2V, offload=Offload.MODEL), fsdp=True), tampering=without_rules),
        "got mixed torch.Tensor and DTensor",
    ),
    "ulysses and first_block": (
        Trial(case=gang(replace(T2V, cache=Cache.FIRST_BLOCK), **ULYSSES), tampering=without_rules),
        "The size of tensor a (72) must match the size of tensor b (144)",
    ),
    "fsdp and first_block": (
        Trial(case=gang(replace(T2V, cache=Cache.FIRST_BLOCK), fsdp=True), tampering=without_rules),
        "FSDPWanTransformerBlock'> not registered",
    ),
    "ulysses and mag": (
        Trial(case=gang(replace(T2V, cache=Cache.MAG, steps=8, shift=5.0), **ULYSSES), tampering=without_rules),
        "cache=mag: The size of tensor a (72) must match the size of tensor b (144)",
    ),
}


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    others = {
        **{name: trial for name, (trial, _) in WRONG.items()},
        "cfg and mag": Trial(case=gang(replace(T2V, cache=Cache.MAG, steps=8, shift=5.0), **CFG), tampering=without_rules),
        "quanto": Trial(case=gang(make_a14b(quant=Quant.QUANTO_INT8), fsdp=True), tampering=without_rules),
    }
    return run_gang({**CORRECT_ON_TWO, **others}, world=2, folder=tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def on_four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    return run_gang(CORRECT_ON_FOUR, world=4, folder=tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Id of a twin to its run in one process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone")
    cases = {twin(trial.case) for trial in (*CORRECT_ON_TWO.values(), *CORRECT_ON_FOUR.values())}
    return {case.id: run_one(case, Seat(rank=0, world=1, rendezvous="", cores=1), folder / case.id) for case in cases}


def hold(seen: list[Seen], single: Seen, case: Case) -> None:
    """All ranks ended well, in the declared mode, with the single process's latents and with the same ones."""
    assert single.latents is not None
    for rank in seen:
        assert (rank.ending.outcome, rank.ending.reason) == (Outcome.OK, "")
        assert rank.ending.resolved is not None
        assert rank.ending.resolved.parallel == case.parallel
        assert rank.ending.resolved.ranks_error == 0
        assert torch.equal(rank.latents, seen[0].latents)
        assert float((rank.latents - single.latents).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("name", CORRECT_ON_TWO)
def test_two_ranks_compute_what_one_process_does(name: str, on_two: dict[str, list[Seen]], alone: dict[str, Seen]) -> None:
    case = CORRECT_ON_TWO[name].case
    hold(on_two[name], alone[twin(case).id], case)


@pytest.mark.parametrize("name", CORRECT_ON_FOUR)
def test_four_ranks_compute_what_one_process_does(name: str, on_four: dict[str, list[Seen]], alone: dict[str, Seen]) -> None:
    case = CORRECT_ON_FOUR[name].case
    hold(on_four[name], alone[twin(case).id], case)


@pytest.mark.parametrize("name", WRONG)
def test_a_mode_that_did_nothing_or_cannot_work_does_not_pass_for_a_result(name: str, on_two: dict[str, list[Seen]]) -> None:
    reason = WRONG[name][1]
    endings = [rank.ending for rank in on_two[name]]
    assert {ending.outcome for ending in endings} <= {Outcome.INVALID, Outcome.CRASH}
    # The first to see it leaves, which may break a connection before the other has seen it too.
    assert any(reason in ending.reason for ending in endings), endings
    # Only what a rule keeps from ever running ends as an accident.
    assert (on_two[name][0].ending.outcome is Outcome.CRASH) == (name in ("fsdp and offload", "ulysses and first_block"))


def test_a_rank_holds_its_part_of_the_sharded_weights_and_no_more(on_two: dict[str, list[Seen]], on_four: dict[str, list[Seen]]) -> None:
    for seen, ranks in ((on_two["t2v_bf16_fsdp"], 2), (on_four["i2v_cfg2_ulysses2_fsdp"], 4)):
        held = [rank.ending.resolved.shard_bytes for rank in seen if rank.ending.resolved]
        assert [set(shares) for shares in held] == [{"transformer", "transformer_2"}] * ranks
        for expert in ("transformer", "transformer_2"):
            assert sum(shares[expert].count for shares in held) == held[0][expert].of
            # Tables of one row cannot be cut; rank 0 has them.
            assert held[0][expert].count < 1.02 * held[0][expert].of / ranks


def test_each_half_of_the_gang_runs_one_forward_a_step(on_two: dict[str, list[Seen]]) -> None:
    for name, forwards in (("t2v_cfg2", 4), ("t2v_ulysses2", 8)):
        for rank in on_two[name]:
            assert rank.ending.resolved
            assert sum(share.of for share in rank.ending.resolved.block_computations.values()) == forwards


def test_the_wait_in_collectives_is_in_the_stages_that_have_any(on_four: dict[str, list[Seen]], on_two: dict[str, list[Seen]]) -> None:
    for seen in (on_four["t2v_cfg2_ulysses2"], on_two["t2v_fsdp"], on_two["t2v_cfg2"], on_two["t2v_ring2"]):
        for rank in seen:
            waited = {stage.name: stage.figures["communication_s"].value for stage in rank.stages if "communication_s" in stage.figures}
            length = {stage.name: stage.duration_s for stage in rank.stages}
            assert "Total_Execution" not in waited
            assert waited["T5_Encoding"] == waited["VAE_Decoding"] == 0
            steps = [name for name in waited if name.endswith(str(StageKind.STEP_INFERENCE))]
            assert len(steps) == 4
            assert all(0 < waited[name] < length[name] for name in steps)


def test_one_process_waits_for_nobody_and_says_nothing_of_it(alone: dict[str, Seen]) -> None:
    assert all("communication_s" not in stage.figures for seen in alone.values() for stage in seen.stages)


def test_the_half_without_the_prompt_has_nothing_to_calibrate_mag_on(on_two: dict[str, list[Seen]]) -> None:
    """Why mag is forbidden with cfg_parallel."""
    ending = on_two["cfg and mag"][1].ending
    assert (ending.outcome, ending.reason) == (Outcome.INVALID, "declared cache=mag, resolved none on transformer")


def test_quantised_weights_are_plain_again_once_they_are_sharded(on_two: dict[str, list[Seen]]) -> None:
    """Why quanto is forbidden with fsdp: it runs, and no weight is in 8 bits any more."""
    resolved = on_two["quanto"][0].ending.resolved
    assert resolved is not None
    assert (resolved.quant, resolved.quantised_layers) == ("none", {})


def test_fsdp_on_one_gpu_resolves_to_nothing_without_its_rule(tmp_path: Path) -> None:
    with without_rules():
        seen = run_one(gang(T2V, 1, fsdp=True), Seat(rank=0, world=1, rendezvous="", cores=1), tmp_path / "one")
    assert (seen.ending.outcome, seen.ending.reason) == (Outcome.INVALID, "declared parallel=fsdp, resolved none")


@pytest.mark.gpu
@pytest.mark.parametrize("attention", [Attention.NATIVE_CUDNN, Attention.NATIVE_FLASH])
@pytest.mark.parametrize("fields", [RING, CFG, {"fsdp": True}], ids=["ring", "cfg", "fsdp"])
def test_modes_on_gpus(attention: Attention, fields: dict[str, object], tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices, one a rank")
    case = gang(make_a14b(steps=4, attention=attention), **fields)
    trial = Trial(case=case, tampering=own_device)
    seen = run_gang({"gang": trial}, world=2, folder=tmp_path)["gang"]
    single = run_one(twin(case), Seat(rank=0, world=1, rendezvous="", cores=1), tmp_path / "single")
    assert [rank.ending.outcome for rank in seen] == [Outcome.OK] * 2
    assert float((seen[0].latents - single.latents.to(seen[0].latents.device)).abs().max()) < 0.07


@contextmanager
def own_device(rank: int) -> Iterator[None]:
    torch.cuda.set_device(rank)
    yield
