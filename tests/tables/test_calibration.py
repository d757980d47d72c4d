"""Calibration: a card whose true rates are known is recovered from its stage times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.makers import make_stage
from tests.plan.cases import five, large, small
from wansweep.case import Case
from wansweep.hardware import GPUS
from wansweep.levers import Cache, Offload
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.rates import Calibration
from wansweep.plan.roofline import times
from wansweep.plan.traces import Traces
from wansweep.record import Outcome, RankFacts, Record, StageKind
from wansweep.tables.calibration import Learnt, calibrate

TRACES, GPU = Traces(), GPUS["h100"]
TRUE = Calibration(matmul=0.8, attention=1.3, vae=0.7, transfer=0.5)


def measured(case: Case, *, device: str = "NVIDIA H100 80GB HBM3", truth: Calibration = TRUE) -> Record:
    """A trial on a card with those true rates."""
    found = times(case, ARCHITECTURES[case.model], GPU, TRACES, calibration=truth)
    stages = [
        make_stage(case, StageKind.STEP_LOADING, 0.0, found.swap_s, step=0),
        make_stage(case, StageKind.VAE_DECODING, 0.0, found.vae_decode_s),
    ]
    stages += [make_stage(case, StageKind.STEP_INFERENCE, 0.0, found.step_s, step=step) for step in range(3)]
    rank = RankFacts(rank=0, device_uuid="GPU-1", device_name=device, device_total_bytes=80 * 2**30, cores=1.0)
    return Record(
        case=case,
        case_id=case.id,
        label=case.label,
        trial=0,
        outcome=Outcome.OK,
        reason="",
        resolved=None,
        stages=tuple(stages),
        started_utc="2026-01-01T00:00:00+00:00",
        startup_s=1.0,
        wall_s=1.0,
        warm=False,
        node="node",
        ranks=(rank,),
    )


def learnt(*records: Record) -> Learnt:
    found = calibrate(records, GPU, TRACES)
    assert found is not None
    return found


def test_true_rates_are_recovered_and_the_gain_is_shown() -> None:
    cases = [large(offload=Offload.EXPERT), small(), small(frames=17), five(), large(frames=49), five(frames=49)]
    found = learnt(*map(measured, cases))
    assert found.calibration.matmul == pytest.approx(0.8, rel=0.02)
    assert found.calibration.attention == pytest.approx(1.3, rel=0.02)
    assert found.calibration.vae == pytest.approx(0.7, rel=0.02)
    assert found.calibration.transfer == pytest.approx(0.5, rel=0.02)
    assert found.before > 0.05
    assert found.after < 0.005
    assert found.held_out is not None
    assert found.held_out[1] < 0.01 < found.held_out[0]
    assert "Calibrated on 6 trials: matmul x0.800, attention x1.300, vae x0.700, transfer x0.500" in found.lines()[0]
    assert "held out" in found.lines()[1]


def test_repeats_of_a_case_are_all_on_one_side_of_what_is_held_out() -> None:
    apart = [large(), small(), five(frames=49), small(frames=17)]
    repeats = [replace(measured(case, truth=Calibration(matmul=0.5)), trial=trial) for case in apart for trial in range(2)]
    # What the learners' cases taught holds for the others only as far as the cards are alike: here two of four are another card in truth.
    other = [replace(measured(case, truth=Calibration(matmul=2.0)), trial=trial) for case in apart[1::2] for trial in range(2)]
    mixed = [record for record in repeats if record.case_id not in {one.case_id for one in other}] + other
    mixed.sort(key=lambda record: [case.id for case in apart].index(record.case_id))
    found = learnt(*mixed)
    assert found.held_out is not None
    assert found.held_out[1] > 0.5
    assert learnt(*repeats[:6]).held_out is None  # three cases are too few to halve


def test_one_length_alone_gives_one_factor_for_both_parts() -> None:
    found = learnt(measured(large(), truth=Calibration(matmul=0.9, attention=0.9)))
    assert found.calibration.matmul == pytest.approx(found.calibration.attention) == pytest.approx(0.9)
    assert found.held_out is None
    assert found.calibration.transfer == 1.0


def test_only_trials_that_tell_of_the_card_are_learnt_from() -> None:
    strangers = [
        measured(large(), device="NVIDIA H200"),
        replace(measured(large()), outcome=Outcome.OOM),
        replace(measured(large()), case=large(weights="tiny")),
        replace(measured(large()), case=large(cache=Cache.PAB)),
        replace(measured(large()), case=large(offload=Offload.GROUP_LEAF)),
    ]
    assert calibrate(strangers, GPU, TRACES) is None
    assert learnt(*strangers, measured(small())).trials == 1
