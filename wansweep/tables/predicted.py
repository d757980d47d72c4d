"""Predictions of a plan beside what was measured, in the summary's columns and as errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

# Of the summary, in its order.
COLUMNS = ("predicted_total_s", "predicted_step_s", "predicted_peak_bytes")


def with_predictions(summary: pl.DataFrame, predictions: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """The summary with the columns of the plan; null where it says nothing."""
    if not predictions:
        return summary
    of_case = [predictions.get(case_id, {}) for case_id in summary["case_id"]]
    return summary.with_columns(pl.Series(name, [row.get(name) for row in of_case], dtype=pl.Float64()) for name in COLUMNS)


def error(predicted: float | None, measured: float | None) -> float | None:
    """Predicted over measured, less 1: positive where too much was predicted; null without both."""
    return predicted / measured - 1 if predicted is not None and measured else None
