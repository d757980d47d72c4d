"""What can be said of a case before it runs: the rules that no machine changes."""

from __future__ import annotations

from wansweep.case import Case, Model
from wansweep.plan.geometry import as_run, degree_problems, shape_problems


def problems(case: Case) -> list[str]:
    """Every reason why the case can run nowhere, one line each: the field, its value, the rule and the nearest valid choice."""
    found = [f"{name}={value} is under {low}; nearest: {low}" for name, value, low in _lower_bounds(case) if value < low]
    if case.shift <= 0:
        found.append(f"shift={case.shift} is not above 0; the official shifts are 5.0 and 12.0")
    if case.model is Model.TI2V_5B and case.guidance_2 is not None:
        found.append(f"guidance_2={case.guidance_2}: {case.model} has one expert; leave it null")
    if found:
        return found
    return shape_problems(case) or degree_problems(as_run(case))


def _lower_bounds(case: Case) -> tuple[tuple[str, int, int], ...]:
    return (("steps", case.steps, 1), ("gpus", case.gpus, 1), ("ulysses", case.ulysses, 1), ("seed", case.seed, 0))
