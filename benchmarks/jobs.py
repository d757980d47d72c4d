"""Trials to pack, drawn: many small cases and few large ones, of log-normal length."""

from __future__ import annotations

import random

from wansweep.plan.job import Job


def jobs(seed: int, count: int, *, median_s: float) -> list[Job]:
    """So many of 1, 2, 4 and 8 GPUs, in three groups of weights."""
    draw = random.Random(seed)
    sizes = [draw.choices([1, 2, 4, 8], [4, 3, 2, 1])[0] for _ in range(count)]
    return [
        Job(key=str(n), ranks=size, slots=size, seconds=median_s * draw.lognormvariate(0, 1), group=str(draw.randrange(3)))
        for n, size in enumerate(sizes)
    ]
