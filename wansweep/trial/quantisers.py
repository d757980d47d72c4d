"""Linear layers to quantised ones, a library at a time: torchao, optimum-quanto, bitsandbytes and GGUF's block formats.

Which layers are taken, and whether it took, is `trial.quantise`'s to say. Libraries are imported where they are used: each is optional.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.quantizers import DiffusersAutoQuantizer
from diffusers.quantizers.quantization_config import BitsAndBytesConfig, GGUFQuantizationConfig

from wansweep.levers import Quant

# Any: layers of four libraries, whose weights are tensors and more.
Layers = list[tuple[str, Any]]


def quantise(module: torch.nn.Module, layers: Layers, quant: Quant, dtype: torch.dtype) -> None:
    """Keep the weights of some of a module's linear layers as declared.

    Args:
        module: That holds them.
        layers: Dotted name and layer.
        quant: Not fp8_cast, which is no library's, and not gguf, which is a file's.
        dtype: That the layers compute in.
    """
    match quant:
        case Quant.TORCHAO_INT8 | Quant.TORCHAO_INT8_DYNAMIC | Quant.TORCHAO_FP8 | Quant.TORCHAO_FP8_DYNAMIC:
            _torchao(module, layers, quant)
        case Quant.QUANTO_INT8 | Quant.QUANTO_FP8:
            _quanto(module, layers, quant)
        case Quant.BNB_8BIT | Quant.BNB_4BIT:
            _bitsandbytes(module, layers, quant, dtype)
        case Quant.GGUF_Q8_0 | Quant.GGUF_Q5_0 | Quant.GGUF_Q4_0:
            _gguf(module, layers, quant, dtype)
        case _:
            raise AssertionError(quant)


def _torchao(module: torch.nn.Module, layers: Layers, quant: Quant) -> None:
    from torchao import quantization

    config = {
        Quant.TORCHAO_INT8: quantization.Int8WeightOnlyConfig,
        Quant.TORCHAO_INT8_DYNAMIC: quantization.Int8DynamicActivationInt8WeightConfig,
        Quant.TORCHAO_FP8: quantization.Float8WeightOnlyConfig,
        Quant.TORCHAO_FP8_DYNAMIC: quantization.Float8DynamicActivationFloat8WeightConfig,
    }[quant]
    names = {name for name, _ in layers}
    quantization.quantize_(module, config(), filter_fn=lambda _, name: name in names)


def _quanto(module: torch.nn.Module, layers: Layers, quant: Quant) -> None:
    from optimum.quanto import freeze, qfloat8, qint8, quantize

    weights = {Quant.QUANTO_INT8: qint8, Quant.QUANTO_FP8: qfloat8}[quant]
    quantize(module, weights=weights, include=[name for name, _ in layers])
    freeze(module)


def _bitsandbytes(module: torch.nn.Module, layers: Layers, quant: Quant, dtype: torch.dtype) -> None:
    """Layers of bitsandbytes in place of the plain ones; they quantise their weights when they reach the GPU."""
    four = quant is Quant.BNB_4BIT
    config = BitsAndBytesConfig(load_in_4bit=four, load_in_8bit=not four, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    DiffusersAutoQuantizer.from_config(config).validate_environment(dtype=dtype)
    import bitsandbytes as bnb

    for name, plain in layers:
        shape = (plain.in_features, plain.out_features, plain.bias is not None)
        if four:
            layer = bnb.nn.Linear4bit(*shape, compute_dtype=dtype, quant_type="nf4")
            layer.weight = bnb.nn.Params4bit(plain.weight.data, requires_grad=False, quant_type="nf4", module=layer)
        else:
            layer = bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False)
            layer.weight = bnb.nn.Int8Params(plain.weight.data, requires_grad=False, has_fp16_weights=False)
        layer.bias = plain.bias
        _put(module, name, layer)


def _gguf(module: torch.nn.Module, layers: Layers, quant: Quant, dtype: torch.dtype) -> None:
    """Layers of diffusers in place of the plain ones, with the bytes that GGUF's own Python makes: 180 M weights a second of a CPU core."""
    DiffusersAutoQuantizer.from_config(GGUFQuantizationConfig(compute_dtype=dtype)).validate_environment()
    import gguf
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    kind = gguf.GGMLQuantizationType[quant.removeprefix("gguf_").upper()]
    for name, plain in layers:
        with torch.device("meta"):
            layer = GGUFLinear(plain.in_features, plain.out_features, plain.bias is not None, compute_dtype=dtype)
        packed = torch.from_numpy(gguf.quants.quantize(plain.weight.detach().float().cpu().numpy(), kind))
        layer.weight = GGUFParameter(packed.to(plain.weight.device), quant_type=kind)
        layer.bias = plain.bias
        _put(module, name, layer)


def _put(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)
