"""Cases of real networks at the official settings, for the planner's tests."""

from __future__ import annotations

from tests.conftest import make_a14b, make_case
from wansweep.case import Case, Model, Task


def five(**fields: object) -> Case:
    """TI2V-5B, 121 frames of 704p, 50 steps."""
    return make_case(**{"weights": "hub", "steps": 50, **fields})


def large(**fields: object) -> Case:
    """T2V-A14B, 81 frames of 720p, 40 steps."""
    return make_a14b(**{"weights": "hub", "steps": 40, **fields})


def small(**fields: object) -> Case:
    """T2V-A14B at 480p."""
    return large(**{"width": 832, "height": 480, **fields})


def image(**fields: object) -> Case:
    """I2V-A14B, 81 frames of 720p."""
    return large(**{"model": Model.I2V_A14B, "task": Task.I2V, "shift": 5.0, **fields})
