"""Presets: whose settings a case has. What is generated, not how: size, frames, steps, shift, guidance, solver, boundary, batch, seed.

A preset fills what a sweep leaves open, and it is a name that tables show. The name is taken from the finished case: one that departs from
the preset it began with, in a single setting, is custom; so no table can call two settings by one name. Levers that do not change what is
asked for (offload, attention, number formats ...) have columns of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wansweep.case import Case, Model, Preset
from wansweep.levers import Weights

Scalar = str | int | float | bool | None
Presets = Mapping[tuple[Preset, Model], "Settings"]
# Any task and size of the model may be a preset's; sizes are held by `Settings.sizes`.
_FREE = ("task", "width", "height")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A preset's settings of one model.

    Attributes:
        fields: Case fields that it fills, and that a case by its name has.
        boundary: Share of the schedule above which the high-noise expert runs.
        sizes: Other sizes that are the preset's too, as ``WIDTHxHEIGHT``.
    """

    fields: Mapping[str, Scalar]
    boundary: float | None
    sizes: tuple[str, ...] = ()

    def are_of(self, case: Case, boundary: float | None) -> bool:
        """Whether the case has these settings, with that boundary between its experts."""
        sizes = (*self.sizes, f"{self.fields.get('width')}x{self.fields.get('height')}")
        same = all(getattr(case, name) == value for name, value in self.fields.items() if name not in _FREE)
        return same and boundary == self.boundary and f"{case.width}x{case.height}" in sizes


def preset_of(case: Case, boundary: float | None, presets: Presets) -> Preset | None:
    """The preset whose settings the case has; null for a custom one."""
    return next((name for name in Preset if (found := presets.get((name, case.model))) and found.are_of(case, boundary)), None)


def told(case: Case) -> str:
    """How tables name the case's settings; a miniature has a preset's steps and schedule, not its size."""
    return (str(case.preset) if case.preset else "custom") + (" (miniature)" if case.preset and case.weights == Weights.TINY else "")
