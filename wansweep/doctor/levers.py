"""Which levers would run here, tried in miniature, and what the others lack."""

from __future__ import annotations

import re
from collections.abc import Iterator

from wansweep.doctor.finding import Finding, State
from wansweep.levers import Attention, Offload, Quant
from wansweep.trial.ability import Ability

# What sweeps that ship need; without one of them the plainest case does not run.
VITAL = frozenset({"attention=native", "offload=none", "offload=model", "keep_video=true"})
LEVERS = (
    *(f"attention={attention}" for attention in Attention),
    # What `gguf` reads is a user's file; its formats are tried as gguf_*.
    *(f"quant={quant}" for quant in Quant if quant not in (Quant.NONE, Quant.GGUF)),
    *(f"offload={offload}" for offload in Offload),
    "compile_backend=inductor",
    "gpus=2",
    "keep_video=true",
)
TIMEOUT_S = 240.0

# What a library says it lacks, and what mends that; the first that matches is told.
_FIXES: tuple[tuple[str, str], ...] = (
    (r"not done after|process ended with", "leave this lever out here; its kernel ends or hangs the process that calls it"),
    (r"C\+\+ compiler|InvalidCxxCompiler|No working C\+\+|gcc|g\+\+|c\+\+", "apt-get install g++ (torch.compile builds its kernels with it)"),
    (r"Python\.h", "apt-get install python3-dev (torch.compile builds against it)"),
    (r"No module named 'triton|[Tt]riton is not|requires triton|working triton", "pip install triton"),
    (r"kernels?` (package|version)", "pip install -U kernels"),
    (r"trusted kernel", "DIFFUSERS_TRUST_REMOTE_KERNELS=true lets diffusers run that publisher's code"),
    (
        r"offline|LocalEntryNotFound|cached snapshot|outgoing traffic",
        "once with network: HF_HUB_OFFLINE=0 wansweep +sweep=attention (the kernel is fetched then)",
    ),
    (r"FA3 beta", "pip install kernels and use attention=_flash_3_hub, or build FlashAttention's hopper folder"),
    (r"xformers", "pip install xformers"),
    (r"[Ss]age", "pip install sageattention (its repository has builds for newer cards)"),
    (r"[Ff]lash", "pip install flash-attn --no-build-isolation, or use attention=flash_hub with pip install kernels"),
    (
        r"No package metadata was found for (bitsandbytes|torchao)|No module named '(torchao|optimum|bitsandbytes)",
        "pip install 'wansweep[quant]'",
    ),
    (r"[Nn]o GPU|accelerator|requires CUDA|No viable backend|on cpu", "needs a GPU that has it"),
    (r"one GPU;", "a machine with more GPUs, or cluster=auto with more nodes"),
    (r"NCCL|gloo", "install torch from pytorch.org's builds, which have it"),
    (r"ffmpeg", "pip install --force-reinstall imageio-ffmpeg"),
)
_ELSE = "run it alone to see all of its message: python -m wansweep.trial.trying {lever}"


def levers(abilities: list[Ability]) -> Iterator[Finding]:
    """A finding a lever."""
    for ability in abilities:
        state = State.OK if ability.runs else State.PROBLEM if ability.lever in VITAL else State.NOT_HERE
        if ability.runs and ability.why:
            fix = "expect less from gangs here; NVLink or a shared PCIe switch would serve them better"
            yield Finding(area="levers", what=ability.lever, state=State.WARN, detail=ability.why, fix=fix)
        else:
            fix = "" if ability.runs else fix_for(ability)
            yield Finding(area="levers", what=ability.lever, state=state, detail=ability.why or "runs", fix=fix)


def fix_for(ability: Ability) -> str:
    """What mends a lever that does not run."""
    found = (fix for pattern, fix in _FIXES if re.search(pattern, ability.why))
    return next(found, _ELSE.format(lever=ability.lever))
