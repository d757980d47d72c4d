"""Tables on a terminal: nothing in them is cut short, whatever its width."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.text import Text

from tests.conftest import make_case
from tests.makers import make_record, make_stages, with_figures
from wansweep.config import read_request
from wansweep.report import recommendation, terminal
from wansweep.report.text import Shown, as_text, fitted
from wansweep.tables.constraints import Limits
from wansweep.tables.recommendation import Objective, recommend
from wansweep.tables.results import Results, tabulate
from wansweep.telemetry.environment import environment
from wansweep.units import GIB


def run() -> Results:
    cases = [
        make_case(label=f"t2v_a14b-1280x720x81-s40-group_block_{seed}", seed=42, offload=mode) for seed, mode in enumerate(("none", "model"))
    ]
    records = [make_record(case, stages=with_figures(make_stages(case), peak_allocated_bytes=100 * GIB)) for case in cases]
    return tabulate(replace(read_request(["+sweep=quick"]).sweep, cases=tuple(cases)), environment(), records, ())


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_what_has_no_room_is_left_out_whole(width: int) -> None:
    results = run()
    limits = Limits(vram_bytes=24e9)
    for text in (
        terminal.render(results, width=width),
        recommendation.render(recommend(results, limits, Objective.TIME), results, limits, width=width),
    ):
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert re.search(r"\s7\.75\s", text)  # the time of either case
        assert "100.00" in text


def test_a_file_has_every_column_however_wide_its_cases() -> None:
    label = "x" * 250
    table = fitted([Shown(heading="Case", cells=[Text(label)]), Shown(heading="Time (s)", cells=["1.00"], number=True, spare=9)], width=None)
    assert re.search(rf"{label} +1\.00", as_text(table))


def test_the_most_spare_column_goes_first_and_the_first_column_is_folded() -> None:
    columns = [
        Shown(heading="Case", cells=["a" * 30]),
        Shown(heading="kept", cells=["1234567890"], number=True),
        Shown(heading="second", cells=["bbbbbbbb"], spare=1),
        Shown(heading="first", cells=["cccccccc"], spare=2),
    ]
    told = as_text(fitted(columns, width=45), width=45)
    assert "bbbbbbbb" in told
    assert "cccccccc" not in told
    assert "Too narrow for: first" in told
    narrow = as_text(fitted(columns, width=32), width=32)
    assert "1234567890" in narrow
    assert "bbbbbbbb" not in narrow
    assert "".join(re.findall("a{2,}", narrow)) == "a" * 30
