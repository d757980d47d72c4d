"""Published figures of Wan2.2, each as the case that it is of, and the code that ran it.

Every row that the project knew when the planner was made is here; one that no case of wansweep is, or whose settings are not said, is predicted
as the nearest case and stands apart, with why. Further rows were found when the planner was done. The official table's rows of other cards
are kept aside. Seconds leave loading out. The official table's GB agree with GiB of traced memory within 0.5 %
(research/wan_in_diffusers.md, 4), so they are read as GiB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wansweep.case import Case, Model, Task
from wansweep.levers import Attention, Compile, Dtype, Offload, Quant, TextEncoder
from wansweep.plan.architecture import ARCHITECTURES, Architecture
from wansweep.plan.stack import DIFFUSERS, FUSED, OFFICIAL, SGLANG, Stack

OFFICIAL_TABLE = "Wan2.2, computational efficiency (assets/comp_effic.png); frames and steps are the repository's defaults"
# Its VAE is bf16 unless asked (lightx2v/models/runners/wan/wan_runner.py, GET_DTYPE); fp32 would be 84 GiB where the card has 79.
LIGHTX2V = "LightX2V, examples/BeginnerGuide Wan22-moe, warm; memory as nvidia-smi has it"
SGLANG_SHORT = "sglang PR 21248"
SGLANG_CI = "sglang, test/server/perf_baselines.json at 001514a4, two H100"
DIFFUSERS_PR = "diffusers PR 11605, Wan2.1-14B (the expert's shape), one forward"
H200_LADDER = "LightX2V, docs/EN/source/getting_started/benchmark_source.md, Wan2.1-I2V-14B"
# The same pull request's A14B pair differs by 0.32 s a forward for 28.6 GB, this one by 0.49 s for 10 GB.
UNLIKE_ITS_TWIN = "10 GB take 0.5 s a pass, where the A14B's pair of the same source has 0.2"
WAN21 = "Wan2.1 has an image encoder beside; loading may be in it"
FORMAT = "its number format is not said; bf16 assumed"
FRAMES = "its frames are not said; the default assumed"
LAYOUT = "channels-last, for which diffusers' VAE is not written"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One figure.

    Attributes:
        gpu: By its name in the GPU table.
        case: What it is of.
        stack: Whose code ran.
        what: ``generation``, ``forward``, ``step``, ``text_encode``, ``vae_decode`` or ``swap``.
        seconds: Published; null where only memory is.
        peak_gib: Published; null where only time is.
        device: Whether the memory is the whole device's, not torch's allocator's.
        source: Where.
        known: A constant of `plan.rates` or `plan.stack` is from this row, so its error says little.
        apart: Why the row is shown and not judged; empty for all others.
        further: Found when the planner was done.
        one_expert: Of Wan2.1, which has one transformer of the experts' shape.
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
    further: bool = False
    one_expert: bool = False

    @property
    def networks(self) -> Architecture:
        """What ran."""
        family = ARCHITECTURES[self.case.model]
        return replace(family, boundary=None) if self.one_expert else family


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
        # PCIE_PEER_SHARE was chosen with the 5B's in view, and that the time embedding ran in TF32 was concluded from the 14B's.
        known = gpus > 1
        rows.append(Published(gpu=gpu, case=ran, stack=OFFICIAL, seconds=seconds, peak_gib=peak, source=OFFICIAL_TABLE, known=known))
    return rows


SMALL = {"width": 832, "height": 480}
T2V, I2V = Model.T2V_A14B, Model.I2V_A14B
WHOLE = _case(T2V, label="T2V-A14B 720p resident")
CFG_8 = replace(WHOLE, gpus=8, ulysses=4, cfg_parallel=2)


def _official_table() -> tuple[Published, ...]:
    return (
        *_official("rtx4090", _case(Model.TI2V_5B, label="TI2V-5B t2v 704p"), ((1, 534.7, 22.9), (4, 231.3, 22.6), (8, 157.2, 22.6))),
        *_official("rtx4090", _case(Model.TI2V_5B, Task.I2V, label="TI2V-5B i2v 704p"), ((1, 524.8, 22.8), (4, 227.3, 22.6), (8, 160.1, 22.6))),
        *_official("h100", _case(T2V, **SMALL, label="T2V-A14B 480p"), ((1, 326.9, 41.3), (4, 91.7, 40.9), (8, 51.5, 26.3))),
        *_official("h100", _case(T2V, label="T2V-A14B 720p"), ((1, 1041.5, 59.8), (4, 288.7, 51.7), (8, 155.1, 37.1))),
        *_official("h100", _case(I2V, Task.I2V, **SMALL, label="I2V-A14B 480p"), ((1, 327.8, 41.0), (4, 92.4, 40.8), (8, 52.9, 26.1))),
        *_official("h100", _case(I2V, Task.I2V, label="I2V-A14B 720p"), ((1, 1055.9, 59.7), (4, 290.4, 51.6), (8, 159.0, 37.0))),
    )


def _lightx2v() -> tuple[Published, ...]:
    """Whole videos on H100 with fused kernels, and the switch of experts."""
    whole = replace(WHOLE, vae_dtype=Dtype.BF16)
    swapped = replace(whole, offload=Offload.EXPERT_PINNED, label="T2V-A14B 720p offloaded")
    cases = ((whole, 796.5, 78_940), (swapped, 798.4, 51_894), (_lighter(CFG_8), 119.5, 74_370))
    rows = (
        Published(gpu="h100", case=case, stack=FUSED, seconds=seconds, peak_gib=mib / 1024, device=True, source=LIGHTX2V)
        for case, seconds, mib in cases
    )
    decoded = replace(whole, **SMALL, label="14B 480p one forward")
    switch = replace(WHOLE, offload=Offload.EXPERT_PINNED, label="T2V-A14B switch of experts")
    return (
        *rows,
        Published(gpu="h100", case=decoded, stack=DIFFUSERS, what="vae_decode", seconds=2.15, source="LightX2V, 2.0 to 2.3 s", known=True),
        Published(gpu="h100", case=switch, stack=FUSED, what="swap", seconds=0.80, source="sglang CI baselines", known=True),
    )


def _lighter(case: Case) -> Case:
    return replace(case, vae_dtype=Dtype.BF16, label="T2V-A14B 720p cfg2 x ulysses4")


def _mlperf() -> tuple[Published, ...]:
    source = "MLPerf Inference v6.0, closed, text to video, single stream"
    case = replace(CFG_8, steps=20, attention=Attention.FLASH_3_HUB, label="MLPerf v6.0 closed, 20 steps")
    return (
        Published(gpu="h200", case=case, stack=FUSED, seconds=57.4, source=source),
        Published(gpu="b200", case=case, stack=FUSED, seconds=25.5, source=source, apart=FORMAT),
    )


def _sglang() -> tuple[Published, ...]:
    """Short clips, T5 and a decode. sglang kept T5 and VAE on the host then unless told otherwise."""
    short = _case(T2V, **SMALL, frames=17, steps=4, vae_offload=True, label="T2V-A14B 480p 17 frames 4 steps")
    five = _case(Model.TI2V_5B, frames=17, steps=4, vae_offload=True, label="TI2V-5B 704p 17 frames 4 steps")
    tiny = _case(T2V, width=640, height=384, frames=17, label="Wan VAE 640x384 17 frames")
    clips = ((short, 4.22, 6.77, ""), (five, 5.91, 9.86, UNLIKE_ITS_TWIN))
    pairs = [
        (replace(case, offload=offload, label=label), seconds, why)
        for case, resident_s, streamed_s, strange in clips
        for offload, label, seconds, why in (
            (Offload.NONE, case.label, resident_s, ""),
            (Offload.GROUP_LEAF, f"{case.label} streamed", streamed_s, strange),
        )
    ]
    return (
        *(Published(gpu="h200", case=case, stack=SGLANG, seconds=s, source=SGLANG_SHORT, apart=why) for case, s, why in pairs),
        # At whatever size: T5 encodes two prompts of 512 tokens.
        Published(gpu="h100", case=WHOLE, stack=SGLANG, what="text_encode", seconds=1.01, source=SGLANG_CI),
        # The layout of diffusers; a decode alone, by CUDA events.
        Published(gpu="h100", case=tiny, stack=SGLANG, what="vae_decode", seconds=0.2447, source="sglang PR 26214, Wan2.1's VAE, as A14B's"),
    )


def _forwards() -> tuple[Published, ...]:
    """One forward of the 14B in diffusers, as it is, streamed and compiled."""
    one = _case(T2V, **SMALL, label="14B 480p one forward")
    streamed, compiled = {"offload": Offload.GROUP_LEAF}, {"compile": Compile.FULL}
    cases = (
        ("h100", one, 4.60),
        ("h100", replace(one, **compiled), 3.77),
        ("h100", replace(one, **streamed), 4.92),
        ("h100", replace(one, **streamed, **compiled), 4.11),
        ("rtx4090", replace(one, **streamed), 13.658),
        ("rtx4090", replace(one, **streamed, **compiled), 11.584),
    )
    return tuple(
        Published(gpu=gpu, case=case, stack=DIFFUSERS, what="forward", seconds=seconds, source=DIFFUSERS_PR, further=gpu == "rtx4090")
        for gpu, case, seconds in cases
    )


def _wan21() -> tuple[Published, ...]:
    """Wan2.1's I2V-14B on an H200: the official code, which makes one time embedding a video, and LightX2V in bf16 and fp8."""
    one_time = replace(OFFICIAL, tf32_time_embedding=False)
    sage = replace(FUSED, attention=Attention.SAGE)
    light = {"vae_dtype": Dtype.BF16}
    fp8 = {"quant": Quant.TORCHAO_FP8_DYNAMIC, "vae_tiling": True, **light}
    figures = (
        ("official", one_time, {}, (366, 71), (974, 81)),
        ("bf16 sage", sage, light, (216, 50), (751, 57)),
        ("fp8 sage tiled", sage, fp8, (191, 35), (671, 43)),
    )
    return tuple(
        Published(
            gpu="h200",
            case=_case(I2V, Task.I2V, label=f"Wan2.1-I2V-14B {size} {name}", **fields, **pixels),
            stack=stack,
            seconds=seconds,
            peak_gib=peak,
            device=True,
            source=H200_LADDER,
            apart=WAN21,
            one_expert=True,
        )
        for name, stack, fields, small, large in figures
        for size, pixels, (seconds, peak) in (("480p", SMALL, small), ("720p", {}, large))
    )


