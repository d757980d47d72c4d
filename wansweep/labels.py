"""Labels: what tables call a case that the sweep did not name. Safe as file names, and no two alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from wansweep.case import Case

# Always in a generated label, so never repeated there as an axis.
_IN_EVERY_LABEL = ("model", "width", "height", "frames", "steps")


def labelled(cases: Sequence[Case], *, varied: Sequence[str], group: str = "") -> list[Case]:
    """The cases with labels made of what they are and what varies: ``t2v_a14b-1280x720x81-s40-group_block``.

    A field that is null in a case is left out of its label.

    Args:
        cases: Without names.
        varied: Fields that they differ in, in the order to tell them.
        group: Begins each label, where several sweeps are run as one.
    """
    extra = [field for field in varied if field not in _IN_EVERY_LABEL]

    def label(case: Case) -> str:
        shape = f"{case.model}-{case.width}x{case.height}x{case.frames}-s{case.steps}"
        parts = [_part(field, getattr(case, field)) for field in extra if getattr(case, field) is not None]
        return "-".join([group, shape, *parts] if group else [shape, *parts])

    return [replace(case, label=label(case)) for case in cases]


def unique(cases: Sequence[Case]) -> list[Case]:
    """The cases, each with a label of its own: of two with one label the second has a piece of its id in it."""
    taken: set[str] = set()
    told = []
    for case in cases:
        label = case.label if case.label not in taken else f"{case.label}-{case.id[:6]}"
        taken.add(label)
        told.append(case if label == case.label else replace(case, label=label))
    return told


def _part(field: str, value: object) -> str:
    text = str(value) if isinstance(value, str) else f"{field}{value}"
    return re.sub(r"[^A-Za-z0-9._]+", "_", text)[:40]
