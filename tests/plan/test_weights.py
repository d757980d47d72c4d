from __future__ import annotations

import pytest

from wansweep.case import Model
from wansweep.levers import Dtype, Quant
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.weights import (
    QUANTISED_BYTES,
    kept_bytes,
    pinned_bytes,
    text_encoder_bytes,
    text_encoder_count,
    transformer_bytes,
    transformer_count,
)
from wansweep.units import GIB


def test_parameters_are_those_of_the_published_checkpoints() -> None:
    assert {model: transformer_count(networks.transformer).total for model, networks in ARCHITECTURES.items()} == {
        Model.TI2V_5B: 4_999_787_712,
        Model.T2V_A14B: 14_288_491_584,
        Model.I2V_A14B: 14_288_901_184,
    }
    assert text_encoder_count(ARCHITECTURES[Model.TI2V_5B].text_encoder) == 5_680_910_336


@pytest.mark.parametrize(
    ("model", "dtype", "gib"),
    [
        (Model.T2V_A14B, Dtype.BF16, 26.669),  # 26.614 and its fp32 islands
        (Model.T2V_A14B, Dtype.FP32, 53.229),
        (Model.TI2V_5B, Dtype.BF16, 9.333),
        (Model.TI2V_5B, Dtype.FP32, 18.626),
    ],
)
def test_an_expert_takes_what_diffusers_keeps_of_it(model: Model, dtype: Dtype, gib: float) -> None:
    assert transformer_bytes(ARCHITECTURES[model].transformer, dtype) / GIB == pytest.approx(gib, abs=1e-3)


def test_t5_takes_what_is_known_of_it() -> None:
    encoder = ARCHITECTURES[Model.T2V_A14B].text_encoder
    assert text_encoder_bytes(encoder, Dtype.BF16) / GIB == pytest.approx(10.582, abs=1e-3)
    assert text_encoder_bytes(encoder, Dtype.FP32) / GIB == pytest.approx(21.163, abs=1e-3)


@pytest.mark.parametrize("quant", [quant for quant in Quant if quant is not Quant.NONE])
def test_every_quantiser_has_its_bytes_and_makes_an_expert_smaller(quant: Quant) -> None:
    numbers = ARCHITECTURES[Model.T2V_A14B].transformer
    assert kept_bytes(quant, Dtype.BF16) == QUANTISED_BYTES[quant] < 2
    assert transformer_bytes(numbers, Dtype.BF16, quant) < 0.6 * transformer_bytes(numbers, Dtype.BF16)


def test_pinned_memory_is_rounded_up_to_powers_of_two() -> None:
    numbers = ARCHITECTURES[Model.T2V_A14B].transformer
    # 50 MiB squares take 64, 135 MiB feed-forward layers 256.
    block = 8 * 64 + 2 * 256
    assert pinned_bytes(numbers, Dtype.BF16) / GIB == pytest.approx(40 * block / 1024, rel=0.02)