def _further() -> tuple[Published, ...]:
    """Rows of other cards, sizes and engines that were looked up when the planner was done; no constant is from one."""
    light = {"vae_dtype": Dtype.BF16}
    long = _case(T2V, **SMALL, **light, steps=50, label="Wan2.1-T2V-14B 480p 50 steps")
    streamed = _case(I2V, Task.I2V, offload=Offload.GROUP_BLOCK, label="Wan2.1-I2V-14B 720p")
    fast = _case(Model.TI2V_5B, **light, steps=3, guidance=1.0, label="FastWan2.2-TI2V-5B 704p 3 steps")
    split = "LightX2V, examples/BeginnerGuide DisaggSplitDeploy, bf16"
    wide = _case(Model.TI2V_5B, frames=61, **light, label="LongLive2 704p 61 frames")
    decoded = replace(WHOLE, vae_dtype=Dtype.FP32, label="T2V-A14B 720p")
    return (
        Published(gpu="h100", case=long, stack=FUSED, seconds=261.97, source="LightX2V Wan21-14B, warm", one_expert=True),
        Published(
            gpu="rtx4090", case=replace(streamed, **SMALL, label="Wan2.1-I2V-14B 480p"), stack=FUSED, what="step", seconds=24.24, source=split
        ),
        Published(gpu="rtx4090", case=streamed, stack=FUSED, what="step", seconds=90.71, source=split),
        Published(gpu="b200", case=fast, stack=FUSED, seconds=4.285, source="TensorRT-LLM PR 19310, native, bf16, warm"),
        Published(gpu="h20", case=decoded, stack=SGLANG, what="vae_decode", seconds=26.28, source="sglang PR 16510", apart=FRAMES),
        Published(gpu="h200", case=wide, stack=SGLANG, what="vae_decode", seconds=2.80, source="sglang PR 34125", apart=LAYOUT),
    )


PUBLISHED = (
    *_official_table(),
    *_lightx2v(),
    *_mlperf(),
    *_sglang(),
    *_forwards(),
    *_wan21(),
    *(replace(row, further=True) for row in _further()),
)
