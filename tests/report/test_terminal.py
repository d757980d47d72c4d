"""The summary at every width: what is shown is whole, and what is not is named."""

from __future__ import annotations

import re

import pytest

from tests.conftest import make_case
from tests.makers import make_record
from tests.report.test_markdown import tabulated
from wansweep.record import Outcome
from wansweep.report import terminal

LABELS = ("ti2v_5b", "t2v_a14b-1280x720x81-s40-group_block", "t2v_a14b-1280x720x81-s40-group_leaf")


def rendered(width: int | None) -> list[str]:
    cases = [make_case(label=label, name=label, seed=seed) for seed, label in enumerate(LABELS)]
    ran = [make_record(case) for case in cases[:2]]
    return terminal.render(tabulated([*ran, make_record(cases[2], outcome=Outcome.OOM, reason="no room")]), width=width).splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 110, None])
def test_no_label_and_no_figure_is_cut_and_columns_without_room_are_named(width: int | None) -> None:
    lines = rendered(width)
    assert all(len(line) <= (width or 200) for line in lines)
    text = "\n".join(lines)
    assert "…" not in text
    assert "ti2v_5b" in text
    said = re.search(r"A wider terminal, and report.md, have: (.*)", " ".join(text.split()))
    for heading in ("GPUs", "Res", "Offload"):
        assert (heading in text.partition("no room")[0]) != (said is not None and heading in said[1])
    assert (said is None) == (width is None or width >= 110)


def test_a_long_label_goes_on_in_the_next_line_whole() -> None:
    # What stands in the first column of each row, and in no other.
    parts = [part[0] for line in rendered(80) if (part := re.findall(r"^  ?(\S+)(?=  |$)", line))]
    assert all(label in "".join(parts) for label in LABELS)
