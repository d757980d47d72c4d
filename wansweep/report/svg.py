"""The picture of what fits and how fast as an SVG, for a README or a pull request; both are read on light pages and on dark ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import vl_convert

from wansweep.errors import ConfigError
from wansweep.report import pictures, plots
from wansweep.report.library import VERSION
from wansweep.tables.results import Results

WIDTH = 760
# Of a page that is not ours: a background, since what lies behind may be dark, and the light theme's ink.
_THEME, _BACKGROUND = "light", "#ffffff"


def render(results: Results) -> str:
    """VRAM against time of every case that ended ok, with the frontier and card sizes, as SVG text.

    Raises:
        ConfigError: There is nothing to draw.
    """
    picture = next(one for one in plots.pictures(results) if one.key == "cost")
    if picture.chart is None:
        raise ConfigError([f"{results.sweep.name}: no picture, {picture.why}"])
    chart = json.loads(json.dumps(picture.chart), object_hook=_coloured)
    look = {**pictures.config(_THEME), "background": _BACKGROUND, "padding": 12}
    spec: dict[str, Any] = {**chart, "width": WIDTH, "datasets": picture.data, "config": look}
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=VERSION)
    return svg + "\n"


def _coloured(part: dict[str, Any]) -> Mapping[str, Any]:
    """Names of colours, alone or in a list, as the theme's. Data stands beside the chart, so no text of a user's is taken for one."""
    palette = pictures.PALETTES[_THEME]

    def colour(value: object) -> object:
        if isinstance(value, list):
            return [colour(one) for one in value]
        return palette[value.removeprefix("colour:")] if isinstance(value, str) and value.startswith("colour:") else value

    return {name: colour(value) for name, value in part.items()}
