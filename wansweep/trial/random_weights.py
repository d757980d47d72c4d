"""``weights=random``: the real networks with random values, made where they will be. No download, and the speed and memory of the real ones.

Zeros or constants would be too fast: they cut a GPU's power, and so raise its clocks. Norms are 1, biases 0 and the rest has standard
deviation 0.02, which keeps activations finite.
"""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel

from wansweep.case import Task
from wansweep.levers import Dtype
from wansweep.plan.architecture import Architecture
from wansweep.trial import networks
from wansweep.trial.formats import component_dtype, weight_dtype
from wansweep.trial.networks import WanPipe

STD = 0.02
SEED = 2200
# Drawing normal values costs a CPU core 6 s a billion, so one chunk is drawn and tiled at 1.3 s a billion. A prime, so that no row of
# a matrix repeats another.
_CHUNK = 1_048_573


def construct(architecture: Architecture, task: Task, *, boundary: float | None) -> WanPipe:
    """The pipeline on the meta device: shapes, and no memory."""
    return networks.build(architecture, task, boundary=boundary, device="meta")


def materialise(pipe: WanPipe, dtype: Dtype, device: torch.device) -> None:
    """Give every weight of a meta pipeline its memory, format and values on a device, without a copy elsewhere. Equal seeds, equal values."""
    for index, (component, module) in enumerate(pipe.components.items()):
        if isinstance(module, torch.nn.Module):
            _materialise(module, component_dtype(component, dtype), _Values(device, SEED + index))
            _tables(module, device)
            assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())), component


def _materialise(module: torch.nn.Module, dtype: torch.dtype, values: _Values) -> None:
    made: dict[int, torch.nn.Parameter] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if id(parameter) not in made:  # UMT5 has its embedding under two names
            empty = torch.empty(parameter.shape, dtype=weight_dtype(type(module), name, dtype), device=values.device)
            made[id(parameter)] = torch.nn.Parameter(values.fill(name, empty), requires_grad=False)
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, made[id(parameter)])


def _tables(module: torch.nn.Module, device: torch.device) -> None:
    """Rotary tables are buffers that no checkpoint holds: the module that computes them is built again off the meta device."""
    if isinstance(module, WanTransformer3DModel):
        config = module.config
        module.rope = type(module.rope)(config.attention_head_dim, config.patch_size, config.rope_max_seq_len).to(device)


class _Values:
    """Random values for one component."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._chunks: dict[torch.dtype, torch.Tensor] = {}
        self._at = 0

    def fill(self, name: str, empty: torch.Tensor) -> torch.Tensor:
        """The tensor with its values: by its name and shape a bias, a norm, or something that multiplies."""
        leaf = name.rpartition(".")[2]
        if leaf == "bias":
            return empty.zero_()
        if leaf == "gamma" or empty.ndim == 1:
            return empty.fill_(1)
        if self.device.type != "cpu":
            return empty.normal_(0, STD, generator=self._generator)
        self._tile(empty.view(-1))
        return empty

    def _tile(self, flat: torch.Tensor) -> None:
        """Copy the chunk over a tensor again and again, going on where the last tensor ended."""
        if flat.dtype not in self._chunks:
            drawn = torch.empty(_CHUNK).normal_(0, STD, generator=self._generator)
            self._chunks[flat.dtype] = drawn.to(flat.dtype)
        chunk, done = self._chunks[flat.dtype], 0
        while done < flat.numel():
            piece = chunk[self._at : self._at + flat.numel() - done]
            flat[done : done + piece.numel()].copy_(piece)
            done += piece.numel()
            self._at = (self._at + piece.numel()) % _CHUNK
