"""The nouns of telemetry: a Reading, a Sample, a Value, why one is missing, and the table of what is sampled.

Time is CLOCK_MONOTONIC in seconds everywhere, which on Linux `time.monotonic` and `time.perf_counter` share and which is one
clock for all processes of a machine. How samples become values is join.py; how they rest on disk is trace.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Self

HOST = "host"


def host_device(pid: int) -> str:
    """The device name under which the samples of one process tree stand; figures of the whole machine stand under ``host``."""
    return f"{HOST}:{pid}"


class Missing(StrEnum):
    """Why a figure is null. A zero is only ever written when zero was measured."""

    UNSUPPORTED = "unsupported"
    NO_PERMISSION = "no_permission"
    TOO_SHORT = "too_short"
    NO_SAMPLE = "no_sample"
    GAP = "gap"
    ERROR = "error"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One figure read once, outside any series: a number, or why there is none."""

    value: float | None
    why: Missing | None = None

    def __post_init__(self) -> None:
        assert (self.value is None) == (self.why is not None), self

    @classmethod
    def missing(cls, why: Missing) -> Self:
        """A reading that did not come off."""
        return cls(value=None, why=why)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One telemetry reading of one metric.

    Attributes:
        t_s: When, on CLOCK_MONOTONIC; of an interval metric, the interval's end.
        device: GPU UUID as NVML writes it (``GPU-...``), ``host``, or ``host:<pid>`` for a process tree.
        metric: A name in `QUANTITY`.
        value: In the unit that ends the name; null with ``why``.
        why: Null when there is a value.
        since_s: Start of the interval that the value is the average of; null for a point or a counter.
    """

    t_s: float
    device: str
    metric: str
    value: float | None
    why: Missing | None = None
    since_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """What a metric was over one window.

    Attributes:
        value: Mean over time; of a counter the increase; of flags every bit that was seen. Null with ``why``.
        why: Null when there is a value.
        n_samples: Samples the value was made from.
        coverage: Share of the window, 0 to 1, that samples speak for.
        max: Largest sample; null for counters and flags.
    """

    value: float | None
    why: Missing | None
    n_samples: int
    coverage: float
    max: float | None

    def __post_init__(self) -> None:
        assert (self.value is None) == (self.why is not None), self


class Kind(Enum):
    """What one sample of a metric says."""

    INTERVAL = "the average since the sample before"
    GAUGE = "the state at that moment"
    COUNTER = "the total since some start; only differences mean anything"
    FLAGS = "bits that are set at that moment"


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """One metric that is sampled.

    Attributes:
        name: Ends in its unit.
        kind: What one sample says.
        period_s: How often the source really changes; asking faster gives the same number again.
    """

    name: str
    kind: Kind
    period_s: float


# Periods: GPM "greater than 100 ms" (nvml.h); utilisation 1/6 to 1 s by product (nvml.h), the series itself tells; energy about
# 100 ms (ml.energy blog, measured); nvmlDeviceGetPowerUsage is a 1 s mean since Ampere (nvml.h).
GPU_QUANTITIES: tuple[Quantity, ...] = (
    Quantity(name="sm_active_pct", kind=Kind.INTERVAL, period_s=0.1),
    Quantity(name="sm_occupancy_pct", kind=Kind.INTERVAL, period_s=0.1),
    Quantity(name="tensor_active_pct", kind=Kind.INTERVAL, period_s=0.1),
    Quantity(name="dram_active_pct", kind=Kind.INTERVAL, period_s=0.1),
    Quantity(name="pcie_tx_bytes_per_s", kind=Kind.INTERVAL, period_s=0.1),
    Quantity(name="pcie_rx_bytes_per_s", kind=Kind.INTERVAL, period_s=0.1),
    Quantity(name="nvlink_tx_bytes_per_s", kind=Kind.INTERVAL, period_s=0.1),
    Quantity(name="nvlink_rx_bytes_per_s", kind=Kind.INTERVAL, period_s=0.1),
    Quantity(name="gpu_busy_pct", kind=Kind.INTERVAL, period_s=1 / 6),
    Quantity(name="sm_clock_mhz", kind=Kind.GAUGE, period_s=0.1),
    Quantity(name="mem_clock_mhz", kind=Kind.GAUGE, period_s=0.1),
    Quantity(name="power_w", kind=Kind.GAUGE, period_s=0.1),
    Quantity(name="power_1s_w", kind=Kind.GAUGE, period_s=1.0),
    Quantity(name="temperature_c", kind=Kind.GAUGE, period_s=0.1),
    Quantity(name="device_used_bytes", kind=Kind.GAUGE, period_s=0.1),
    Quantity(name="device_reserved_bytes", kind=Kind.GAUGE, period_s=0.1),
    Quantity(name="pcie_gen", kind=Kind.GAUGE, period_s=2.0),
    Quantity(name="pcie_width", kind=Kind.GAUGE, period_s=2.0),
    Quantity(name="compute_processes", kind=Kind.GAUGE, period_s=2.0),
    Quantity(name="throttle_reasons", kind=Kind.FLAGS, period_s=0.1),
    Quantity(name="energy_j", kind=Kind.COUNTER, period_s=0.1),
    Quantity(name="throttle_power_s", kind=Kind.COUNTER, period_s=0.1),
    Quantity(name="throttle_thermal_s", kind=Kind.COUNTER, period_s=0.1),
    Quantity(name="throttle_sync_boost_s", kind=Kind.COUNTER, period_s=0.1),
    Quantity(name="throttle_board_limit_s", kind=Kind.COUNTER, period_s=0.1),
    Quantity(name="throttle_sw_thermal_s", kind=Kind.COUNTER, period_s=0.1),
    Quantity(name="throttle_hw_thermal_s", kind=Kind.COUNTER, period_s=0.1),
    Quantity(name="throttle_hw_power_brake_s", kind=Kind.COUNTER, period_s=0.1),
)
HOST_QUANTITIES: tuple[Quantity, ...] = (
    Quantity(name="host_pss_bytes", kind=Kind.GAUGE, period_s=0.2),
    Quantity(name="host_rss_bytes", kind=Kind.GAUGE, period_s=0.2),
    Quantity(name="host_anonymous_bytes", kind=Kind.GAUGE, period_s=0.2),
    Quantity(name="host_cpu_s", kind=Kind.COUNTER, period_s=0.2),
    Quantity(name="host_available_bytes", kind=Kind.GAUGE, period_s=0.2),
    Quantity(name="swap_used_bytes", kind=Kind.GAUGE, period_s=0.2),
    Quantity(name="sampler_tick_s", kind=Kind.GAUGE, period_s=0.1),
)
QUANTITY: dict[str, Quantity] = {quantity.name: quantity for quantity in (*GPU_QUANTITIES, *HOST_QUANTITIES)}
