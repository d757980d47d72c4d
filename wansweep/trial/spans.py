"""The parts of loading: seconds of open, read, cast and host-to-device within Model_Initialization."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch

from wansweep.record import Figure
from wansweep.telemetry.samples import Missing


class Span(StrEnum):
    """A part of loading; the value names its figure in the stage.

    OPEN reads configs and headers, builds the modules without memory and maps the files. READ pulls the mapped weights in from disk or
    page cache. CAST changes their number format. FILL gives random weights their values where they will be. H2D places them: to the
    device, or under the hooks that will.
    """

    OPEN = "open_s"
    READ = "read_s"
    CAST = "cast_s"
    FILL = "fill_s"
    H2D = "h2d_s"


class Spans:
    """Seconds by part. Each ends with a wait for the device, since a copy from pinned memory returns before it is done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[Span, float] = {}

    @contextmanager
    def __call__(self, span: Span) -> Iterator[None]:
        """Times what runs inside the ``with``; a part that comes again adds up."""
        begin_s = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._seconds[span] = self._seconds.get(span, 0.0) + time.perf_counter() - begin_s

    def figures(self) -> dict[str, Figure]:
        """Each part's figure by name; ``not_applicable`` for one that this source of weights does not have."""
        return {
            str(span): Figure(value=self._seconds[span]) if span in self._seconds else Figure(value=None, why=Missing.NOT_APPLICABLE)
            for span in Span
        }
