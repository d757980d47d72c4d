"""How long a rank waited for the others: the collectives of diffusers, of fully_shard and of our own, each between two marks.

Marks are the trial's clock. On a CPU gloo blocks, so they enclose the exchange; on a GPU they lie in the compute stream, before the
collective and after the wait for it, so what overlaps with computing does not count. Both hold the wait for the slowest rank. Copying out
what fully_shard gathered is counted with its wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch.distributed as dist
import torch.distributed._functional_collectives as funcol
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

from wansweep.trial.clock import Clock, Mark

# Looked up by diffusers (context_parallel, attention_dispatch), by trial.guidance and by torch's FSDP at every call.
_COLLECTIVES = ((funcol, "all_to_all_single"), (funcol, "all_gather_tensor"), (dist, "all_gather"))
_GATHERS = ((FSDPParamGroup, "unshard"), (FSDPParamGroup, "wait_for_unshard"))


class Communication:
    """Collects the waits of a stage.

    Args:
        clock: Of the trial.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: list[tuple[Mark, Mark]] | None = None
        self._inside = False

    def begin(self) -> None:
        """A stage begins: from here on waits are kept."""
        self._heard = []

    def end(self) -> list[tuple[Mark, Mark]]:
        """The stage's waits, each from mark to mark."""
        heard, self._heard = self._heard or [], None
        return heard

    def seconds(self, waits: list[tuple[Mark, Mark]]) -> float:
        """Their lengths together, as the clock knows them by now."""
        return sum(self._clock.at_s(end) - self._clock.at_s(begin) for begin, end in waits)

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The collective between two marks, waited for: every caller named above uses the result at once."""

        @wraps(call)
        def measured(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (it stands for functions of any signature)
            if self._heard is None or self._inside:
                return call(*args, **kwargs)
            self._inside = True
            try:
                begin = self._clock.mark()
                result = call(*args, **kwargs)
                if isinstance(result, funcol.AsyncCollectiveTensor):
                    result = result.wait()
                self._heard.append((begin, self._clock.mark()))
            finally:
                self._inside = False
            return result

        return measured


@contextmanager
def watched(clock: Clock) -> Iterator[Communication]:
    """Every collective of this process goes through a `Communication` while the ``with`` lasts."""
    communication = Communication(clock)
    with ExitStack() as patches:
        for owner, name in (*_COLLECTIVES, *_GATHERS):
            patches.enter_context(patch.object(owner, name, communication.timed(getattr(owner, name))))
        yield communication
