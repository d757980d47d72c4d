"""Tries levers on a miniature of this machine's own making: ``python -m wansweep.trial.trying attention=sage quant=torchao_int8 ...``.

Each is applied by the code that applies it in a trial, and its kernel is run once, so what diffusers, torch and the quantisers refuse here they
refuse in their own words. Prints a line of JSON before and after each, so that an asker knows which of them ended the process.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from wansweep.case import Case, Model, Task
from wansweep.levers import Attention, Offload, Quant
from wansweep.plan.architecture import Architecture
from wansweep.trial import attention, networks, quantise
from wansweep.trial.ability import SAID, Ability, Device, Said, Torch, Trying
from wansweep.trial.experts import block_linears
from wansweep.trial.formats import TORCH_DTYPES, cast
from wansweep.trial.invalid import Invalid, refusals
from wansweep.trial.offload import apply_offload
from wansweep.trial.pipeline import WanPipe
from wansweep.trial.tiny import miniature

# Kernels of attention know few head widths, and Wan's is one of them; fp8 products want multiples of 16.
HEADS, HEAD_DIM = 2, 128
ROWS = 32

# On a CPU most of the models' levers run too, so it is a device like another.
CASE = Case(
    model=Model.T2V_A14B,
    task=Task.T2V,
    width=1280,
    height=720,
    frames=81,
    steps=2,
    shift=12.0,
    guidance=4.0,
    guidance_2=3.0,
    weights="tiny",
    prompt="",
    negative_prompt="",
)


def main(levers: Sequence[str]) -> None:
    """Say what torch sees, then try the levers in the order given."""
    seen = _torch()
    _say(seen)
    usable = any(not device.refusal for device in seen.devices)
    device = torch.device("cuda" if usable else "cpu")
    for lever in levers:
        _say(Trying(lever=lever))
        _say(_ability(lever, device))


def _ability(lever: str, device: torch.device) -> Ability:
    try:
        with refusals(lever):
            note = _trial(lever)(device)
    except (Invalid, torch.OutOfMemoryError) as error:
        # Levers begin their reasons with their own name, some with the device's behind it.
        reason = re.sub(rf"^({re.escape(lever)}( on \w+)?: )+", "", f"{lever}: {error}")
        return Ability(lever=lever, runs=False, why=_line(reason))
    except Exception as error:  # noqa: BLE001  (kernels that are compiled raise whatever their compiler does)
        return Ability(lever=lever, runs=False, why=_line(f"{type(error).__name__}: {error}"))
    return Ability(lever=lever, runs=True, why=note or "")


def _line(text: str) -> str:
    return " ".join(text.split())[:400]


def _trial(lever: str) -> Callable[[torch.device], str | None]:
    """What tries a lever by name; answers with what slows it, if anything."""
    field, _, value = lever.partition("=")
    match field:
        case "attention":
            return lambda device: _attention(Attention(value), device)
        case "quant":
            return lambda device: _quant(Quant(value), device)
        case "offload":
            return lambda device: _offload(Offload(value), device)
        case "compile_backend":
            return lambda device: _compile(value, device)
        case _:
            return {"gpus": _gang, "keep_video": _video}[field]


def _attention(backend: Attention, device: torch.device) -> None:
    pipe = _pipe()
    pipe.transformer.to(device)
    attention.apply(pipe, replace(CASE, attention=backend), device)
    attention.check(pipe, replace(CASE, attention=backend))


def _quant(quant: Quant, device: torch.device) -> None:
    """One product of one quantised layer on the device."""
    pipe, case = _pipe(), replace(CASE, quant=quant)
    quantise.apply(pipe, case)
    quantise.check(pipe, case)
    _, layer = next(block_linears(pipe.transformer.to(device)))
    width = pipe.transformer.config.num_attention_heads * HEAD_DIM
    with torch.no_grad():
        layer(torch.ones(ROWS, width, device=device, dtype=TORCH_DTYPES[case.dtype]))


def _offload(mode: Offload, device: torch.device) -> None:
    apply_offload(_pipe(), replace(CASE, offload=mode), device)


def _compile(backend: str, device: torch.device) -> None:
    ones = torch.ones(ROWS, device=device)
    doubled = torch.compile(lambda x: x * 2, backend=backend)(ones)
    assert torch.equal(doubled, ones * 2), f"{backend} computed something else"


def _gang(device: torch.device) -> str | None:
    """What ranks talk through: NCCL among GPUs, which must reach each other; gloo among CPUs."""
    if device.type != "cuda":
        if not torch.distributed.is_gloo_available():
            raise RuntimeError("this torch was built without gloo, which ranks on CPUs talk through")
        return None
    if not torch.distributed.is_nccl_available():
        raise RuntimeError("this torch was built without NCCL, which ranks on GPUs talk through")
    count = torch.cuda.device_count()
    if count < 2:
        raise RuntimeError("one GPU; a gang needs one a rank")
    apart = [f"{a}-{b}" for a in range(count) for b in range(a) if not torch.cuda.can_device_access_peer(a, b)]
    return f"no peer access between GPUs {', '.join(apart)}: they copy through host memory" if apart else None


def _video(device: torch.device) -> None:
    """ffmpeg, by which diffusers writes mp4."""
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-version"], check=True, capture_output=True, timeout=20)


def _pipe() -> WanPipe:
    """A fresh miniature with two experts in bf16 on the CPU, with Wan's head width."""
    small = miniature(Model.T2V_A14B)
    shape = replace(small.transformer, heads=HEADS, head_dim=HEAD_DIM, ffn_dim=2 * HEADS * HEAD_DIM, layers=1)
    sized: Architecture = replace(small, transformer=shape)
    pipe = networks.build(sized, Task.T2V, boundary=0.875)
    for expert in (pipe.transformer, pipe.transformer_2):
        cast(expert, torch.bfloat16)
        expert.requires_grad_(False)
    return pipe


def _torch() -> Torch:
    devices, refusal = [], ""
    try:
        if torch.version.cuda is not None:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            devices = [_device(index) for index in range(torch.cuda.device_count())]
    except RuntimeError as error:
        refusal = _line(str(error))
    return Torch(
        version=str(torch.__version__),
        cuda=torch.version.cuda,
        devices=tuple(devices),
        architectures=tuple(torch.cuda.get_arch_list()) if torch.version.cuda else (),
        refusal=refusal,
    )


def _device(index: int) -> Device:
    """A GPU, with one kernel run on it."""
    properties = torch.cuda.get_device_properties(index)
    refusal = ""
    try:
        (torch.ones(1, device=f"cuda:{index}") + 1).item()
    except RuntimeError as error:
        refusal = _line(str(error))
    return Device(
        uuid=f"GPU-{properties.uuid}".replace("GPU-GPU-", "GPU-"),
        name=properties.name,
        total_bytes=properties.total_memory,
        capability=f"{properties.major}.{properties.minor}",
        refusal=refusal,
    )


def _say(what: Said) -> None:
    sys.stdout.write(SAID.dump_json(what).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
