"""Whether sweeps reach a Ray cluster, and what it would give them: joined or started as a sweep does it, and left again."""

from __future__ import annotations

from collections.abc import Iterator

from wansweep.doctor.finding import Finding, State
from wansweep.errors import ClusterError
from wansweep.sweep import Cluster


def ray(address: str, gpus: int) -> Iterator[Finding]:
    """The cluster, and whether it counts the GPUs that are there.

    Args:
        address: As ``cluster.address`` of a sweep.
        gpus: How many the driver shows on this machine.
    """
    from wansweep.schedule.cluster import connect

    try:
        with connect(Cluster(address=address, gpus=None, exclusive=False)) as connection:
            capacity = connection.capacity
            nodes = f"{len(capacity.cpus)} node{'s' if len(capacity.cpus) > 1 else ''}"
            yield Finding(area="ray", what="cluster", state=State.OK, detail=f"{connection.told()}; {nodes}")
            if connection.started and sum(capacity.gpus) != gpus:
                detail = f"Ray counts {sum(capacity.gpus)} GPUs, the driver shows {gpus}"
                fix = "unset CUDA_VISIBLE_DEVICES, or say how many: cluster.gpus=N"
                yield Finding(area="ray", what="GPUs", state=State.WARN, detail=detail, fix=fix)
    except ClusterError as error:
        fix = "start one with `ray start --head`, or use cluster=local, which starts its own"
        yield Finding(area="ray", what="cluster", state=State.PROBLEM, detail=str(error), fix=fix)
