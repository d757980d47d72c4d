"""Published figures of Wan2.2, each as the case that it is of, and the code that ran it.

Rows of other hardware are kept aside to judge the planner, and are not here. Left out, because no case of wansweep is what they are of: Wan2.1
whole videos (another text-image path, and whether loading is in them is not said), fp8 and 4-step distillations, MLPerf's B200 (its number
format is not said). Seconds leave loading out. The official table's GB agree with GiB of traced memory within 0.5 %
(research/wan_in_diffusers.md, 4), so they are read as GiB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wansweep.case import Case, Model, Task
from wansweep.levers import Attention, Compile, Offload, TextEncoder
from wansweep.plan.stack import DIFFUSERS, FUSED, OFFICIAL, SGLANG, Stack

OFFICIAL_TABLE = "Wan2.2, computational efficiency (assets/comp_effic.png); frames and steps are the repository's defaults"
LIGHTX2V = "LightX2V, examples/BeginnerGuide Wan22-moe, warm"
SGLANG_SHORT = "sglang PR 21248"
SGLANG_CI = "sglang, test/server/perf_baselines.json at 001514a4, two H100"
# Two rows whose seconds are more than all that is modelled, and more than the same engine's own stage times of the same model: 0.90 s of T5,
# 0.37 s a step and 1.70 s of decode at its server's default size on an H100 are 4.1 s for four steps (SGLANG_CI). No warm-up is stated, and the
# engine does none unless asked (runtime/server_args.py, warmup), so kernels are chosen and loaded within these seconds.
COLD = "its engine's own stage times add up to 4.1 s; no warm-up stated, none by default"
DIFFUSERS_PR = "diffusers PR 11605, Wan2.1-14B (the expert's shape), one forward"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One figure.

    Attributes:
        gpu: By its name in the GPU table.
        case: What it is of.
        stack: Whose code ran.
        what: ``generation``, ``forward``, ``text_encode``, ``vae_decode`` or ``swap``.
        seconds: Published; null where only memory is.
        peak_gib: Published; null where only time is.
        device: Whether the memory is the whole device's, not torch's allocator's.
        source: Where.
        known: A constant of `plan.rates` is from this row, so its error says little.
        apart: Why the row is shown and judged apart: it holds seconds that are no part of a generation. Empty for all others.
    """

    gpu: str
    case: Case
    stack: Stack
    seconds: float | None
    source: str
    what: str = "generation"
    peak_gib: float | None = None
    device: bool = False
    known: bool = False
    apart: str = ""


def _case(model: Model, task: Task = Task.T2V, **fields: object) -> Case:
    official: dict[Model, dict[str, object]] = {
        Model.TI2V_5B: {"width": 1280, "height": 704, "frames": 121, "steps": 50, "shift": 5.0, "guidance": 5.0, "guidance_2": None},
        Model.T2V_A14B: {"width": 1280, "height": 720, "frames": 81, "steps": 40, "shift": 12.0, "guidance": 4.0, "guidance_2": 3.0},
        Model.I2V_A14B: {"width": 1280, "height": 720, "frames": 81, "steps": 40, "shift": 5.0, "guidance": 3.5, "guidance_2": 3.5},
    }
    given = {"weights": "hub", "prompt": "p", "negative_prompt": "n", **official[model], **fields}
    return Case(model=model, task=task, **given)  # type: ignore[arg-type]


def _official(gpu: str, case: Case, figures: tuple[tuple[int, float, float], ...]) -> list[Published]:
    """The official table's row: 1, 4 and 8 GPUs, with the settings its caption states."""
    rows = []
    for gpus, seconds, peak in figures:
        five = case.model is Model.TI2V_5B
        # 14B on several: --ulysses_size N --dit_fsdp --t5_fsdp, offload off; 5B keeps --offload_model and --t5_cpu.
        ran = replace(case, gpus=gpus, ulysses=gpus, fsdp=gpus > 1 and not five, label=f"{case.label} x{gpus}")
        ran = replace(ran, offload=Offload.NONE if gpus > 1 and not five else Offload.MODEL)
        ran = replace(ran, text_encoder=TextEncoder.CPU if five else TextEncoder.PLACED)
        # PCIE_PEER_SHARE was chosen with these in view.
        known = gpus > 1 and five
        rows.append(Published(gpu=gpu, case=ran, stack=OFFICIAL, seconds=seconds, peak_gib=peak, source=OFFICIAL_TABLE, known=known))
    return rows


