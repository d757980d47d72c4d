"""Reaching a Ray cluster: start one on this machine, or join one that runs; and what its nodes can hold."""

from __future__ import annotations

import functools
import logging
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import ray_constants, services

from wansweep.errors import ClusterError
from wansweep.schedule.guard import guarded
from wansweep.schedule.signals import ours
from wansweep.sweep import Cluster

# Of a cluster that we start; results are small, so the default of 30 % of RAM is not needed.
OBJECT_STORE_BYTES = 256 * 1024**2
CONNECT_TIMEOUT_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# HTTP/2 (RFC 9113, 3.4): the client's preface with empty settings; a server begins with its own, whose frame is of type 4.
_SETTINGS = b"\x04"
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0" * 5
# Share of a CPU that a trial's controller takes beside its ranks; it sleeps.
CONTROLLER_CPU = 0.1

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A snapshot of all trials for Tuner.restore, which nobody asks for: 20 kB a trial, every few seconds.
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    # Tune's default of 1 for a searcher of one's own starts trials one by one (33.7 s against 22.9 s for 16 cases).
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    # NVML counts GPUs in PCI order; CUDA must too.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What the cluster's nodes offer trials.

    Attributes:
        gpus: GPUs of each node, largest first; all zero on a CPU cluster.
        cpus: CPUs of each node, in the same order.
        names: Ray's id of each node, in the same order.
    """

    gpus: tuple[int, ...]
    cpus: tuple[float, ...]
    names: tuple[str, ...]

    @property
    def on_gpus(self) -> bool:
        """Whether ranks reserve GPUs; on a cluster without one they reserve CPUs."""
        return max(self.gpus, default=0) > 0

    @property
    def slots(self) -> float:
        """What all nodes together offer, in what ranks reserve: GPUs, or CPUs."""
        return float(sum(self.gpus)) if self.on_gpus else float(sum(self.cpus))

    def nodes(self, *, gpus: bool) -> dict[str, float]:
        """GPUs or CPUs of each node, by its id."""
        return dict(zip(self.names, (float(n) for n in self.gpus) if gpus else self.cpus, strict=True))

    def rank_cpus(self, ranks: int) -> float:
        """CPUs that one rank of a gang reserves: at most one with its part of the controller, and so few that every GPU can be used.

        With GPUs, any mix of gangs must fit beside each other, each with a controller; without, this gang alone must.
        """
        with_gpus = [cpus / gpus for cpus, gpus in zip(self.cpus, self.gpus, strict=True) if gpus]
        share = min(1.0, *with_gpus) if self.on_gpus else min(1.0, self.cpus[0] / ranks)
        controller = CONTROLLER_CPU if self.on_gpus else CONTROLLER_CPU / ranks
        return math.floor(max(share - controller, share / 2) * 1e4) / 1e4

    def need(self, ranks: int) -> float:
        """What a gang takes of `slots`."""
        return float(ranks) if self.on_gpus else ranks * self.rank_cpus(ranks) + CONTROLLER_CPU

    def refusal(self, ranks: int, *, straddle: bool = False) -> str:
        """Why a gang of this size can never be held, by one node or by all that it may straddle; empty when it can. Ray would wait for ever."""
        if not self.on_gpus or ranks <= self.gpus[0]:
            return ""
        if straddle:
            return f"needs {ranks} GPUs; all nodes together have {sum(self.gpus)}" if ranks > sum(self.gpus) else ""
        enough = ranks <= sum(self.gpus)
        way_out = "; cluster.straddle=true spreads a gang over nodes" if enough else ""
        return f"needs {ranks} GPUs on one node; the largest node has {self.gpus[0]}{way_out}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """A cluster in use.

    Attributes:
        capacity: What its nodes offer.
        dashboard: Address of the Ray dashboard, or empty.
        started: Whether we started it, and so stop it.
        scratch: Folder on the driver's node for what dies with the sweep.
        node: Ray's id of the driver's node.
    """

    capacity: Capacity
    dashboard: str
    started: bool
    scratch: Path
    node: str = ""

    def told(self) -> str:
        """What a user at the terminal should know of the cluster, on one line."""
        capacity = self.capacity
        gpus = sum(capacity.gpus)
        has = f"{gpus} GPU{'s' if gpus > 1 else ''}" if capacity.on_gpus else f"{sum(capacity.cpus):g} CPUs, no GPU"
        token = "" if os.environ.get("RAY_AUTH_MODE") == "disabled" else " (it asks for a token: `ray get-auth-token` prints it)"
        dashboard = f"{self.dashboard}{token}" if self.dashboard else "not running"
        return f"Ray {'started' if self.started else 'joined'}: {has}; dashboard {dashboard}"


@contextmanager
def connect(cluster: Cluster) -> Iterator[Connection]:
    """A connection while the ``with`` lasts. A cluster that we started is stopped with it.

    Raises:
        ClusterError: The address does not answer.
    """
    os.environ.update(ENVIRONMENT)
    # Not under the run folder: Ray's sockets must have paths of at most 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="wansweep-"))
    with guarded(scratch) as guard:
        try:
            with ours():
                joined = cluster.address != "local" and _joined(cluster.address)
            if not joined and cluster.address not in ("local", "auto"):
                way_out = "start one with `ray start --head`, or use cluster=local"
                raise ClusterError(f"cluster.address={cluster.address}: no Ray cluster answers there; {way_out}")
            if not joined:
                with ours():
                    _start(cluster, scratch)
                guard.watch()
            address = ray._private.worker.get_dashboard_url()
            yield Connection(
                capacity=capacity_now(),
                dashboard=f"http://{address}" if address else "",
                started=not joined,
                scratch=scratch,
                node=ray.get_runtime_context().get_node_id(),
            )
        finally:
            ray.shutdown()
            shutil.rmtree(scratch, ignore_errors=True)


def _joined(asked: str) -> bool:
    """Whether a running cluster was joined.

    Raises:
        ClusterError: RAY_ADDRESS, which ``auto`` goes by, names one that does not answer.
    """
    address = _running() if asked == "auto" else asked
    if not address or not answers(address):
        return False
    host, _, port = address.rpartition(":")
    # Ray takes 127.0.0.1 for this node's public address, where a cluster that keeps to the loopback does not listen.
    only_here = host in LOOPBACK and not answers(f"{services.get_node_ip_address()}:{port}")
    try:
        with _loopback() if only_here else nullcontext():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError:
        return False
    return True


def _running() -> str:
    """Address of the cluster that ``auto`` means: RAY_ADDRESS, or one that Ray finds on this machine; empty without one."""
    if (named := os.environ.get("RAY_ADDRESS", "")) not in ("", "auto", "local"):
        if not answers(named):
            raise ClusterError(f"cluster=auto: RAY_ADDRESS={named}: no Ray cluster answers there; unset it, or use cluster=local")
        return named
    try:
        return services.get_ray_address_from_environment("auto", None) or ""
    except ConnectionError:
        return ""


def answers(address: str) -> bool:
    """Whether a server that speaks gRPC, as Ray's does, is at host:port. Asked first: Ray itself tries any address for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S) as asked:
            asked.settimeout(CONNECT_TIMEOUT_S)
            asked.sendall(_HELLO)
            return asked.recv(4, socket.MSG_WAITALL)[3:] == _SETTINGS
    except (OSError, ValueError, OverflowError):
        return False


