"""Number formats: which one each weight of a component gets, by the rules of diffusers and transformers themselves.

A half-precision model keeps some weights in fp32 (its `_keep_in_fp32_modules`); loading, conversion and random weights ask here, so
that they cannot differ.
"""

from __future__ import annotations

import diffusers
import torch
import transformers

from wansweep.levers import Dtype

TORCH_DTYPES = {Dtype.BF16: torch.bfloat16, Dtype.FP16: torch.float16, Dtype.FP32: torch.float32}


def component_dtype(component: str, dtype: Dtype) -> torch.dtype:
    """What a component is declared in: the case's format, and fp32 for the VAE, as in the official code."""
    return torch.float32 if component == "vae" else TORCH_DTYPES[dtype]


def module_class(library: str, name: str) -> type[torch.nn.Module] | None:
    """The class that a model_index.json names; null for a tokenizer, a scheduler or an empty component."""
    found = getattr({"diffusers": diffusers, "transformers": transformers}.get(library), name or "", None)
    return found if isinstance(found, type) and issubclass(found, torch.nn.Module) else None


def islands(kind: type[torch.nn.Module], dtype: torch.dtype) -> frozenset[str]:
    """Names of submodules and parameters whose weights stay fp32 when the class is loaded in a format.

    diffusers keeps them for both halves (model_loading_utils.load_model_dict_into_meta), transformers for fp16 only
    (PreTrainedModel._get_dtype_plan).
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return frozenset()
    kept = set(getattr(kind, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16 or issubclass(kind, diffusers.ModelMixin):
        kept |= set(getattr(kind, "_keep_in_fp32_modules", None) or ())
    return frozenset(kept)


def weight_dtype(kind: type[torch.nn.Module], name: str, dtype: torch.dtype) -> torch.dtype:
    """What one weight gets, by its dotted name in the state dict."""
    return torch.float32 if islands(kind, dtype).intersection(name.split(".")) else dtype


def cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Bring a module's weights into a format, each as `weight_dtype` says; one that has it already keeps its storage, mapped or not."""
    for name, parameter in module.named_parameters():
        wanted = weight_dtype(type(module), name, dtype)
        if parameter.dtype != wanted and parameter.is_floating_point():
            parameter.data = parameter.data.to(wanted)
