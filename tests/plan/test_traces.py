from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wansweep.case import Model
from wansweep.levers import Dtype
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.trace import trace_transformer, trace_vae
from wansweep.plan.traces import Traced, Traces

VAES = [ARCHITECTURES[Model.TI2V_5B].vae, ARCHITECTURES[Model.T2V_A14B].vae]


@pytest.mark.parametrize("vae", VAES)
@pytest.mark.parametrize("encode", [False, True])
def test_a_long_video_is_told_from_four_latent_frames(vae, *, encode: bool) -> None:
    told = Traces().vae(vae, (9, 8, 12), encode=encode, dtype=Dtype.FP32)
    whole = trace_vae(vae, (9, 8, 12), encode=encode, dtype=Dtype.FP32)
    assert told.peak_bytes == whole.peak_bytes
    assert told.moved_bytes == pytest.approx(whole.moved_bytes, rel=0.01)
    assert told.weight_bytes == whole.weight_bytes


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_ranks_share_of_tokens_is_told_from_two_lengths(ranks: int) -> None:
    numbers = ARCHITECTURES[Model.T2V_A14B].transformer
    share = Traces().transformer(numbers, (20, 60, 104), batch=1, dtype=Dtype.BF16, text_tokens=512, ranks=ranks)
    alone = trace_transformer(numbers, (20 // ranks, 60, 104), batch=1, dtype=Dtype.BF16, text_tokens=512)
    assert share.peak_bytes == pytest.approx(alone.peak_bytes, rel=0.01)
    assert share.moved_bytes == pytest.approx(alone.moved_bytes, rel=0.01)


def test_traces_are_found_again_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "traces.json"
    first = Traces(file)
    asked = {"batch": 1, "dtype": Dtype.BF16, "text_tokens": 512}
    numbers = ARCHITECTURES[Model.TI2V_5B].transformer
    found = first.transformer(numbers, (1, 8, 8), **asked)
    first.save()
    assert [path.name for path in file.parent.iterdir()] == ["traces.json"]
    script = f"""
import sys
from pathlib import Path
from wansweep.case import Model
from wansweep.levers import Dtype
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.traces import Traces
numbers = ARCHITECTURES[Model.TI2V_5B].transformer
found = Traces(Path({str(file)!r})).transformer(numbers, (1, 8, 8), batch=1, dtype=Dtype.BF16, text_tokens=512)
print(found.peak_bytes, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(found.peak_bytes), "False"]


def test_a_broken_cache_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "traces.json"
    file.write_text('{"cut sho')
    traces = Traces(file)
    traces.text_encoder(ARCHITECTURES[Model.T2V_A14B].text_encoder, dtype=Dtype.BF16)
    traces.save()
    assert len(file.read_text()) > 50


def test_a_line_through_two_traces_keeps_the_weights() -> None:
    one = Traced(peak_bytes=10, moved_bytes=20, kernels=5, weight_bytes=7)
    two = Traced(peak_bytes=16, moved_bytes=40, kernels=5, weight_bytes=7)
    assert one.towards(two, 3) == Traced(peak_bytes=28, moved_bytes=80, kernels=5, weight_bytes=7)