def _rows() -> tuple[Published, ...]:
    t2v, i2v = Model.T2V_A14B, Model.I2V_A14B
    small = {"width": 832, "height": 480}
    whole = _case(t2v, label="T2V-A14B 720p resident")
    # sglang keeps T5 and VAE on the host unless told otherwise.
    short = _case(t2v, **small, frames=17, steps=4, vae_offload=True, label="T2V-A14B 480p 17 frames 4 steps")
    five = _case(Model.TI2V_5B, frames=17, steps=4, vae_offload=True, label="TI2V-5B 704p 17 frames 4 steps")
    one = _case(t2v, **small, label="14B 480p one forward")
    tiny = _case(t2v, width=640, height=384, frames=17, label="Wan VAE 640x384 17 frames")
    streamed = {"offload": Offload.GROUP_LEAF}
    compiled = {"compile": Compile.FULL}
    cfg8 = replace(whole, gpus=8, ulysses=4, cfg_parallel=2, label="T2V-A14B 720p cfg2 x ulysses4")
    mlperf = replace(whole, steps=20, gpus=8, ulysses=4, cfg_parallel=2, attention=Attention.FLASH_3_HUB, label="MLPerf v6.0 closed, 20 steps")
    return (
        *_official("rtx4090", _case(Model.TI2V_5B, label="TI2V-5B t2v 704p"), ((1, 534.7, 22.9), (4, 231.3, 22.6), (8, 157.2, 22.6))),
        *_official("rtx4090", _case(Model.TI2V_5B, Task.I2V, label="TI2V-5B i2v 704p"), ((1, 524.8, 22.8), (4, 227.3, 22.6), (8, 160.1, 22.6))),
        *_official("h100", _case(t2v, **small, label="T2V-A14B 480p"), ((1, 326.9, 41.3), (4, 91.7, 40.9), (8, 51.5, 26.3))),
        *_official("h100", _case(t2v, label="T2V-A14B 720p"), ((1, 1041.5, 59.8), (4, 288.7, 51.7), (8, 155.1, 37.1))),
        *_official("h100", _case(i2v, Task.I2V, **small, label="I2V-A14B 480p"), ((1, 327.8, 41.0), (4, 92.4, 40.8), (8, 52.9, 26.1))),
        *_official("h100", _case(i2v, Task.I2V, label="I2V-A14B 720p"), ((1, 1055.9, 59.7), (4, 290.4, 51.6), (8, 159.0, 37.0))),
        Published(gpu="h100", case=whole, stack=FUSED, seconds=796.5, source=LIGHTX2V),
        Published(
            gpu="h100",
            case=replace(whole, offload=Offload.EXPERT_PINNED, label="T2V-A14B 720p offloaded"),
            stack=FUSED,
            seconds=798.4,
            source=LIGHTX2V,
        ),
        Published(gpu="h100", case=cfg8, stack=FUSED, seconds=119.5, source=LIGHTX2V),
        Published(gpu="h200", case=mlperf, stack=FUSED, seconds=57.4, source="MLPerf Inference v6.0, text to video, single stream"),
        Published(gpu="h200", case=short, stack=SGLANG, seconds=4.22, source=SGLANG_SHORT),
        Published(
            gpu="h200", case=replace(short, **streamed, label=f"{short.label} streamed"), stack=SGLANG, seconds=6.77, source=SGLANG_SHORT
        ),
        Published(gpu="h200", case=five, stack=SGLANG, seconds=5.91, source=SGLANG_SHORT, apart=COLD),
        Published(
            gpu="h200",
            case=replace(five, **streamed, label=f"{five.label} streamed"),
            stack=SGLANG,
            seconds=9.86,
            source=SGLANG_SHORT,
            apart=COLD,
        ),
        # At whatever size: T5 encodes two prompts of 512 tokens.
        Published(gpu="h100", case=whole, stack=SGLANG, what="text_encode", seconds=1.01, source=SGLANG_CI),
        # The layout of diffusers; a decode alone, by CUDA events.
        Published(
            gpu="h100", case=tiny, stack=SGLANG, what="vae_decode", seconds=0.2447, source="sglang PR 26214, Wan2.1's VAE, which A14B has"
        ),
        Published(gpu="h100", case=one, stack=DIFFUSERS, what="forward", seconds=4.60, source=DIFFUSERS_PR),
        Published(gpu="h100", case=replace(one, **compiled), stack=DIFFUSERS, what="forward", seconds=3.77, source=DIFFUSERS_PR),
        Published(gpu="h100", case=replace(one, **streamed), stack=DIFFUSERS, what="forward", seconds=4.92, source=DIFFUSERS_PR),
        Published(gpu="h100", case=replace(one, **streamed, **compiled), stack=DIFFUSERS, what="forward", seconds=4.11, source=DIFFUSERS_PR),
        Published(
            gpu="h100", case=one, stack=DIFFUSERS, what="vae_decode", seconds=2.15, source="LightX2V stage table, 2.0 to 2.3 s", known=True
        ),
        Published(
            gpu="h100",
            case=replace(whole, offload=Offload.EXPERT_PINNED, label="T2V-A14B switch of experts"),
            stack=FUSED,
            what="swap",
            seconds=0.80,
            source="sglang CI baselines",
            known=True,
        ),
    )


PUBLISHED = _rows()
