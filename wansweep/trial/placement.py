"""Weights that move by our own hand, between stages: the two experts, the VAE, and T5 once it is done.

What moves inside a forward is diffusers' hooks' work (`trial.offload`).
"""

from __future__ import annotations

import gc

import torch

from wansweep.trial.pipeline import WanPipe


class ExpertSwap:
    """The A14B experts take turns on the device; both keep their host copy, so leaving costs no copy.

    Args:
        experts: Both, on the CPU.
        device: Where one of them computes.
        pinned: Keep the host copies in pinned memory, which copies faster and cannot be swapped out.

    Attributes:
        swaps: How often an expert came.
        resident: The one on the device; null before the first.
    """

    def __init__(self, experts: list[torch.nn.Module], device: torch.device, *, pinned: bool) -> None:
        self.device = device
        self.pinned = pinned
        self.swaps = 0
        self.resident: torch.nn.Module | None = None
        self._host: dict[int, list[torch.Tensor]] = {}
        self._experts = experts
        for expert in experts:
            self._host[id(expert)] = [tensor.data.pin_memory() if pinned else tensor.data for tensor in _tensors(expert)]
            # At once, so that the plain copy of one expert is gone before the next is pinned.
            self._park(expert)

    def bring(self, expert: torch.nn.Module) -> None:
        """Make the expert the one on the device; nothing when it is."""
        if self.resident is expert:
            return
        if self.resident is not None:
            self._park(self.resident)
        for tensor, host in zip(_tensors(expert), self._host[id(expert)], strict=True):
            # A real copy also where host and device are one, so that a CPU runs what a GPU runs.
            tensor.data = host.to(self.device, non_blocking=self.pinned, copy=True)
        self.resident = expert
        self.swaps += 1

    def holds(self, expert: torch.nn.Module) -> bool:
        """Whether it has a host copy of the expert."""
        return id(expert) in self._host

    def _park(self, expert: torch.nn.Module) -> None:
        for tensor, host in zip(_tensors(expert), self._host[id(expert)], strict=True):
            tensor.data = host


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


class Placement:
    """Where the rank computes, and what it moves itself.

    Args:
        device: Where the denoiser computes.
        swap: Moves the experts; null where they stay or hooks move them.
        vae_offload: The VAE leaves when it has computed.
    """

    def __init__(self, *, device: torch.device, swap: ExpertSwap | None = None, vae_offload: bool = False) -> None:
        self.device = device
        self.swap = swap
        self.vae_offload = vae_offload
        self.vae_parked = 0

    def bring(self, model: torch.nn.Module) -> None:
        """Bring an expert to where it computes, when it is kept elsewhere.

        Of diffusers' model offload, accelerate's own hook is called, which parks the model before it first and does nothing when the expert
        is there already, so the move is timed apart from the forward that would otherwise hide it. The other modes move weights inside it.
        """
        if self.swap is not None:
            self.swap.bring(model)
        hook = getattr(model, "_hf_hook", None)
        if hook is not None and type(hook).__name__ == "CpuOffload":
            hook.pre_forward(model)

    def park_vae(self, pipe: WanPipe) -> None:
        """The VAE back to the CPU; its hook brings it when it computes again."""
        if self.vae_offload:
            pipe.vae.to("cpu")
            self.vae_parked += 1

    def drop_text_encoder(self, pipe: WanPipe) -> None:
        """T5 out of memory, on the host too."""
        pipe.text_encoder = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
