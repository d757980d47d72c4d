"""What measured trials teach of a card: four factors on its rates, fitted to stage times, with the error before and after.

Few factors and no per-case ones, so that what is learnt carries over to cases that have not run; half of the cases are held out to show it.
A step is products and memory-bound kernels (one factor) and attention (another); they are told apart only by cases of different lengths.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from wansweep.hardware import Gpu, find
from wansweep.levers import Cache, Weights
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.flops import forwards
from wansweep.plan.rates import Calibration
from wansweep.plan.roofline import times
from wansweep.plan.traces import Traces, cache_file
from wansweep.record import Outcome, Record, StageKind

# Products and attention are told apart when this much of the one is in no proportion to the other.
_APART = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A measured trial beside what an uncalibrated plan says of it; seconds.

    Attributes:
        case_id: Of its case.
        step_s: Measured mean of a step.
        products_s, attention_s, rest_s: Predicted parts of a step; the rest is exchange between ranks.
        vae: Measured over predicted decode; null where it was not measured.
        transfer: Measured over predicted swaps; null where nothing swaps.
    """

    case_id: str
    step_s: float
    products_s: float
    attention_s: float
    rest_s: float
    vae: float | None
    transfer: float | None

    def predicted_s(self, calibration: Calibration) -> float:
        """A step as a calibrated plan says it."""
        return self.products_s / calibration.matmul + self.attention_s / calibration.attention + self.rest_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Learnt:
    """A calibration and what it gains; errors are medians of |predicted / measured - 1| of a step.

    Attributes:
        calibration: Fitted to all trials.
        trials: How many.
        before: Error uncalibrated.
        after: Error calibrated, on the same trials.
        held_out: Error before and after on the trials of one half of the cases, with factors of the other; null for fewer than four cases.
    """

    calibration: Calibration
    trials: int
    before: float
    after: float
    held_out: tuple[float, float] | None

    def lines(self) -> list[str]:
        """For the reader of a plan."""
        factors = ", ".join(f"{name} x{getattr(self.calibration, name):.3f}" for name in ("matmul", "attention", "vae", "transfer"))
        told = [f"Calibrated on {self.trials} trials: {factors}; median error of a step {100 * self.before:.1f} -> {100 * self.after:.1f} %."]
        if self.held_out:
            before, after = self.held_out
            told.append(f"On the half of the cases that was held out: {100 * before:.1f} -> {100 * after:.1f} %.")
        return told


def calibrate(records: Sequence[Record], gpu: Gpu, traces: Traces | None = None) -> Learnt | None:
    """What the records' trials on this card teach; null when none ended ok there with real networks."""
    known = Traces(cache_file()) if traces is None else traces
    trials = [trial for record in records if (trial := _trial(record, gpu, known))]
    known.save()
    if not trials:
        return None
    fitted = _fit(trials)
    held_out, cases = None, list(dict.fromkeys(trial.case_id for trial in trials))
    if len(cases) >= 4:  # whole cases: of repeats that lie on both sides the one would tell what the other is
        learner, judge = ([trial for trial in trials if trial.case_id in half] for half in (cases[::2], cases[1::2]))
        held_out = (_error(judge, Calibration()), _error(judge, _fit(learner)))
    return Learnt(calibration=fitted, trials=len(trials), before=_error(trials, Calibration()), after=_error(trials, fitted), held_out=held_out)


def _trial(record: Record, gpu: Gpu, traces: Traces) -> Trial | None:
    """The trial, when it is one to learn from: ok, on this card, its steps bound by computing and skipped by no cache."""
    case = record.case
    on_card = any(find(rank.device_name) is gpu for rank in record.ranks)
    if record.outcome is not Outcome.OK or not on_card or case.weights == Weights.TINY or case.cache is not Cache.NONE:
        return None
    found = times(case, ARCHITECTURES[case.model], gpu, traces)
    forward, a_step = found.forward, forwards(case) / case.cfg_parallel
    step_s = _mean(record, StageKind.STEP_INFERENCE)
    if step_s is None or forward.copy_s > 0 or forward.launch_s >= forward.compute_s:
        return None
    decode_s = _mean(record, StageKind.VAE_DECODING)
    swap_s = sum(stage.duration_s or 0.0 for stage in record.stages if stage.rank == 0 and stage.kind is StageKind.STEP_LOADING)
    return Trial(
        case_id=record.case_id,
        step_s=step_s,
        products_s=a_step * (forward.matmul_s + forward.memory_s),
        attention_s=a_step * forward.attention_s,
        rest_s=a_step * forward.exchange_s,
        vae=decode_s / found.vae_decode_s if decode_s else None,
        transfer=swap_s / found.swap_s if found.swap_s else None,
    )


def _mean(record: Record, kind: StageKind) -> float | None:
    """Mean length of a kind of stage on rank 0; null when it has none."""
    lengths = [stage.duration_s for stage in record.stages if stage.kind is kind and stage.rank == 0 and stage.duration_s is not None]
    return statistics.fmean(lengths) if lengths else None


def _fit(trials: Sequence[Trial]) -> Calibration:
    """The factors of least squared relative error of a step; one for both parts where the trials do not tell them apart."""
    rows = [(t.products_s / t.step_s, t.attention_s / t.step_s, 1 - t.rest_s / t.step_s) for t in trials]
    pp, pa, aa = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    pm, am = (sum(row[i] * row[2] for row in rows) for i in (0, 1))
    apart = pp * aa - pa * pa
    products = attention = 0.0
    if apart > _APART * pp * aa:
        products, attention = (pm * aa - am * pa) / apart, (am * pp - pm * pa) / apart
    if products <= 0 or attention <= 0:
        products = attention = (pm + am) / (pp + 2 * pa + aa)
    return Calibration(
        matmul=1 / products,
        attention=1 / attention,
        vae=_inverse([t.vae for t in trials]),
        transfer=_inverse([t.transfer for t in trials]),
    )


def _inverse(ratios: Sequence[float | None]) -> float:
    """One over the median of what was measured; 1 where nothing was."""
    known = [ratio for ratio in ratios if ratio]
    return 1 / statistics.median(known) if known else 1.0


def _error(trials: Sequence[Trial], calibration: Calibration) -> float:
    return statistics.median(abs(trial.predicted_s(calibration) / trial.step_s - 1) for trial in trials)
