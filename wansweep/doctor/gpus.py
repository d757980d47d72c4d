"""The GPUs as the driver and as torch see them, and whether driver, CUDA build and cards fit each other."""

from __future__ import annotations

import os
from collections.abc import Iterator

from wansweep.doctor.finding import Finding, State
from wansweep.telemetry import nvml
from wansweep.telemetry.nvml import Driver, Gpu
from wansweep.telemetry.samples import Missing
from wansweep.trial.ability import Torch
from wansweep.units import GIB

_CUDA_BUILD = "install a CUDA build of torch: pip install --force-reinstall torch --index-url (the line that pytorch.org gives for this driver)"


def machine() -> tuple[tuple[Gpu, ...], Driver | None, Missing | None]:
    """Every GPU that the driver shows, the driver's versions, and why there are none."""
    with nvml.library() as failed:
        if failed is not None:
            return (), None, failed
        found = [nvml.gpu(uuid) for uuid in nvml.uuids()]
        return tuple(gpu for gpu in found if isinstance(gpu, Gpu)), nvml.driver(), None


def gpus(found: tuple[Gpu, ...], failed: Missing | None, torch: Torch | None) -> Iterator[Finding]:
    """Each GPU with both views of it, and what is in one view alone."""
    seen = {device.uuid: device for device in torch.devices} if torch else {}
    if not found and not seen:
        why = "NVML answers, and there is none" if failed is None else f"NVML does not answer ({failed})"
        fix = "sweeps run in miniature on the CPU (weights=tiny); in a container, start it with the GPUs: docker run --gpus all"
        yield Finding(area="gpus", what="GPUs", state=State.NOT_HERE, detail=why, fix=fix)
        return
    for index, gpu in enumerate(found):
        yield _both_views(index, gpu, torch)
    for uuid in seen.keys() - {gpu.uuid for gpu in found}:
        detail = f"torch sees {seen[uuid].name} ({uuid}), NVML does not: nothing is measured on it"
        yield Finding(
            area="gpus", what=uuid, state=State.WARN, detail=detail, fix="give the container the driver's NVML: docker run --gpus all"
        )


def _both_views(index: int, gpu: Gpu, torch: Torch | None) -> Finding:
    device = next((device for device in torch.devices if device.uuid == gpu.uuid), None) if torch else None
    memory = f"{gpu.memory_bytes / GIB:.1f} GiB" if gpu.memory_bytes else "memory unknown"
    seen = f"{gpu.name or 'unnamed'}, {memory}, {gpu.uuid}"
    what = f"GPU {index}"
    if gpu.mig:
        fix = f"a rank takes a whole GPU; end MIG with: sudo nvidia-smi -i {index} -mig 0"
        return Finding(area="gpus", what=what, state=State.PROBLEM, detail=f"{seen}: is partitioned (MIG)", fix=fix)
    if torch is None:
        return Finding(area="gpus", what=what, state=State.WARN, detail=f"{seen}: torch did not say what it sees", fix="see levers below")
    if device is None:
        return _unseen(what, seen, torch)
    if device.refusal:
        return Finding(area="gpus", what=what, state=State.PROBLEM, detail=f"{seen}: no kernel runs on it: {device.refusal}", fix=_CUDA_BUILD)
    usable = f"torch sees {device.total_bytes / GIB:.1f} GiB of it, compute capability {device.capability}"
    return Finding(area="gpus", what=what, state=State.OK, detail=f"{seen}; {usable}")


def _unseen(what: str, seen: str, torch: Torch) -> Finding:
    """A GPU that the driver shows and torch does not: by whose doing."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.cuda is None:
        detail, fix = f"torch {torch.version} is a CPU build and does not see it", _CUDA_BUILD
    elif torch.refusal:
        detail, fix = f"torch {torch.version} cannot use CUDA: {torch.refusal}", "update the driver, or " + _CUDA_BUILD
    elif visible is not None:
        state = State.WARN if torch.devices else State.PROBLEM
        detail = f"CUDA_VISIBLE_DEVICES={visible} hides it from torch and from sweeps"
        return Finding(area="gpus", what=what, state=state, detail=f"{seen}: {detail}", fix="unset CUDA_VISIBLE_DEVICES")
    else:
        detail = f"torch {torch.version} does not see it"
        fix = "see what the driver says of it: nvidia-smi -q, sudo dmesg | grep -i xid"
    return Finding(area="gpus", what=what, state=State.PROBLEM, detail=f"{seen}: {detail}", fix=fix)


def driver(found: tuple[Gpu, ...], versions: Driver | None, torch: Torch | None) -> Iterator[Finding]:
    """Whether the driver can run what torch was built for, and whether it stays loaded."""
    if versions is None or not found:
        yield Finding(area="driver", what="driver", state=State.NOT_HERE, detail="no GPU that a driver shows")
        return
    has = f"driver {versions.version or 'unknown'} runs CUDA up to {versions.cuda or 'unknown'}"
    if torch and torch.cuda and versions.cuda:
        yield _fit(has, versions.cuda, torch)
    else:
        yield Finding(area="driver", what="driver", state=State.OK, detail=has)
    if any(gpu.persistence is False for gpu in found):
        detail = "persistence mode is off: the driver unloads between processes, and the first figures of a trial pay for it"
        yield Finding(area="driver", what="persistence", state=State.WARN, detail=detail, fix="sudo nvidia-smi -pm 1")


def _fit(has: str, can: str, torch: Torch) -> Finding:
    assert torch.cuda is not None
    built = f"{has}; torch {torch.version} was built for CUDA {torch.cuda}"
    (can_major, can_minor), (major, minor) = _numbers(can), _numbers(torch.cuda)
    fix = f"update the driver to one that runs CUDA {torch.cuda}, or {_CUDA_BUILD}"
    if can_major < major:
        return Finding(area="driver", what="CUDA", state=State.PROBLEM, detail=built, fix=fix)
    if (can_major, can_minor) < (major, minor):  # minor version compatibility: it runs, but not what compiles PTX at run time
        return Finding(
            area="driver", what="CUDA", state=State.WARN, detail=f"{built}: newer than the driver's; torch.compile may fail", fix=fix
        )
    return Finding(area="driver", what="CUDA", state=State.OK, detail=built)


def _numbers(version: str) -> tuple[int, int]:
    major, minor, *_ = f"{version}.0".split(".")
    return int(major), int(minor)
