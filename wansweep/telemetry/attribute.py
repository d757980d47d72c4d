"""Samples of a trial to figures of its stages: pure arithmetic over what the sampler wrote and when the stages were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from wansweep.record import Figure, Stage
from wansweep.telemetry.join import Series, by_metric, value_over
from wansweep.telemetry.samples import GPU_QUANTITIES, HOST, Missing, Sample, Value, host_device

# Told of every stage, with the reason where there is no value; anything else only where there is one.
ALWAYS = ("sm_active_pct", "gpu_busy_pct")
MACHINE = ("host_available_bytes", "swap_used_bytes")


def attribute(
    stages: Sequence[Stage], samples: Sequence[Sample], *, origin_s: float, gpus: Mapping[int, str], pids: Mapping[int, int]
) -> tuple[Stage, ...]:
    """The stages with the sampled figures of their windows added to those read at their edges.

    Args:
        stages: Of all ranks; one without an end is left as it is.
        samples: Of the node.
        origin_s: CLOCK_MONOTONIC at the stages' zero.
        gpus: Rank to the UUID of its GPU; a rank without one has no GPU figures.
        pids: Rank to its process.
    """
    series = by_metric(samples)
    return tuple(
        stage if stage.duration_s is None else replace(stage, figures={**stage.figures, **_sampled(stage, series, origin_s, gpus, pids)})
        for stage in stages
    )


def _sampled(
    stage: Stage, series: Mapping[tuple[str, str], Series], origin_s: float, gpus: Mapping[int, str], pids: Mapping[int, int]
) -> dict[str, Figure]:
    assert stage.duration_s is not None
    window = (origin_s + stage.start_s, origin_s + stage.start_s + stage.duration_s + stage.paused_s)

    def over(device: str, metric: str) -> Value:
        return value_over(series, device=device, metric=metric, start_s=window[0], end_s=window[1])

    found: dict[str, Figure] = {}
    for quantity in GPU_QUANTITIES:
        if stage.rank in gpus:
            value = over(gpus[stage.rank], quantity.name)
        else:
            value = Value(value=None, why=Missing.UNSUPPORTED, n_samples=0, coverage=0.0, max=None)
        # Read at the edges the counter is sharper than from samples, and at an edge it is not blurred; take the samples' only in its place.
        better = quantity.name not in stage.figures or stage.figures[quantity.name].value is None
        if (value.value is not None and better) or quantity.name in ALWAYS:
            found[quantity.name] = _figure(value)
    tree = host_device(pids.get(stage.rank, 0))
    found["host_bytes"] = _host(over(tree, "host_pss_bytes"), over(tree, "host_rss_bytes"))
    found |= {metric: _figure(value) for metric in MACHINE if (value := over(HOST, metric)).value is not None}
    return found


def _host(pss: Value, rss: Value) -> Figure:
    """Memory of the rank's process tree: PSS, or RSS where the kernel does not let PSS be read.

    RSS as it was at a stage's end stays a figure of its own: beside the PSS of longer stages it would look like growth.
    """
    return _figure(rss if pss.value is None and rss.value is not None else pss)


def _figure(value: Value) -> Figure:
    return Figure(value=value.value, why=value.why, n_samples=value.n_samples, coverage=round(value.coverage, 3), max=value.max)
