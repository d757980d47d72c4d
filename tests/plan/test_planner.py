from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.conftest import make_a14b, make_case
from tests.plan.cases import five, large
from wansweep.levers import Cache, Offload
from wansweep.plan.planner import PlannedCase, Verdict, dominated, plan
from wansweep.plan.traces import Traces
from wansweep.sweep import Hardware

TRACES = Traces()


def on(card: str, *cases, gpus: int = 1) -> list[PlannedCase]:
    return plan(cases, Hardware(name=card, gpus=gpus), traces=TRACES)


CONTRACT = {
    "case_id",
    "label",
    "gpus",
    "verdict",
    "reason",
    "predicted_flop",
    "predicted_peak_bytes",
    "predicted_host_bytes",
    "predicted_total_s",
    "predicted_step_s",
}


def test_a_plan_has_every_case_in_order_with_the_contracts_names() -> None:
    rows = [row.as_row() for row in plan([make_case(), make_a14b(label="b")], Hardware(name="auto", gpus=1))]
    assert [row["label"] for row in rows] == ["case", "b"]
    assert all(CONTRACT | {"model", "width", "steps", "offload"} <= row.keys() for row in rows)


def test_flop_of_a_real_case_are_those_of_its_forwards_and_a_miniature_has_none() -> None:
    real, tiny = plan([make_a14b(weights="hub", steps=40), make_a14b()], Hardware(name="auto", gpus=1))
    # 40 steps of 13.05 PFLOP, and the T5 and the VAE beside them.
    assert real.predicted_flop is not None
    assert 40 * 13.04e15 < real.predicted_flop < 40 * 13.1e15
    assert tiny.predicted_flop is None


def test_a_case_for_more_gpus_than_the_hardware_has_is_skipped_with_the_reason() -> None:
    case = make_a14b(gpus=4, ulysses=4)
    short, enough, auto = (plan([case], Hardware(name=name, gpus=gpus))[0] for name, gpus in (("h100", 2), ("h100", 8), ("auto", 1)))
    assert (short.verdict, short.reason) == (Verdict.SKIP, "needs 4 GPUs, hardware.gpus=2")
    assert enough.verdict is auto.verdict is Verdict.RUN


def test_a_known_card_gets_every_prediction_and_the_row_is_json() -> None:
    (row,) = on("h100", large(offload=Offload.MODEL))
    told = json.loads(json.dumps(row.as_row()))
    assert told.keys() >= CONTRACT
    assert all(told[name] is not None for name in told if name.startswith("predicted_"))
    assert told["predicted_peak_stage"] == "Inference"
    assert told["predicted_peak_bytes"] < told["predicted_device_bytes"]
    parts = ("load", "text_encode", "preprocess", "swap", "vae_decode", "compile")
    assert told["predicted_total_s"] == pytest.approx(sum(told[f"predicted_{part}_s"] for part in parts) + 40 * told["predicted_step_s"])


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_without_a_card_only_flop_are_predicted(name: str) -> None:
    row = plan([large()], Hardware(name=name, gpus=1), traces=TRACES)[0].as_row()
    assert [key for key, value in row.items() if key.startswith("predicted_") and value is not None] == ["predicted_flop"]


def test_a_case_that_will_not_fit_is_skipped_with_what_takes_how_much() -> None:
    (row,) = on("rtx4090", large(offload=Offload.MODEL))
    assert row.verdict is Verdict.SKIP
    assert row.reason.startswith("will not fit by 11.9 GiB: Inference takes 35.4 of 23.5 GiB")


def test_a_case_within_the_predictions_error_is_tried_and_says_so() -> None:
    # The official code runs it on a 4090, at 22.9 GiB.
    (row,) = on("rtx4090", five(offload=Offload.MODEL))
    assert (row.verdict, row.reason) == (Verdict.RUN, "")
    assert row.note.startswith("tight: ")


def test_a_combination_that_no_card_can_run_is_invalid_before_it_is_too_large() -> None:
    (row,) = on("rtx4090", large(vae_slicing=True))
    assert row.reason.startswith("invalid: vae_slicing")


def test_what_needs_no_less_than_a_case_that_will_not_fit_is_skipped_with_it() -> None:
    misfit, within = (
        PlannedCase(case=case, verdict=Verdict.RUN, reason="", predicted_flop=1) for case in (large(label="short"), large(frames=85))
    )
    misfit = replace(misfit, verdict=Verdict.SKIP, reason="will not fit by 1.0 GiB")
    smaller = replace(within, case=large(frames=77))
    first, longer, shorter = dominated([misfit, within, smaller])
    assert first == misfit
    assert (longer.verdict, longer.reason) == (Verdict.SKIP, "dominated: needs no less than short, which will not fit")
    assert shorter == smaller


def test_a_cache_that_looks_at_the_content_is_noted() -> None:
    (row,) = on("h200", large(cache=Cache.MAG))
    assert row.predicted_total_s is None
    assert row.predicted_peak_bytes is not None
    assert "decides by the content" in row.note


def test_seeds_and_names_share_a_prediction_and_keep_their_own_row() -> None:
    cases = [large(seed=seed, label=f"seed{seed}", name=f"n{seed}") for seed in (1, 2)]
    rows = on("h200", *cases)
    assert [row.case for row in rows] == cases
    assert [row.as_row()["case_id"] for row in rows] == [case.id for case in cases]
    assert replace(rows[0], case=cases[1]) == rows[1]
