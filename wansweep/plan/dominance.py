"""Which case needs no less memory a GPU than another, by its fields alone: what one that did not fit says of those that have not run.

A partial order: more frames, a larger picture, more videos at once, less offload, fewer GPUs, everything else equal. It says nothing of two
cases that differ otherwise.
"""

from __future__ import annotations

from dataclasses import fields

from wansweep.case import Case
from wansweep.levers import Offload

# Each keeps on the device no more than those before it. Both group modes hold what they stream, sequential a layer of it; the expert modes
# keep T5 and VAE, which model offload does not.
_LEAST_OFFLOAD_FIRST = {
    Offload.NONE: 0,
    Offload.EXPERT_PINNED: 1,
    Offload.EXPERT: 1,
    Offload.MODEL: 2,
    Offload.GROUP_BLOCK: 3,
    Offload.GROUP_LEAF: 4,
    Offload.SEQUENTIAL: 5,
}
# Larger needs no less; and the degrees, of which fewer need no less.
_MORE = ("frames", "width", "height", "batch")
_FEWER = ("gpus", "ulysses", "ring")
# No matter for memory: how long it runs, what is drawn, and what only moves time.
_NO_MATTER = ("steps", "shift", "guidance_2", "prompt", "negative_prompt", "seed", "name", "label", "solver", "offload")
_EQUAL = tuple(field.name for field in fields(Case) if field.name not in {*_MORE, *_FEWER, *_NO_MATTER})


def kind(case: Case) -> tuple[object, ...]:
    """What must be equal for two cases to be compared at all."""
    return tuple(getattr(case, name) for name in _EQUAL)


def needs_no_less(case: Case, other: Case) -> bool:
    """Whether a case needs at least the memory a GPU that another needs; so a case needs no less than itself."""
    if kind(case) != kind(other):
        return False
    more = all(getattr(case, name) >= getattr(other, name) for name in _MORE)
    fewer = all(getattr(case, name) <= getattr(other, name) for name in _FEWER)
    return more and fewer and _LEAST_OFFLOAD_FIRST[case.offload] <= _LEAST_OFFLOAD_FIRST[other.offload]