def _start(cluster: Cluster, scratch: Path) -> None:
    """Start a cluster that nobody outside this machine can reach.

    Raises:
        ClusterError: It does not come up.
    """
    try:
        with _loopback(), _apart():
            _init(cluster, scratch)
    except Exception as error:  # what Ray raises when its processes do not come up
        told = " ".join(str(error).split())[:200]
        raise ClusterError(f"cluster.address=local: Ray did not start ({told}); a machine that is overloaded needs another try") from error


@contextmanager
def _loopback() -> Iterator[None]:
    """While the ``with`` lasts, Ray takes 127.0.0.1 for the node's address, as it does by itself on macOS and Windows.

    Every port of every process of its follows the node's address; ``_node_ip_address="127.0.0.1"`` would be resolved to a public one.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _apart() -> Iterator[None]:
    """While the ``with`` lasts, each process that Ray starts is a group: a signal to the driver's own, say a batch system's, is ours."""
    popen = services.ConsolePopen
    services.ConsolePopen = functools.partial(popen, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = popen


def _init(cluster: Cluster, scratch: Path) -> None:
    ray.init(
        address="local",
        num_gpus=cluster.gpus,
        # Where it is installed: a machine that cannot have it still runs sweeps.
        include_dashboard=None,
        dashboard_host="127.0.0.1",
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(scratch / "ray"),
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def capacity_now() -> Capacity:
    """What the nodes that are alive offer."""
    nodes = [(node["Resources"], node["NodeID"]) for node in ray.nodes() if node["Alive"]]
    nodes.sort(key=lambda node: (node[0].get("GPU", 0), node[0].get("CPU", 0)), reverse=True)
    return Capacity(
        gpus=tuple(int(has.get("GPU", 0)) for has, _ in nodes),
        cpus=tuple(float(has.get("CPU", 0)) for has, _ in nodes),
        names=tuple(name for _, name in nodes),
    )
