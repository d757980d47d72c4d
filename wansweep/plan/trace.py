"""What a network allocates and moves in one forward, traced on the meta device: shapes flow, no memory does. Loads torch and diffusers.

A dispatch mode follows every storage from its making to its end, in blocks of the size that CUDA's allocator gives out, and adds up the bytes
that kernels other than products and convolutions read and write. Attention counts as the one fused kernel it is on a GPU; traced as composed,
it would hold the whole score matrix. Blocks of a kind cost the same, so two are traced and the rest is arithmetic; an operator whose inputs
look like those of an earlier one gives what that one gave, without torch working out its shapes again. Not seen: workspaces of cuDNN and
cuBLAS, and fragmentation; `plan.memory` has margins for them.

Method: torch.utils._python_dispatch; held to 2 % of a real allocation on a CPU by tests/plan/test_trace.py.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from wansweep.levers import Dtype
from wansweep.plan import networks
from wansweep.plan.architecture import TextEncoder, Transformer, Vae
from wansweep.plan.traces import Traced

# CUDACachingAllocator rounds small blocks up to 512 bytes.
_BLOCK_BYTES = 512
# Kernels whose time is that of their FLOP; the rest is memory-bound.
_COMPUTE_BOUND = ("mm", "convolution", "scaled_dot_product")
_FORMATS = {Dtype.BF16: torch.bfloat16, Dtype.FP16: torch.float16, Dtype.FP32: torch.float32}


def trace_transformer(numbers: Transformer, size: tuple[int, int, int], *, batch: int, dtype: Dtype, text_tokens: int) -> Traced:
    """A forward of the denoiser on a latent of (frames, height, width)."""
    one, two = (_transformer_of(numbers, layers, size, batch=batch, dtype=dtype, text_tokens=text_tokens) for layers in (1, 2))
    return _whole(one, two, numbers.layers)


def trace_text_encoder(numbers: TextEncoder, *, dtype: Dtype) -> Traced:
    """The encoder on one prompt, padded to its length."""
    one, two = (_text_encoder_of(numbers, layers, dtype=dtype) for layers in (1, 2))
    return _whole(one, two, numbers.layers)


def trace_vae(numbers: Vae, size: tuple[int, int, int], *, encode: bool, dtype: Dtype, batch: int = 1) -> Traced:
    """A decode from, or an encode into, a latent of (frames, height, width), untiled."""
    frames, height, width = size
    with torch.device("meta"):
        network = networks.vae(numbers).eval()
        shape = (batch, numbers.latent_channels, frames, height, width)
        if encode:
            pixels = numbers.temporal_stride * (frames - 1) + 1, height * numbers.spatial_stride, width * numbers.spatial_stride
            shape = (batch, 3, *pixels)
        given = torch.empty(shape, dtype=_FORMATS[dtype])
    _cast(network, _FORMATS[dtype])
    return traced(network, (network.encode if encode else network.decode), given)


def traced(network: torch.nn.Module, forward: Callable[..., object], *given: torch.Tensor, **named: torch.Tensor) -> Traced:
    """A forward of any network whose weights and inputs are on meta, or on a device that allocates."""
    watch = _Watch()
    for weight in (*network.parameters(), *network.buffers()):
        watch.keep(weight)
    weight_bytes = watch.live_bytes
    for tensor in (*given, *named.values()):
        watch.keep(tensor)
    with torch.no_grad(), watch, _FusedAttention():
        forward(*given, **named)
    return Traced(peak_bytes=watch.peak_bytes - weight_bytes, moved_bytes=watch.moved_bytes, kernels=watch.kernels, weight_bytes=weight_bytes)


def _whole(one: Traced, two: Traced, layers: int) -> Traced:
    """The network of so many equal blocks, from the ones with a block and with two; what lives at once does not grow with them."""

    def grown(first: int, second: int) -> int:
        return first + (layers - 1) * (second - first)

    return Traced(
        peak_bytes=max(one.peak_bytes, two.peak_bytes),
        moved_bytes=grown(one.moved_bytes, two.moved_bytes),
        kernels=grown(one.kernels, two.kernels),
        weight_bytes=grown(one.weight_bytes, two.weight_bytes),
    )


def _transformer_of(numbers: Transformer, layers: int, size: tuple[int, int, int], *, batch: int, dtype: Dtype, text_tokens: int) -> Traced:
    frames, height, width = size
    tokens = frames * (height // numbers.patch) * (width // numbers.patch)
    kind = _FORMATS[dtype]
    with torch.device("meta"):
        network = networks.transformer(replace(numbers, layers=layers)).eval()
        latent = torch.empty(batch, numbers.in_channels, frames, height, width, dtype=kind)
        timestep = torch.empty(batch, tokens) if numbers.token_timesteps else torch.empty(batch)
        text = torch.empty(batch, text_tokens, numbers.text_dim, dtype=kind)
    _cast(network, kind)
    return traced(network, network, hidden_states=latent, timestep=timestep, encoder_hidden_states=text)


def _text_encoder_of(numbers: TextEncoder, layers: int, *, dtype: Dtype) -> Traced:
    with torch.device("meta"):
        network = networks.text_encoder(replace(numbers, layers=layers)).eval()
        ids = torch.zeros(1, numbers.tokens, dtype=torch.long)
    _cast(network, _FORMATS[dtype])
    return traced(network, network, ids)


def _cast(network: Any, dtype: torch.dtype) -> None:  # noqa: ANN401
    """The network in a format, but for what diffusers keeps in fp32."""
    # transformers keeps its own for fp16 alone; diffusers for both halves (trial.formats).
    kept = set(network._keep_in_fp32_modules or ()) if isinstance(network, WanTransformer3DModel) else set()
    for name, parameter in network.named_parameters():
        if not kept.intersection(name.split(".")):
            parameter.data = parameter.data.to(dtype)


class _Watch(TorchDispatchMode):  # type: ignore[misc,no-untyped-call,unused-ignore]
    """Live bytes by storage, their peak, and what memory-bound kernels move."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.live_bytes = self.peak_bytes = self.moved_bytes = self.kernels = 0
        self._live: dict[int, int] = {}

    def keep(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once, until it is gone."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        size = -(-storage.nbytes() // _BLOCK_BYTES) * _BLOCK_BYTES
        self._live[key] = size
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live_bytes -= self._live.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run an operator and count it."""
        kwargs = kwargs or {}
        read = {t.untyped_storage()._cdata: t for t in _tensors((*args, *kwargs.values()))}
        out = _result(func, args, kwargs) if any(t.is_meta for t in read.values()) else func(*args, **kwargs)
        written = list(_tensors(out))
        fresh = any(t.untyped_storage()._cdata not in read for t in written)
        name = str(func)
        # What makes no new storage and changes none is a view.
        if (fresh or func._schema.is_mutable) and "empty" not in name:
            self.kernels += 1
            if not any(word in name for word in _COMPUTE_BOUND):
                self.moved_bytes += sum(_bytes(t) for t in (*read.values(), *written))
        for tensor in written:
            self.keep(tensor)
        return out


@dataclass(frozen=True, slots=True)
class _Look:
    """All of a tensor that decides what an operator on meta gives.

    Attributes:
        shape: Of the tensor.
        stride: In elements.
        dtype: Number format.
        device: Meta, but for single numbers that a host keeps.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(tensor: torch.Tensor) -> _Look:
        """How a tensor looks."""
        return _Look(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def again(self) -> torch.Tensor:
        """Another tensor that looks the same."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


def _tensors(given: Any) -> Iterator[torch.Tensor]:  # noqa: ANN401
    """The tensors of an operator's arguments, or of what it gave; operators take and give them plain and in lists."""
    if isinstance(given, torch.Tensor):
        yield given
    elif isinstance(given, (list, tuple)):
        for each in given:
            yield from _tensors(each)


def _frozen(given: Any) -> Any:  # noqa: ANN401
    """An operator's arguments as a key."""
    if isinstance(given, torch.Tensor):
        return _Look.of(given)
    if isinstance(given, (list, tuple)):
        return tuple(map(_frozen, given))
    return given


def _thawed(given: Any) -> Any:  # noqa: ANN401
    """The arguments of a key."""
    if isinstance(given, _Look):
        return given.again()
    return [_thawed(each) for each in given] if isinstance(given, tuple) else given


@cache
def _only_makes(func: Any) -> bool:  # noqa: ANN401
    """Whether an operator changes nothing and gives no view, by its schema."""
    schema = func._schema
    return not any(each.alias_info for each in (*schema.arguments, *schema.returns))


@lru_cache(maxsize=None, typed=True)
def _made(func: Any, names: tuple[str, ...], *given: Any) -> _Look | None:  # noqa: ANN401
    """What an operator makes of arguments that look so, the last of them by name; null where that is not one new, whole tensor on meta."""
    values = [_thawed(each) for each in given]
    placed = len(values) - len(names)
    out = func(*values[:placed], **dict(zip(names, values[placed:], strict=True)))
    if not isinstance(out, torch.Tensor) or out.device.type != "meta":
        return None
    look = _Look.of(out)
    # `_unsafe_view` gives a view of which its schema says nothing.
    return look if "view" not in str(func) and look.again().untyped_storage().nbytes() == out.untyped_storage().nbytes() else None


def _result(func: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
    """What an operator gives; torch is asked once for arguments that look alike, since on meta their looks are all there is to them."""
    if _only_makes(func):
        look = _made(func, tuple(kwargs), *map(_frozen, (*args, *kwargs.values())))
        if look is not None:
            return look.again()
    return func(*args, **kwargs)


def _bytes(tensor: torch.Tensor) -> int:
    """What touching all of a tensor moves; one that is broadcast is no larger than what it is kept in."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


class _FusedAttention(TorchFunctionMode):  # type: ignore[misc,no-untyped-call,unused-ignore]
    """Attention as the one kernel it is on a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Attention's own operators in place of torch's choice for this device."""
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
        query, key, value, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
        if query.device.type != "meta":
            return func(*args, **kwargs)
        if query.dtype in (torch.bfloat16, torch.float16) and mask is None:
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, mask, False)[0]
