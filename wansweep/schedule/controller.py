"""A trial as Tune sees it: a controller in bundle 0 that never touches CUDA, with one rank actor a GPU in the other bundles.

Tune never sees an error of a case: the gang turns whatever happens into a record. Tune's own failure handling, retries and resume are
not used, because they cannot tell an OOM from a kill and know no time-outs (docs/design.md has the measurements).
"""

from __future__ import annotations

from typing import Any

import ray
from ray.tune import PlacementGroupFactory, Trainable

from wansweep.record import to_json
from wansweep.schedule.cluster import CONTROLLER_CPU
from wansweep.schedule.gang import Gang
from wansweep.schedule.order import Order
from wansweep.schedule.progress import PROGRESS

# How often a running trial tells the driver what it is doing.
REPORT_EVERY_S = 1.0
# A label that Ray gives every node.
NODE_LABEL = "ray.io/node-id"


class CaseTrial(Trainable):  # type: ignore[misc]
    """The controller of one trial after another."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Bundle 0 for the controller, one bundle a rank, each on the node that the packer chose for it."""
        order: Order = config["order"]
        rank = {"CPU": order.rank_cpus, **({"GPU": 1} if order.on_gpus else {})}
        bundles = [{"CPU": CONTROLLER_CPU}, *[rank] * order.case.gpus]
        strategy = "STRICT_PACK" if order.one_node else "PACK"
        if not order.place:
            return PlacementGroupFactory(bundles, strategy=strategy)
        nodes = [{NODE_LABEL: node} for node in (order.place[0], *order.place)]
        return PlacementGroupFactory(bundles, strategy=strategy, bundle_label_selector=nodes)

    def setup(self, config: dict[str, Any]) -> None:
        """Keep the order; nothing is started here, because Tune may build an actor and then throw it away."""
        self._order: Order = config["order"]
        self._gang: Gang | None = None
        self._warm_ranks: list[Any] = []

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next order in the same process and placement group."""
        self._order = new_config["order"]
        return True

    def __repr__(self) -> str:
        # Tune gives a controller one trial after another, and Ray takes its name once: the ranks name the case.
        return f"controller of trials with {self._order.reserves}"

    def step(self) -> dict[str, Any]:
        """Wait for the gang a while; the record when the trial is over, else what it is doing."""
        # As the process is called in the dashboard's Cluster page, `ps` and `top`; Ray itself calls it by its class, whatever trial it has.
        ray._raylet.setproctitle(f"ray::Controller of {self._order.title}")
        if self._gang is None:
            self._gang = Gang(self._order, warm=self._warm_ranks)
        ended = self._gang.wait(REPORT_EVERY_S)
        if ended is None:
            now = self._gang.progress()
            return {"done": False, "progress": PROGRESS.dump_json(now)}
        record = self._gang.record(ended)
        record, self._warm_ranks = self._gang.finish(record)
        self._gang = None
        return {"done": True, "record": to_json(record), "lost": ended.lost}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: Tune asks when a trial is done; what matters is in the record."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing, for the same reason."""

    def cleanup(self) -> None:
        """End the ranks and the sampler with the controller."""
        if self._gang is not None:
            self._gang.end()
        for rank in self._warm_ranks:
            ray.kill(rank)
