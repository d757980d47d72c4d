"""Seconds and CPU seconds of the named parts of a process's work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Times each ``with watch(name):`` of a process, all of its threads together."""

    def __init__(self) -> None:
        self._figures: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        yield
        self._figures |= {f"{name}_s": time.perf_counter() - begin_s, f"{name}_cpu_s": time.process_time() - begin_cpu_s}

    def figures(self) -> dict[str, float]:
        """``<name>_s`` and ``<name>_cpu_s`` of each part."""
        return dict(self._figures)
