"""The door to NVML: opening it, the reasons it gives, and what a device says of itself once.

Everything asks by device UUID: NVML counts in PCI order, CUDA by default in order of speed, Ray writes bare indices, and on a
mixed machine the three disagree. Repeated readings are gpu_reader.py. Names and numbers: nvml.h of CUDA 13.3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

from wansweep.telemetry.samples import Missing, Reading

T = TypeVar("T")

# nvmlReturn_t, pinned here. Everything else is Missing.ERROR: a lost GPU (15), a reset (16), unknown (999).
_REASONS = {
    3: Missing.UNSUPPORTED,  # NOT_SUPPORTED
    4: Missing.NO_PERMISSION,  # also after minutes of good answers (DCGM issue 214), so it is looked at in every sample
    6: Missing.NO_SAMPLE,  # NOT_FOUND: nothing new in a buffer
    9: Missing.UNSUPPORTED,  # DRIVER_NOT_LOADED
    12: Missing.UNSUPPORTED,  # LIBRARY_NOT_FOUND
    13: Missing.UNSUPPORTED,  # FUNCTION_NOT_FOUND: an older driver
    21: Missing.NO_SAMPLE,  # NO_DATA
    25: Missing.UNSUPPORTED,  # ARGUMENT_VERSION_MISMATCH
    26: Missing.UNSUPPORTED,  # DEPRECATED
    27: Missing.NO_SAMPLE,  # NOT_READY
}
INVALID_ARGUMENT = 2


def reason(code: int) -> Missing:
    """What an nvmlReturn_t other than success means for a figure."""
    return _REASONS.get(code, Missing.ERROR)


def ask(call: Callable[[], T]) -> T | Missing:
    """The call's answer, or why there is none; the only place where NVML's exceptions are caught."""
    try:
        return call()
    except pynvml.NVMLError as error:
        return reason(int(error.value))
    except pynvml.NVMLLibraryMismatchError:  # no NVMLError: a struct that this driver does not know
        return Missing.UNSUPPORTED


@contextmanager
def library() -> Iterator[Missing | None]:
    """NVML, open inside the block: null when it answers, else why it does not (no driver: ``unsupported``)."""
    failed = ask(pynvml.nvmlInit)
    try:
        yield failed
    finally:
        if failed is None:
            ask(pynvml.nvmlShutdown)


def handle(uuid: str) -> Any | Missing:  # noqa: ANN401  (an opaque pointer of an untyped library)
    """NVML's handle of the device, or why there is none.

    Args:
        uuid: ``GPU-...`` as NVML writes it; torch leaves the prefix out, and both are taken.
    """
    full = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    found = ask(lambda: pynvml.nvmlDeviceGetHandleByUUID(full))
    return Missing.ERROR if found is Missing.NO_SAMPLE else found  # NOT_FOUND means a wrong UUID here


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """What a device says of itself once. Null where it gives no answer.

    Attributes:
        uuid: As NVML writes it.
        name: As NVML writes it.
        memory_bytes: All of it, the driver's reserved part included; CUDA sees less.
        compute_capability: ``9.0``.
        ecc: Whether ECC is on; it takes memory and bandwidth on GDDR cards.
        mig: Whether the card is partitioned.
        persistence: Whether the driver stays loaded between processes.
        power_limit_w: Enforced limit.
        pcie_gen, pcie_width: Link as it is now; idle cards train down, so the figure under load is a sampled one.
        pcie_gen_max, pcie_width_max: What card and slot can do.
        sm_clock_max_mhz, mem_clock_max_mhz: Highest clocks.
        gpm: Whether the device has GPM, and so SM activity (Hopper and later).
    """

    uuid: str
    name: str | None
    memory_bytes: int | None
    compute_capability: str | None
    ecc: bool | None
    mig: bool | None
    persistence: bool | None
    power_limit_w: float | None
    pcie_gen: int | None
    pcie_width: int | None
    pcie_gen_max: int | None
    pcie_width_max: int | None
    sm_clock_max_mhz: int | None
    mem_clock_max_mhz: int | None
    gpm: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """Versions of the driver: its own, and the CUDA it can run (``13.0``)."""

    version: str | None
    cuda: str | None

    @property
    def branch(self) -> int | None:
        """The branch that decides what field ids mean: 580 of ``580.159.03``."""
        head = (self.version or "").split(".")[0]
        return int(head) if head.isdigit() else None


def driver() -> Driver:
    """Versions of the driver; NVML must be open."""
    cuda = _known(ask(pynvml.nvmlSystemGetCudaDriverVersion_v2))
    return Driver(
        version=_known(ask(pynvml.nvmlSystemGetDriverVersion)),
        cuda=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
    )


def uuids() -> tuple[str, ...]:
    """Every device of the machine in PCI order, those that do not answer left out; NVML must be open."""
    count = _known(ask(pynvml.nvmlDeviceGetCount)) or 0
    found = [ask(functools.partial(_uuid_at, index)) for index in range(count)]
    return tuple(uuid for uuid in found if not isinstance(uuid, Missing))


def gpu(uuid: str) -> Gpu | Missing:
    """What the device says of itself; NVML must be open. Missing when it cannot be found at all."""
    device = handle(uuid)
    if isinstance(device, Missing):
        return device

    def say(call: Callable[..., Any], *arguments: object) -> Any | None:  # noqa: ANN401
        return _known(ask(lambda: call(device, *arguments)))

    capability = say(pynvml.nvmlDeviceGetCudaComputeCapability)
    memory = say(pynvml.nvmlDeviceGetMemoryInfo)
    limit_mw = say(pynvml.nvmlDeviceGetEnforcedPowerLimit)
    return Gpu(
        uuid=say(pynvml.nvmlDeviceGetUUID) or uuid,
        name=say(pynvml.nvmlDeviceGetName),
        memory_bytes=None if memory is None else int(memory.total),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        ecc=_on(say(pynvml.nvmlDeviceGetEccMode)),
        mig=_on(say(pynvml.nvmlDeviceGetMigMode)),
        persistence=_on(say(pynvml.nvmlDeviceGetPersistenceMode)),
        power_limit_w=None if limit_mw is None else limit_mw / 1e3,
        pcie_gen=say(pynvml.nvmlDeviceGetCurrPcieLinkGeneration),
        pcie_width=say(pynvml.nvmlDeviceGetCurrPcieLinkWidth),
        pcie_gen_max=say(pynvml.nvmlDeviceGetMaxPcieLinkGeneration),
        pcie_width_max=say(pynvml.nvmlDeviceGetMaxPcieLinkWidth),
        sm_clock_max_mhz=say(pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM),
        mem_clock_max_mhz=say(pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_MEM),
        gpm=_has_gpm(device),
    )


def _has_gpm(device: object) -> bool:
    """Whether the device says it has GPM. Asked, never guessed from its name: some GeForce cards have it."""
    answer = ask(lambda: pynvml.nvmlGpmQueryDeviceSupport(device))
    return not isinstance(answer, Missing) and bool(answer.isSupportedDevice)


class EnergyCounter:
    """Energy of one device, for stage boundaries; NVML must be open for as long as it is read.

    NVML counts mJ since the driver loaded, not since we started: only differences mean anything (`join.increase`). The counter moves
    about every 100 ms (ml.energy blog), so the difference over a shorter stage may be 0 and is no figure.
    """

    def __init__(self, uuid: str) -> None:
        self._device = handle(uuid)

    def read_j(self) -> Reading:
        """The counter now, in J."""
        device = self._device
        energy_mj = device if isinstance(device, Missing) else ask(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device))
        return Reading.missing(energy_mj) if isinstance(energy_mj, Missing) else Reading(value=energy_mj / 1e3)


def _uuid_at(index: int) -> str:
    return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))


def _known(answer: T | Missing) -> T | None:
    return None if isinstance(answer, Missing) else answer


def _on(mode: Any | None) -> bool | None:  # noqa: ANN401
    """Modes come as a flag, or as a pair of current and pending."""
    if mode is None:
        return None
    return bool(mode[0] if isinstance(mode, list | tuple) else mode)
