from __future__ import annotations

import pytest

from benchmarks.published import PUBLISHED, Published
from wansweep.hardware import GPUS

# Seconds and memory of every row of published figures that the project was given.
SECONDS = (
    *(534.7, 231.3, 157.2, 524.8, 227.3, 160.1, 326.9, 91.7, 51.5, 1041.5, 288.7, 155.1, 327.8, 92.4, 52.9, 1055.9, 290.4, 159.0),
    *(796.5, 798.4, 119.5, 0.80, 366, 974, 216, 751, 191, 671, 4.22, 6.77, 5.91, 9.86, 57.4, 25.5, 4.60, 3.77, 4.92, 4.11, 2.15),
)
PEAKS_GIB = (
    *(22.9, 22.6, 22.6, 22.8, 22.6, 22.6, 41.3, 40.9, 26.3, 59.8, 51.7, 37.1, 41.0, 40.8, 26.1, 59.7, 51.6, 37.0),
    *(78_940 / 1024, 51_894 / 1024, 74_370 / 1024, 71, 81, 50, 57, 35, 43),
)


@pytest.mark.parametrize(("field", "given"), [("seconds", SECONDS), ("peak_gib", PEAKS_GIB)])
def test_no_published_figure_vanishes_from_the_benchmark(field: str, given: tuple[float, ...]) -> None:
    found = [getattr(row, field) for row in PUBLISHED if not row.further]
    assert [value for value in given if value not in found] == []
    assert len([value for value in found if value is not None]) >= len(given)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.case.label} {row.what} {row.gpu}")
def test_a_row_says_where_it_is_from_and_of_which_card_and_network(row: Published) -> None:
    assert row.source
    assert row.gpu in GPUS
    assert row.networks.experts == (1 if row.one_expert or row.case.model == "ti2v_5b" else 2)
