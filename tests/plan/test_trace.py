"""The tracer, held against a real allocator and against the figures that are known of the networks."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from wansweep.case import Model
from wansweep.levers import Dtype
from wansweep.plan import trace
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.trace import trace_text_encoder, trace_transformer, trace_vae, traced
from wansweep.plan.weights import transformer_bytes
from wansweep.units import GIB


class Layers(torch.nn.Module):
    """Products and pointwise work of known sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = torch.nn.Linear(64, 4096), torch.nn.Linear(4096, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(torch.nn.functional.gelu(self.wide(x))) + x


def test_a_known_network_holds_and_moves_what_can_be_counted_by_hand() -> None:
    with torch.device("meta"):
        found = traced(network := Layers(), network, torch.empty(1024, 64))
    wide, narrow = 1024 * 4096 * 4, 1024 * 64 * 4
    assert found.weight_bytes == 4 * (2 * 64 * 4096 + 4096) + 512  # the small bias takes a whole block
    assert found.peak_bytes == narrow + 2 * wide  # the input, and both sides of gelu
    assert found.moved_bytes == 2 * wide + 3 * narrow  # gelu, and the sum of two
    assert found.kernels == 4


def test_a_trace_on_meta_is_what_the_cpus_allocator_gives_out() -> None:
    network, given = Layers(), torch.randn(1024, 64)
    with torch.device("meta"):
        foretold = traced(blank := Layers(), blank, torch.empty(1024, 64)).peak_bytes - given.nbytes
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded, torch.no_grad():
        network(given)
    changes = [event.nbytes() for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = peak = 0
    for change in changes:
        level += change
        peak = max(peak, level)
    assert peak == pytest.approx(foretold, rel=0.02)


@pytest.mark.parametrize(
    ("model", "size", "gib"),
    [
        (Model.TI2V_5B, (31, 44, 80), 5.08),
        (Model.TI2V_5B, (21, 44, 80), 3.44),
        (Model.T2V_A14B, (21, 60, 104), 3.49),
        (Model.T2V_A14B, (21, 90, 160), 8.02),
    ],
)
def test_a_transformer_allocates_what_is_known_of_it(model: Model, size: tuple[int, int, int], gib: float) -> None:
    numbers = ARCHITECTURES[model].transformer
    found = trace_transformer(numbers, size, batch=1, dtype=Dtype.BF16, text_tokens=512)
    assert found.peak_bytes / GIB == pytest.approx(gib, rel=0.01)
    # Rotary tables are buffers.
    assert found.weight_bytes == pytest.approx(transformer_bytes(numbers, Dtype.BF16), rel=1e-3)


def test_a_trace_is_the_same_when_torch_is_asked_for_every_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = ARCHITECTURES[Model.T2V_A14B].vae
    numbers = ARCHITECTURES[Model.TI2V_5B].transformer

    def traces() -> list[object]:
        return [
            trace_vae(vae, (2, 8, 12), encode=False, dtype=Dtype.FP32),
            trace_vae(vae, (2, 8, 12), encode=True, dtype=Dtype.BF16),
            trace_transformer(numbers, (2, 8, 12), batch=1, dtype=Dtype.BF16, text_tokens=512),
        ]

    remembered = traces()
    monkeypatch.setattr(trace, "_only_makes", lambda func: False)
    assert traces() == remembered


def test_t5_allocates_next_to_nothing_beside_its_weights() -> None:
    found = trace_text_encoder(ARCHITECTURES[Model.T2V_A14B].text_encoder, dtype=Dtype.BF16)
    assert found.peak_bytes / GIB == pytest.approx(0.09, abs=0.01)
    assert found.weight_bytes / GIB == pytest.approx(10.582, abs=0.01)


@pytest.mark.parametrize(
    ("model", "size", "dtype", "encode", "gib"),
    [
        (Model.TI2V_5B, (2, 44, 80), Dtype.FP32, False, 15.91),
        (Model.TI2V_5B, (5, 44, 80), Dtype.FP32, False, 18.22),
        (Model.T2V_A14B, (21, 60, 104), Dtype.BF16, False, 3.95),
    ],
)
def test_a_vae_allocates_what_is_known_of_it(model: Model, size: tuple[int, int, int], dtype: Dtype, gib: float, *, encode: bool) -> None:
    found = trace_vae(ARCHITECTURES[model].vae, size, encode=encode, dtype=dtype)
    assert found.peak_bytes / GIB == pytest.approx(gib, rel=0.01)
