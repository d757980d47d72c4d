"""What cards are taken to reach, held against public measurements of the kernels alone (`plan.rates`, Boards)."""

from __future__ import annotations

import pytest

from wansweep.hardware import GPUS
from wansweep.levers import Attention, Dtype, Quant
from wansweep.plan.rates import Calibration, rates

# Largest bf16 and fp32 products, TFLOP/s.
BOARDS = {
    "a100-80gb": (265, 19.2),
    "rtx4090": (165, 54.5),
    "l40s": (269, 46.9),
    "h100": (790, 52),
    "h200": (790, 51.3),
    "h20": (142, 32),
    "b200": (1696, 66.2),
    "rtx5090": (235, 67),
    "rtxpro6000": (414, 77),
}


@pytest.mark.parametrize(("gpu", "bf16", "fp32"), [(gpu, *measured) for gpu, measured in BOARDS.items()])
def test_products_are_as_fast_as_boards_of_the_card_were_measured(gpu: str, bf16: float, fp32: float) -> None:
    plain = {"vae_dtype": Dtype.FP32, "quant": Quant.NONE, "attention": Attention.NATIVE, "calibration": Calibration()}
    found = rates(GPUS[gpu], dtype=Dtype.BF16, **plain)
    # 0.93: from the best shape to that of the experts.
    assert found.matmul == pytest.approx(0.93e12 * bf16, rel=0.10)
    assert found.fp32 == pytest.approx(1e12 * fp32, rel=0.07)
    assert rates(GPUS[gpu], dtype=Dtype.FP32, **plain).matmul == found.fp32
