"""How the transformers' weights are kept: cast to fp8 between uses, or quantised by torchao, optimum-quanto or bitsandbytes.

The linear layers inside the blocks of both experts are taken; embeddings, norms, modulation tables and the output projection stay as they are,
as diffusers' own layerwise casting and quantisers leave them (_skip_layerwise_casting_patterns, _keep_in_fp32_modules of
WanTransformer3DModel). The pipeline is quantised once it is loaded, so that weights from anywhere can be; diffusers' quantisers say
whether the machine can.
"""

from __future__ import annotations

from collections import Counter

import torch
from diffusers.hooks.layerwise_casting import _LAYERWISE_CASTING_HOOK
from diffusers.quantizers import DiffusersAutoQuantizer
from diffusers.quantizers.quantization_config import BitsAndBytesConfig

from wansweep.case import Case
from wansweep.levers import Quant
from wansweep.record import Share
from wansweep.trial.experts import block_linears, experts
from wansweep.trial.formats import TORCH_DTYPES
from wansweep.trial.invalid import Invalid, refusals
from wansweep.trial.pipeline import WanPipe


def apply(pipe: WanPipe, case: Case) -> None:
    """Quantise both experts as declared; the pipeline is still on the CPU.

    Raises:
        Invalid: The library is not there, or refuses the format here.
    """
    with refusals(f"quant={case.quant}"):
        for expert in experts(pipe).values():
            match case.quant:
                case Quant.NONE:
                    pass
                case Quant.FP8_CAST:
                    expert.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=TORCH_DTYPES[case.dtype])
                case Quant.TORCHAO_INT8 | Quant.TORCHAO_INT8_DYNAMIC | Quant.TORCHAO_FP8 | Quant.TORCHAO_FP8_DYNAMIC:
                    _torchao(expert, case.quant)
                case Quant.QUANTO_INT8:
                    _quanto(expert)
                case Quant.BNB_8BIT | Quant.BNB_4BIT:
                    _bitsandbytes(expert, case)


def _torchao(expert: torch.nn.Module, quant: Quant) -> None:
    from torchao import quantization

    config = {
        Quant.TORCHAO_INT8: quantization.Int8WeightOnlyConfig,
        Quant.TORCHAO_INT8_DYNAMIC: quantization.Int8DynamicActivationInt8WeightConfig,
        Quant.TORCHAO_FP8: quantization.Float8WeightOnlyConfig,
        Quant.TORCHAO_FP8_DYNAMIC: quantization.Float8DynamicActivationFloat8WeightConfig,
    }[quant]
    names = {name for name, _ in block_linears(expert)}
    quantization.quantize_(expert, config(), filter_fn=lambda _, name: name in names)


def _quanto(expert: torch.nn.Module) -> None:
    from optimum.quanto import freeze, qint8, quantize

    quantize(expert, weights=qint8, include=[name for name, _ in block_linears(expert)])
    freeze(expert)


def _bitsandbytes(expert: torch.nn.Module, case: Case) -> None:
    """Layers of bitsandbytes in place of the plain ones; they quantise their weights when they reach the GPU."""
    four = case.quant is Quant.BNB_4BIT
    config = BitsAndBytesConfig(
        load_in_4bit=four, load_in_8bit=not four, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=TORCH_DTYPES[case.dtype]
    )
    DiffusersAutoQuantizer.from_config(config).validate_environment(dtype=TORCH_DTYPES[case.dtype])
    import bitsandbytes as bnb

    for name, plain in list(block_linears(expert)):
        shape = (plain.in_features, plain.out_features, plain.bias is not None)
        if four:
            layer = bnb.nn.Linear4bit(*shape, compute_dtype=plain.weight.dtype, quant_type="nf4")
            layer.weight = bnb.nn.Params4bit(plain.weight.data, requires_grad=False, quant_type="nf4", module=layer)
        else:
            layer = bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False)
            layer.weight = bnb.nn.Int8Params(plain.weight.data, requires_grad=False, has_fp16_weights=False)
        layer.bias = plain.bias
        parent, _, last = name.rpartition(".")
        setattr(expert.get_submodule(parent), last, layer)


def family(layer: torch.nn.Module) -> str:
    """What keeps a layer's weight: a member of `Quant`, or as much of one as can be read back from it."""
    weight = layer.weight
    registry = getattr(layer, "_diffusers_hook", None)
    if registry is not None and registry.get_hook(_LAYERWISE_CASTING_HOOK) is not None:
        return str(Quant.FP8_CAST) if weight.dtype is torch.float8_e4m3fn else str(Quant.NONE)
    home = type(weight).__module__
    if home.startswith("torchao"):
        bits = "fp8" if "Float8" in type(weight).__name__ else "int8"
        dynamic = getattr(weight, "act_quant_kwargs", None) is not None
        return f"torchao_{bits}{'_dynamic' if dynamic else ''}"
    if type(layer).__module__.startswith("optimum.quanto"):
        return str(Quant.QUANTO_INT8) if home.startswith("optimum.quanto") else str(Quant.NONE)
    return {"Params4bit": str(Quant.BNB_4BIT), "Int8Params": str(Quant.BNB_8BIT)}.get(type(weight).__name__, str(Quant.NONE))


def families(pipe: WanPipe) -> dict[str, Counter[str]]:
    """Expert to how many layers of its blocks each family keeps."""
    return {name: Counter(family(layer) for _, layer in block_linears(expert)) for name, expert in experts(pipe).items()}


def layers(pipe: WanPipe) -> dict[str, Share]:
    """Expert to its quantised layers, of the linear layers in its blocks."""
    return {name: Share(count=found.total() - found[Quant.NONE], of=found.total()) for name, found in families(pipe).items()}


def check(pipe: WanPipe, case: Case) -> None:
    """Hold the declared quantisation against every layer of both experts' blocks.

    Raises:
        Invalid: Some layer is kept otherwise.
    """
    for name, found in families(pipe).items():
        if set(found) != {str(case.quant)}:
            told = ", ".join(f"{kind} in {count} layers" for kind, count in found.items())
            raise Invalid(f"declared quant={case.quant}, resolved {told} of {name}")


def resolved(pipe: WanPipe) -> str:
    """The families in force; one name where all layers of both experts agree."""
    return " and ".join(sorted(set().union(*families(pipe).values())))
