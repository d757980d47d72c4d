"""How weights are kept, a component at a time: cast to fp8 between uses, or quantised by a library (`trial.quantisers`) or a GGUF file.

Taken are the linear layers inside the blocks, of each expert and of T5; embeddings, norms, modulation tables and the output projection stay
as they are, as diffusers' own layerwise casting and quantisers leave them (_skip_layerwise_casting_patterns, _keep_in_fp32_modules of
WanTransformer3DModel). T5's `wo` stays too, as transformers' quantisers leave it (_keep_in_fp32_modules): its caller casts activations to the
number format of that weight, which of packed or fp8 bytes is none to compute in. The pipeline is quantised once it is loaded, so that
weights from anywhere can be; diffusers' quantisers say whether the machine can.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from diffusers.hooks import apply_layerwise_casting
from diffusers.hooks.layerwise_casting import _LAYERWISE_CASTING_HOOK

from wansweep.case import Case
from wansweep.levers import Quant
from wansweep.record import Share
from wansweep.trial.experts import block_linears, experts
from wansweep.trial.formats import TORCH_DTYPES
from wansweep.trial.invalid import Invalid, refusals
from wansweep.trial.pipeline import WanPipe
from wansweep.trial.quantisers import Layers, quantise

# Of UMT5EncoderModel; layerwise casting would take embeddings and `wo` too.
_T5_BLOCKS, _T5_KEPT = "encoder.block.", ("shared", "embed_tokens", "norm", "relative_attention_bias", r"\.wo$")
_FIELDS = {"transformer": "quant", "transformer_2": "quant_2", "text_encoder": "text_encoder_quant"}


def apply(pipe: WanPipe, case: Case) -> None:
    """Quantise each component as declared, before anything is placed; what a GGUF file brought is there already.

    Raises:
        Invalid: The library is not there, or refuses the format here.
    """
    dtype = TORCH_DTYPES[case.dtype]
    for name, module in _components(pipe).items():
        quant = case.quants[name]
        with refusals(f"{_field(case, name)}={quant}"):
            match quant:
                case Quant.NONE | Quant.GGUF:
                    pass
                case Quant.FP8_CAST if name == "text_encoder":
                    apply_layerwise_casting(module, torch.float8_e4m3fn, dtype, skip_modules_pattern=_T5_KEPT)
                case Quant.FP8_CAST:
                    module.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
                case _:
                    quantise(module, _layers(name, module), quant, dtype)


def _components(pipe: WanPipe) -> dict[str, Any]:
    """The experts, and T5 while it is there."""
    return experts(pipe) | ({} if pipe.text_encoder is None else {"text_encoder": pipe.text_encoder})


def _field(case: Case, component: str) -> str:
    """The field that declares a component's quantisation."""
    return "quant" if component == "transformer_2" and case.quant_2 is None else _FIELDS[component]


def _layers(component: str, module: torch.nn.Module) -> Layers:
    """Name and layer of what a quantiser takes, whatever it has made of it."""
    if component != "text_encoder":
        return list(block_linears(module))
    parts = module.named_modules()
    return [(name, part) for name, part in parts if name.startswith(_T5_BLOCKS) and hasattr(part, "in_features") and not name.endswith(".wo")]


def family(layer: torch.nn.Module) -> str:
    """What keeps a layer's weight: a member of `Quant`, or as much of one as can be read back from it."""
    weight: Any = layer.weight
    registry: Any = getattr(layer, "_diffusers_hook", None)
    if registry is not None and registry.get_hook(_LAYERWISE_CASTING_HOOK) is not None:
        return str(Quant.FP8_CAST) if weight.dtype is torch.float8_e4m3fn else str(Quant.NONE)
    home, kind = type(weight).__module__, type(weight).__name__
    if home.startswith("torchao"):
        bits = "fp8" if "Float8" in kind else "int8"
        dynamic = getattr(weight, "act_quant_kwargs", None) is not None
        return f"torchao_{bits}{'_dynamic' if dynamic else ''}"
    if home.startswith("optimum.quanto"):
        return f"quanto_{weight.qtype.name.removeprefix('q').replace('float8_e4m3fn', 'fp8')}"
    if kind == "GGUFParameter":
        return f"gguf_{weight.quant_type.name.lower()}" if type(layer).__name__ == "GGUFLinear" else str(Quant.NONE)
    return {"Params4bit": str(Quant.BNB_4BIT), "Int8Params": str(Quant.BNB_8BIT)}.get(kind, str(Quant.NONE))


def families(pipe: WanPipe) -> dict[str, Counter[str]]:
    """Component to how many of its layers each family keeps."""
    return {name: Counter(family(layer) for _, layer in _layers(name, module)) for name, module in _components(pipe).items()}


def layers(found: dict[str, Counter[str]]) -> dict[str, Share]:
    """Component to its quantised layers, of those that a quantiser takes; without components that have none."""
    shares = {name: Share(count=kinds.total() - kinds[Quant.NONE], of=kinds.total()) for name, kinds in found.items()}
    return {name: share for name, share in shares.items() if share.count}


def check(pipe: WanPipe, case: Case) -> None:
    """Hold the declared quantisation against every layer of every component; a GGUF file may leave some layers plain, but not all.

    Raises:
        Invalid: Some layer is kept otherwise.
    """
    files = {"transformer": case.transformer_gguf, "transformer_2": case.transformer_2_gguf}
    for name, found in families(pipe).items():
        wanted = case.quants[name]
        if files.get(name) and wanted is not Quant.GGUF:
            raise Invalid(f"declared {name}_gguf={files[name]}, resolved {_told(found)} of {name}")
        if any(kind.startswith("gguf_") for kind in found) if wanted is Quant.GGUF else set(found) == {str(wanted)}:
            continue
        raise Invalid(f"declared {_field(case, name)}={wanted}, resolved {_told(found)} of {name}")


def check_placed(pipe: WanPipe, case: Case) -> None:
    """After placement: bitsandbytes packs a weight when it reaches the GPU, and so not where it never does.

    Raises:
        Invalid: Its layers are there, and their weights are still plain numbers.
    """
    for name, module in _components(pipe).items():
        wanted = case.quants[name]
        plain = [layer for _, layer in _layers(name, module) if wanted in (Quant.BNB_8BIT, Quant.BNB_4BIT) and layer.weight.is_floating_point()]
        if plain:
            raise Invalid(
                f"declared {_field(case, name)}={wanted}, resolved weights of {plain[0].weight.dtype} in {len(plain)} layers of {name}"
            )


def _told(found: Counter[str]) -> str:
    return ", ".join(f"{kind} in {count} layers" for kind, count in sorted(found.items()))


def resolved(found: dict[str, Counter[str]], *components: str) -> str:
    """The families in force in some of the components: one name where all layers agree, else each component's."""
    kept = {name: kinds for name, kinds in found.items() if name in components}
    if len(names := set().union(*kept.values())) <= 1:
        return names.pop() if names else str(Quant.NONE)
    return "; ".join(f"{name}: {next(iter(kinds)) if len(kinds) == 1 else _told(kinds)}" for name, kinds in kept.items())
