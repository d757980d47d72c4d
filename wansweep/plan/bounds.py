"""The bounds of a case's fields, one by one: numbers and texts that no model, library or file system takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from wansweep.case import Case


def problems(case: Case) -> list[str]:
    """One line for each field out of its bounds: its value, the rule and the nearest valid choice."""
    found = [f"{name}={value} is under {low}; nearest: {low}" for name, value, low in _lower(case) if value < low]
    found += [f"{name}={value} is above {high}; nearest: {high}" for name, value, high in _upper(case) if value > high]
    if not 0 < case.shift < math.inf:
        found.append(f"shift={case.shift} is not above 0; the official shifts are 5.0 and 12.0")
    if case.cache_threshold is not None and not 0 < case.cache_threshold < math.inf:
        found.append(f"cache_threshold={case.cache_threshold} is not above 0; diffusers' defaults are 0.05 and 0.06")
    for name, scale in (("guidance", case.guidance), ("guidance_2", case.guidance_2)):
        if scale is not None and not 0 <= scale < math.inf:
            found.append(f"{name}={scale} is no finite number of at least 0; the official ones are 3.0 to 5.0")
    return [*found, *(f"{name}={value!r} {rule}" for name, value, rule in _texts(case))]


def _lower(case: Case) -> tuple[tuple[str, int, int], ...]:
    counts = (("steps", case.steps, 1), ("gpus", case.gpus, 1), ("seed", case.seed, 0), ("batch", case.batch, 1))
    degrees = (("ulysses", case.ulysses, 1), ("ring", case.ring, 1), ("cfg_parallel", case.cfg_parallel, 1))
    interval = 2 if case.cache_interval is None else case.cache_interval
    return (*counts, *degrees, ("group_blocks", case.group_blocks, 1), ("cache_interval", interval, 2))


def _upper(case: Case) -> tuple[tuple[str, int, int], ...]:
    """Far above what any machine does, and far below where arithmetic on sizes takes minutes or a library overflows."""
    sizes = (("width", case.width, 16_384), ("height", case.height, 16_384), ("frames", case.frames, 100_001))
    counts = (("steps", case.steps, 1_000_000), ("batch", case.batch, 1024), ("gpus", case.gpus, 4096))
    degrees = (("ulysses", case.ulysses, 4096), ("ring", case.ring, 4096), ("cfg_parallel", case.cfg_parallel, 4096))
    # torch.manual_seed takes 64 bits.
    return (*sizes, *counts, *degrees, ("seed", case.seed, 2**63 - 1))


def _texts(case: Case) -> Iterator[tuple[str, str, str]]:
    """Texts that cannot be what they are to be, with the rule."""
    if not case.weights or not case.weights.isprintable():
        yield "weights", case.weights, "is no folder's name; take tiny, random, hub, or a folder in diffusers' layout"
    if not re.fullmatch(r"[\w.-]+", case.compile_backend):
        yield "compile_backend", case.compile_backend, "is no name of a torch.compile backend; inductor is the default"
    for name in ("transformer_gguf", "transformer_2_gguf"):
        if (value := getattr(case, name)) and not value.isprintable():
            yield name, value, "is no file's name"
    for name, text in (("prompt", case.prompt), ("negative_prompt", case.negative_prompt)):
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
            yield name, text, "holds what is no text, a null character or half a surrogate pair; leave it out"
