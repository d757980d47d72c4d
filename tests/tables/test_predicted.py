from __future__ import annotations

import polars as pl
import pytest

from tests.plan.cases import large
from wansweep.tables.frames import stages_frame, summary_frame
from wansweep.tables.predicted import error, with_predictions


def test_the_plans_figures_stand_in_the_summarys_columns() -> None:
    cases = [large(), large(frames=17)]
    summary = summary_frame(cases, [], stages_frame([]))
    row = {"predicted_total_s": 12.5, "predicted_step_s": None, "predicted_peak_bytes": 7}
    told = with_predictions(summary, {cases[0].id: row})
    assert told["predicted_total_s"].to_list() == [12.5, None]
    assert told["predicted_step_s"].to_list() == [None, None]
    assert told["predicted_peak_bytes"].to_list() == [7.0, None]
    assert told.schema == summary.schema
    assert with_predictions(summary, {}).equals(summary)
    assert isinstance(told, pl.DataFrame)


@pytest.mark.parametrize(("predicted", "measured", "off"), [(11.0, 10.0, 0.1), (9.0, 10.0, -0.1), (None, 1.0, None), (1.0, None, None)])
def test_an_error_is_positive_where_too_much_was_predicted(predicted: float | None, measured: float | None, off: float | None) -> None:
    assert error(predicted, measured) == (None if off is None else pytest.approx(off))
