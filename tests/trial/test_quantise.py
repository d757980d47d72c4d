"""Quantisation of each expert and of T5 by every library, against the plain run within a stated bound; what did not take is caught."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import make_a14b, make_case
from tests.trial.test_generate import loaded
from tests.trial.trials import LOSSY, QUANTISERS, QUIET, Runs
from wansweep.case import Model
from wansweep.levers import Dtype, Offload, Quant, TextEncoder
from wansweep.plan.rules import problems
from wansweep.record import Outcome, Share
from wansweep.trial import quantise
from wansweep.trial.experts import block_linears
from wansweep.trial.invalid import Invalid

pytestmark = [QUANTISERS, *QUIET]

ON_A_CPU = [
    Quant.FP8_CAST,
    Quant.TORCHAO_INT8,
    Quant.TORCHAO_INT8_DYNAMIC,
    Quant.TORCHAO_FP8,
    Quant.QUANTO_INT8,
    Quant.QUANTO_FP8,
    Quant.GGUF_Q8_0,
    Quant.GGUF_Q5_0,
    Quant.GGUF_Q4_0,
]
REFUSED = [
    (Quant.TORCHAO_FP8_DYNAMIC, "requires CUDA compute capability"),
    (Quant.BNB_8BIT, "No GPU found"),
    (Quant.BNB_4BIT, "bitsandbytes|GPU"),
]
BOTH = ("transformer", "transformer_2")


@pytest.mark.parametrize("quant", ON_A_CPU)
def test_quantisation_takes_every_block_layer_of_both_experts(runs: Runs, quant: Quant) -> None:
    error, resolved = runs.error(make_a14b(quant=quant))
    assert 0 < error <= LOSSY
    assert (resolved.quant, resolved.text_encoder_quant) == (quant, "none")
    assert resolved.quantised_layers == dict.fromkeys(BOTH, Share(count=20, of=20))


@pytest.mark.parametrize("quant", ON_A_CPU)
def test_quantisation_takes_every_layer_of_t5_that_transformers_would(runs: Runs, quant: Quant) -> None:
    error, resolved = runs.error(make_a14b(text_encoder_quant=quant))
    assert 0 < error <= LOSSY
    assert (resolved.quant, resolved.text_encoder_quant) == ("none", quant)
    assert resolved.quantised_layers == {"text_encoder": Share(count=6, of=6)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have them")
@pytest.mark.parametrize("field", ["quant", "quant_2", "text_encoder_quant"])
@pytest.mark.parametrize(("quant", "reason"), REFUSED)
def test_quantisation_that_needs_a_gpu_is_invalid_in_the_library_s_words(runs: Runs, field: str, quant: Quant, reason: str) -> None:
    ending = runs.trial(make_a14b(**{field: quant}))
    assert ending.outcome is Outcome.INVALID
    assert ending.reason.startswith(f"{field}={quant}: ")
    assert any(word in ending.reason for word in reason.split("|"))


@pytest.mark.parametrize("quant", [Quant.FP8_CAST, Quant.TORCHAO_INT8, Quant.GGUF_Q8_0])
@pytest.mark.parametrize("lever", [{"text_encoder": TextEncoder.CPU}, {"text_encoder": TextEncoder.DROPPED}, {"offload": Offload.GROUP_LEAF}])
def test_a_quantised_t5_goes_where_a_plain_one_goes(runs: Runs, quant: Quant, lever: dict[str, object]) -> None:
    placed, _ = runs.latents(make_a14b(text_encoder_quant=quant))
    elsewhere, resolved = runs.latents(make_a14b(text_encoder_quant=quant, **lever))
    assert torch.equal(placed, elsewhere)
    assert resolved.text_encoder_quant == quant


@pytest.mark.parametrize("quant", [Quant.FP8_CAST, Quant.GGUF_Q8_0])
def test_what_the_swap_of_experts_moves_may_be_quantised(runs: Runs, quant: Quant) -> None:
    plain, _ = runs.latents(make_a14b(quant=quant))
    swapped, resolved = runs.latents(make_a14b(quant=quant, offload=Offload.EXPERT))
    assert torch.equal(plain, swapped)
    assert resolved.expert_swaps == 2


def test_the_experts_may_be_kept_differently(runs: Runs) -> None:
    _, resolved = runs.error(make_a14b(quant=Quant.FP8_CAST, quant_2=Quant.TORCHAO_INT8))
    assert resolved.quant == "transformer: fp8_cast; transformer_2: torchao_int8"
    _, resolved = runs.error(make_a14b(quant_2=Quant.GGUF_Q4_0))
    assert resolved.quant == "transformer: none; transformer_2: gguf_q4_0"
    assert resolved.quantised_layers == {"transformer_2": Share(count=20, of=20)}


def test_a_second_quantisation_of_a_model_with_one_expert_is_a_mistake() -> None:
    assert problems(make_case(quant_2=Quant.FP8_CAST)) == ["quant_2=fp8_cast: ti2v_5b has one expert; leave it null"]
    assert not problems(make_a14b(quant_2=Quant.FP8_CAST))
    assert set(make_case().quants) == {"transformer", "text_encoder"}


# What did not take


def test_quantisation_of_one_expert_alone_is_invalid() -> None:
    case = make_a14b(quant=Quant.FP8_CAST)
    pipe = loaded(case)
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    with pytest.raises(Invalid, match="declared quant=fp8_cast, resolved none in 20 layers of transformer_2"):
        quantise.check(pipe, case)


@pytest.mark.parametrize("field", ["quant", "quant_2", "text_encoder_quant"])
@pytest.mark.parametrize("quant", [Quant.FP8_CAST, Quant.TORCHAO_INT8, Quant.QUANTO_FP8, Quant.BNB_4BIT, Quant.GGUF_Q8_0, Quant.GGUF])
def test_a_quantisation_that_did_nothing_is_invalid(field: str, quant: Quant) -> None:
    with pytest.raises(Invalid, match=f"declared {field}={quant}, resolved none in"):
        quantise.check(loaded(make_a14b()), make_a14b(**{field: quant}))


def test_one_layer_of_t5_that_was_left_out_is_invalid() -> None:
    case = make_a14b(text_encoder_quant=Quant.GGUF_Q8_0)
    pipe = loaded(case)
    attention = pipe.text_encoder.encoder.block[0].layer[0].SelfAttention
    plain = attention.q
    quantise.apply(pipe, case)
    attention.q = plain
    with pytest.raises(
        Invalid, match="declared text_encoder_quant=gguf_q8_0, resolved gguf_q8_0 in 5 layers, none in 1 layers of text_encoder"
    ):
        quantise.check(pipe, case)


def test_quantisation_that_nobody_declared_is_invalid() -> None:
    pipe = loaded(make_a14b())
    quantise.apply(pipe, make_a14b(quant_2=Quant.QUANTO_INT8))
    with pytest.raises(Invalid, match="declared quant=none, resolved quanto_int8 in 20 layers of transformer_2"):
        quantise.check(pipe, make_a14b())


def test_weights_of_bitsandbytes_that_never_reached_a_gpu_are_invalid() -> None:
    class Params4bit(torch.nn.Parameter):
        pass

    case = make_a14b(text_encoder_quant=Quant.BNB_4BIT)
    pipe = loaded(case)
    for name, layer in pipe.text_encoder.named_modules():
        if name.startswith("encoder.block.") and hasattr(layer, "in_features"):
            layer.weight = Params4bit(layer.weight.data, requires_grad=False)
    quantise.check(pipe, case)
    with pytest.raises(Invalid, match="resolved weights of torch.bfloat16 in 6 layers of text_encoder"):
        quantise.check_placed(pipe, case)


# What is left alone


@pytest.mark.parametrize(
    ("quant", "dtype"), [*((quant, Dtype.BF16) for quant in ON_A_CPU), (Quant.FP8_CAST, Dtype.FP16), (Quant.GGUF_Q8_0, Dtype.FP16)]
)
def test_what_transformers_keeps_of_t5_is_left_alone(quant: Quant, dtype: Dtype) -> None:
    case = make_a14b(text_encoder_quant=quant, dtype=dtype)
    pipe = loaded(case)
    before = {name: (tensor.dtype, tensor.clone()) for name, tensor in pipe.text_encoder.named_parameters()}
    quantise.apply(pipe, case)
    kept = ("shared", "layer_norm", "relative_attention_bias", "DenseReluDense.wo")
    for name, tensor in pipe.text_encoder.named_parameters():
        if any(part in name for part in kept):
            dtype_before, value = before[name]
            assert tensor.dtype is dtype_before, name
            assert torch.equal(tensor, value), name
    # transformers' own island: fp32 in an fp16 model.
    wo = pipe.text_encoder.encoder.block[0].layer[1].DenseReluDense.wo.weight
    assert wo.dtype is (torch.float32 if dtype is Dtype.FP16 else torch.bfloat16)


def test_what_diffusers_keeps_in_fp32_is_not_cast() -> None:
    case = make_a14b(quant=Quant.FP8_CAST)
    pipe = loaded(case)
    quantise.apply(pipe, case)
    kept = {name for name, tensor in pipe.transformer.named_parameters() if tensor.dtype is not torch.float8_e4m3fn}
    assert {"patch_embedding.weight", "condition_embedder.time_embedder.linear_1.weight", "blocks.0.norm2.weight"} <= kept


# GGUF

ORIGINAL_NAMES = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "attn1": "self_attn",
    "attn2": "cross_attn",
    ".to_out.0.": ".o.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    "proj_out": "head.head",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
}


def original(name: str) -> str:
    """The name of a weight in Wan2.2's own layout, which GGUF files of it have."""
    if name == "scale_shift_table":
        return "head.modulation"
    name = name.replace("scale_shift_table", "modulation")
    for ours, theirs in ORIGINAL_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def write_gguf(expert: torch.nn.Module, file: Path, kind: str) -> None:
    import gguf

    quantised = {f"{name}.weight" for name, _ in block_linears(expert)}
    writer = gguf.GGUFWriter(str(file), "wan")
    for name, tensor in expert.state_dict().items():
        value = tensor.float().numpy()
        if name in quantised:
            of_type = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(original(name), gguf.quants.quantize(value, of_type), raw_dtype=of_type)
        else:
            writer.add_tensor(original(name), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    pipe = loaded(make_a14b())
    write_gguf(pipe.transformer, folder / "high.gguf", "Q8_0")
    write_gguf(pipe.transformer_2, folder / "low.gguf", "Q4_0")
    return folder / "high.gguf", folder / "low.gguf"


def test_experts_come_from_gguf_files_of_the_original_layout(runs: Runs, gguf_files: tuple[Path, Path]) -> None:
    high, low = gguf_files
    error, resolved = runs.error(make_a14b(quant=Quant.GGUF, transformer_gguf=str(high), transformer_2_gguf=str(low)))
    assert 0 < error <= LOSSY
    assert resolved.quant == "transformer: gguf_q8_0; transformer_2: gguf_q4_0"
    assert resolved.quantised_layers == dict.fromkeys(BOTH, Share(count=20, of=20))


def test_a_file_and_the_same_format_made_here_give_the_same_video(runs: Runs, gguf_files: tuple[Path, Path]) -> None:
    high, _ = gguf_files
    file, _ = runs.latents(make_a14b(quant=Quant.GGUF, transformer_gguf=str(high), quant_2=Quant.GGUF_Q4_0))
    here, _ = runs.latents(make_a14b(quant=Quant.GGUF_Q8_0, quant_2=Quant.GGUF_Q4_0))
    # Norms that lie in the file as fp32 and in the checkpoint as bf16 have the same values.
    assert torch.equal(file, here)


def test_a_gguf_file_that_is_not_there_is_one_line_with_the_way_out(runs: Runs) -> None:
    ending = runs.trial(make_a14b(quant=Quant.GGUF, transformer_gguf="/none.gguf", quant_2=Quant.NONE))
    assert ending.outcome is Outcome.CRASH  # an accident of the machine, as missing weights are
    assert ending.reason == "transformer_gguf=/none.gguf: no such file on this node; name a .gguf file that every node has"


def test_a_gguf_file_of_another_model_is_invalid_in_diffusers_words(runs: Runs, gguf_files: tuple[Path, Path]) -> None:
    ending = runs.trial(make_case(quant=Quant.GGUF, transformer_gguf=str(gguf_files[0])))
    assert ending.outcome is Outcome.INVALID
    assert "expected" in ending.reason
    assert ending.reason.startswith("transformer_gguf=")


def test_a_gguf_file_that_lacks_weights_is_invalid(runs: Runs, tmp_path: Path) -> None:
    expert = loaded(make_a14b()).transformer
    expert.blocks = expert.blocks[:1]
    write_gguf(expert, tmp_path / "half.gguf", "Q8_0")
    ending = runs.trial(make_a14b(quant=Quant.GGUF, transformer_gguf=str(tmp_path / "half.gguf"), quant_2=Quant.NONE))
    assert ending.outcome is Outcome.INVALID
    assert ending.reason.endswith("half.gguf: some of the expert's weights are not in the file; give one of the whole expert")


def test_random_weights_have_no_config_to_read_a_gguf_file_by(runs: Runs) -> None:
    ending = runs.trial(make_case(model=Model.TI2V_5B, weights="random", quant=Quant.GGUF, transformer_gguf="x.gguf"))
    assert ending.reason == "transformer_gguf=x.gguf: weights=random has no config to read the file by; give weights=hub or a folder"
