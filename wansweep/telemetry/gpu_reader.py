"""Reads one GPU again and again: every metric of `samples.GPU_QUANTITIES` that a device can give, as samples.

Three traps shape it. Ids are pinned in the tables below with the driver from which they hold, because NVML has renumbered some
(fields 269-271 were 251-253 up to CUDA 13.0, and 269-271 meant something else there). GPM answers per metric, with a return
code and now and then NaN. And a device may refuse or vanish at any moment, so every reading stands alone.
Nothing here blocks: nvmlDeviceGetPcieThroughput, which waits 20 ms by design, is not used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pynvml

from wansweep.telemetry.nvml import INVALID_ARGUMENT, ask, driver, handle, reason
from wansweep.telemetry.samples import GPU_QUANTITIES, Missing, Sample
from wansweep.units import MIB

GPM_INTERVAL_S = 0.1  # "should be greater than 100 ms due to the internal sample refresh rate" (nvml.h)
BUSY_PERIOD_S = 0.5  # how often the driver's buffer is drained; it fills itself at 1 to 6 Hz and more
BUSY_SILENCE_S = 2.5  # nothing new for so long: this device does not buffer, ask for the plain rate
SLOW_PERIOD_S = 2.0  # link state and processes
HANDLE_RETRY_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Id:
    """One pinned id: of a GPM metric or a field, what it is here, what to multiply by, and the first driver branch it holds for."""

    id: int
    metric: str
    scale: float = 1.0
    driver: int = 0


# nvmlGpmMetricId_t; rates come in MiB/s.
_GPM = (
    _Id(id=2, metric="sm_active_pct"),
    _Id(id=3, metric="sm_occupancy_pct"),
    _Id(id=5, metric="tensor_active_pct"),
    _Id(id=10, metric="dram_active_pct"),
    _Id(id=20, metric="pcie_tx_bytes_per_s", scale=MIB),
    _Id(id=21, metric="pcie_rx_bytes_per_s", scale=MIB),
    _Id(id=60, metric="nvlink_rx_bytes_per_s", scale=MIB),
    _Id(id=61, metric="nvlink_tx_bytes_per_s", scale=MIB),
)
# NVML_FI_DEV_*: power in mW, throttle times in ns.
_FIELDS = (
    _Id(id=186, metric="power_w", scale=1e-3),
    _Id(id=74, metric="throttle_power_s", scale=1e-9),
    _Id(id=75, metric="throttle_thermal_s", scale=1e-9),
    _Id(id=76, metric="throttle_sync_boost_s", scale=1e-9),
    _Id(id=77, metric="throttle_board_limit_s", scale=1e-9),
    _Id(id=269, metric="throttle_sw_thermal_s", scale=1e-9, driver=590),
    _Id(id=270, metric="throttle_hw_thermal_s", scale=1e-9, driver=590),
    _Id(id=271, metric="throttle_hw_power_brake_s", scale=1e-9, driver=590),
)
# nvmlValueType_t to the member of the union; 2 is unsigned long, 6 unsigned short.
_UNION = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


class GpuReader:
    """Reads one device; NVML must be open for as long as it lives.

    Attributes:
        uuid: The device, as given.
        driver_s: What the reads so far cost by the driver's own account, in s (latencyUsec of the field values).
        driver_reads: Over how many reads.
    """

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.driver_s = 0.0
        self.driver_reads = 0
        self._branch = driver().branch or 0
        self._unsupported: set[str] = set()
        self._handle: Any | Missing = Missing.NO_SAMPLE
        self._handle_s = -math.inf
        self._gpm_new: Any = None
        self._gpm_old: Any = None
        self._gpm_s: float | None = None
        self._busy_us = int(time.time() * 1e6)  # the buffer's older content is not of this trial
        self._busy_seen = False
        self._busy_s = self._news_s = time.monotonic()
        self._rate_s: float | None = None
        self._slow_s = -math.inf

    def read(self, *, all_now: bool = False) -> list[Sample]:
        """Everything the device says now. One that is lost says nothing but why, and is asked again half a second later.

        Args:
            all_now: Also what is read less often.
        """
        now_s = time.monotonic()
        if isinstance(self._handle, Missing) and now_s - self._handle_s >= HANDLE_RETRY_S:
            self._handle, self._handle_s = handle(self.uuid), now_s
        if isinstance(self._handle, Missing):
            return [self._null(now_s, quantity.name, self._handle) for quantity in GPU_QUANTITIES]
        return [*self._gpm(), *self._fields(now_s), *self._gauges(now_s), *self._busy(now_s, all_now), *self._slow(now_s, all_now)]

    def close(self) -> None:
        """Frees the GPM buffers."""
        for sample in (self._gpm_new, self._gpm_old):
            if sample is not None:
                ask(partial(pynvml.nvmlGpmSampleFree, sample))
        self._gpm_new = self._gpm_old = None

    def _null(self, t_s: float, metric: str, why: Missing) -> Sample:
        return Sample(t_s=t_s, device=self.uuid, metric=metric, value=None, why=why)

    def _point(self, t_s: float, metric: str, answer: float | Missing) -> Sample:
        if isinstance(answer, Missing):
            return self._null(t_s, metric, answer)
        if not math.isfinite(answer):
            return self._null(t_s, metric, Missing.NO_SAMPLE)
        return Sample(t_s=t_s, device=self.uuid, metric=metric, value=float(answer))

    def _once(self, metric: str, call: Callable[[], float]) -> float | Missing:
        """The call's answer; one that is unsupported is not made again."""
        if metric in self._unsupported:
            return Missing.UNSUPPORTED
        answer = ask(call)
        if answer is Missing.UNSUPPORTED:
            self._unsupported.add(metric)
        return answer

    def _gpm(self) -> Iterator[Sample]:
        now_s = time.monotonic()
        if "sm_active_pct" in self._unsupported or (self._gpm_s is not None and now_s - self._gpm_s < GPM_INTERVAL_S):
            return
        taken = self._gpm_take()
        t_s = (now_s + time.monotonic()) / 2
        if isinstance(taken, Missing):
            if taken is Missing.UNSUPPORTED:
                self._unsupported.add("sm_active_pct")
            self._gpm_s = None  # the next good sample starts afresh: no interval reaches over a hole
            yield from (self._null(t_s, row.metric, taken) for row in _GPM)
            return
        since_s, self._gpm_s = self._gpm_s, t_s
        if since_s is not None:
            for row, answer in zip(_GPM, self._gpm_metrics(), strict=True):
                if isinstance(answer, Missing):
                    yield self._null(t_s, row.metric, answer)
                else:
                    yield Sample(t_s=t_s, device=self.uuid, metric=row.metric, value=answer * row.scale, since_s=since_s)
        self._gpm_old, self._gpm_new = self._gpm_new, self._gpm_old

    def _gpm_take(self) -> Missing | None:
        """Fills the newer of the two buffers."""
        if self._gpm_new is None:
            support = ask(lambda: pynvml.nvmlGpmQueryDeviceSupport(self._handle))
            if isinstance(support, Missing):  # asked again, unless it is a driver before GPM
                return support
            if not support.isSupportedDevice:
                return Missing.UNSUPPORTED
            buffers = ask(lambda: (pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()))
            if isinstance(buffers, Missing):
                return buffers
            self._gpm_old, self._gpm_new = buffers
        answer = ask(lambda: pynvml.nvmlGpmSampleGet(self._handle, self._gpm_new))
        return answer if isinstance(answer, Missing) else None

    def _gpm_metrics(self) -> list[float | Missing]:
        request = pynvml.c_nvmlGpmMetricsGet_t()
        request.version, request.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, len(_GPM)
        request.sample1, request.sample2 = self._gpm_old, self._gpm_new
        for i, row in enumerate(_GPM):
            request.metrics[i].metricId = row.id
        failed = ask(lambda: pynvml.nvmlGpmMetricsGet(request))
        if isinstance(failed, Missing):
            return [failed] * len(_GPM)
        return [_per_metric(int(m.nvmlReturn), float(m.value)) for m in request.metrics[: len(_GPM)]]

    def _fields(self, t_s: float) -> Iterator[Sample]:
        rows = [row for row in _FIELDS if row.metric not in self._unsupported and self._branch >= row.driver]
        answers = ask(lambda: pynvml.nvmlDeviceGetFieldValues(self._handle, [(row.id, 0) for row in rows]))
        if isinstance(answers, Missing):
            yield from (self._null(t_s, row.metric, answers) for row in rows)
            return
        self.driver_s += sum(max(0, int(answer.latencyUsec)) for answer in answers) / 1e6
        self.driver_reads += 1
        for row, answer in zip(rows, answers, strict=True):
            member = _UNION.get(int(answer.valueType))
            value = _per_metric(int(answer.nvmlReturn), math.nan if member is None else float(getattr(answer.value, member)))
            if value is Missing.UNSUPPORTED:
                self._unsupported.add(row.metric)
            yield self._point(t_s, row.metric, value if isinstance(value, Missing) else value * row.scale)
        for row in _FIELDS:
            if self._branch < row.driver:
                yield self._null(t_s, row.metric, Missing.UNSUPPORTED)

    def _gauges(self, t_s: float) -> Iterator[Sample]:
        gpu = self._handle
        yield self._point(t_s, "sm_clock_mhz", self._once("sm_clock_mhz", lambda: pynvml.nvmlDeviceGetClockInfo(gpu, 1)))
        yield self._point(t_s, "mem_clock_mhz", self._once("mem_clock_mhz", lambda: pynvml.nvmlDeviceGetClockInfo(gpu, 2)))
        celsius = self._once("temperature_c", lambda: pynvml.nvmlDeviceGetTemperatureV(gpu, 0))
        if celsius is Missing.UNSUPPORTED:  # TemperatureV is there from R570 on
            celsius = self._once("temperature_old", lambda: pynvml.nvmlDeviceGetTemperature(gpu, 0))
        yield self._point(t_s, "temperature_c", celsius)
        energy_mj = self._once("energy_j", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu))
        yield self._point(t_s, "energy_j", energy_mj if isinstance(energy_mj, Missing) else energy_mj / 1e3)
        reasons = self._once("throttle_reasons", lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))
        yield self._point(t_s, "throttle_reasons", reasons)
        if "power_w" in self._unsupported:  # a mean over 1 s since Ampere, so it stands under a name of its own
            power_mw = self._once("power_1s_w", lambda: pynvml.nvmlDeviceGetPowerUsage(gpu))
            yield self._point(t_s, "power_1s_w", power_mw if isinstance(power_mw, Missing) else power_mw / 1e3)
        # Version 2, because the first counts what the driver reserves as used.
        memory = ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2))
        yield self._point(t_s, "device_used_bytes", memory if isinstance(memory, Missing) else memory.used)
        yield self._point(t_s, "device_reserved_bytes", memory if isinstance(memory, Missing) else memory.reserved)

    def _busy(self, now_s: float, all_now: bool) -> Iterator[Sample]:
        """The driver's own history of utilisation; where it keeps none, the plain rate."""
        if now_s - self._busy_s < BUSY_PERIOD_S and not all_now:
            return
        self._busy_s = now_s
        answer = ask(lambda: pynvml.nvmlDeviceGetSamples(self._handle, 1, self._busy_us))
        if isinstance(answer, Missing):
            if answer is Missing.UNSUPPORTED or (answer is Missing.NO_SAMPLE and now_s - self._news_s >= BUSY_SILENCE_S):
                yield self._busy_rate(now_s)
            elif answer is not Missing.NO_SAMPLE:
                yield self._null(now_s, "gpu_busy_pct", answer)
            return
        self._rate_s = None
        offset_s = time.time() - time.monotonic()  # its stamps are wall-clock us
        for sample in sorted(answer[1], key=lambda s: int(s.timeStamp)):
            stamp_us = int(sample.timeStamp)
            if stamp_us <= self._busy_us:
                continue
            t_s, since_s = stamp_us / 1e6 - offset_s, self._busy_us / 1e6 - offset_s
            value = float(getattr(sample.sampleValue, _UNION.get(int(answer[0]), "uiVal")))
            self._busy_us, self._news_s, seen, self._busy_seen = stamp_us, now_s, self._busy_seen, True
            if not seen:  # where the first one's interval began is not known
                continue
            yield Sample(t_s=t_s, device=self.uuid, metric="gpu_busy_pct", value=value, since_s=since_s)

    def _busy_rate(self, now_s: float) -> Sample:
        rates = ask(lambda: pynvml.nvmlDeviceGetUtilizationRates(self._handle))
        since_s, self._rate_s = self._rate_s or now_s - BUSY_PERIOD_S, now_s
        if isinstance(rates, Missing):
            return self._null(now_s, "gpu_busy_pct", rates)
        return Sample(t_s=now_s, device=self.uuid, metric="gpu_busy_pct", value=float(rates.gpu), since_s=since_s)

    def _slow(self, now_s: float, all_now: bool) -> Iterator[Sample]:
        if now_s - self._slow_s < SLOW_PERIOD_S and not all_now:
            return
        self._slow_s, gpu = now_s, self._handle
        yield self._point(now_s, "pcie_gen", ask(lambda: pynvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu)))
        yield self._point(now_s, "pcie_width", ask(lambda: pynvml.nvmlDeviceGetCurrPcieLinkWidth(gpu)))
        # Only how many: the driver gives pids of the host or of the container, by version, and matching them has misled others.
        yield self._point(now_s, "compute_processes", ask(lambda: len(pynvml.nvmlDeviceGetComputeRunningProcesses(gpu))))


def _per_metric(code: int, value: float) -> float | Missing:
    """One of several values that a call brought, each with a return code of its own; NaN is what GPM gives for a stale sample."""
    if code == INVALID_ARGUMENT:  # an id that this driver does not know
        return Missing.UNSUPPORTED
    if code != 0:
        return reason(code)
    return Missing.NO_SAMPLE if math.isnan(value) else value
