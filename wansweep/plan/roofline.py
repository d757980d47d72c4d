"""Seconds of a case on a card: each part of the work over what the card reaches at it, and copies beside or between them.

A forward is products, attention and memory-bound kernels one after the other; the host's time to launch them is the floor. Weights that stream
in beside computing cost what is left of the copy when the forward is over; copies that nothing overlaps are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from wansweep.case import Case, Task
from wansweep.hardware import Gpu
from wansweep.levers import Cache, Compile, Dtype, Offload, Quant, TextEncoder, Weights
from wansweep.plan import rates as reach
from wansweep.plan.architecture import Architecture
from wansweep.plan.flops import forwards, step_experts, text_encoder_flop, transformer_flop, vae_decode_flop, vae_encode_flop
from wansweep.plan.geometry import latent_shape
from wansweep.plan.memory import TILE_PIXELS, encoded_frames, experts_alike, rank_tokens, transformer_trace, vae_trace
from wansweep.plan.rates import Calibration, Rates
from wansweep.plan.stack import DIFFUSERS, Stack
from wansweep.plan.traces import Traces
from wansweep.plan.weights import BYTES, kept_bytes, text_encoder_bytes, transformer_bytes, transformer_count
from wansweep.record import Expert

# A predicted time is believed to this share (docs/planner.md).
ERROR = 0.25
# Tiles overlap: 256 pixels of every 192, in both directions.
_TILED_WORK = (256 / 192) ** 2
# TaylorSeer computes the first steps whole and then one in five; PAB skips between these timesteps (diffusers 0.42's defaults).
_TAYLOR_WHOLE, _TAYLOR_INTERVAL = 3, 5
_PAB_RANGE, _PAB_INTERVAL = (100, 800), 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Predicted seconds of a case.

    Attributes:
        load_s: Model_Initialization: weights read and placed.
        text_encode_s: T5_Encoding.
        preprocess_s: Preprocess.
        step_s: Inference of a step, the mean; null where a cache decides by the content what it skips.
        swap_s: Loading between steps, all of it.
        vae_decode_s: VAE_Decoding.
        compile_s: Compilation.
        steps: How many.
        forward: Seconds of one forward by part.
    """

    load_s: float
    text_encode_s: float
    preprocess_s: float
    step_s: float | None
    swap_s: float
    vae_decode_s: float
    compile_s: float
    steps: int
    forward: Forward

    @property
    def generation_s(self) -> float | None:
        """From the prompt to the decoded video, weights loaded and compiled: what published figures are."""
        if self.step_s is None:
            return None
        return self.text_encode_s + self.preprocess_s + self.steps * self.step_s + self.swap_s + self.vae_decode_s

    @property
    def total_s(self) -> float | None:
        """Total_Execution."""
        return None if self.generation_s is None else self.load_s + self.compile_s + self.generation_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """Seconds of one forward of the transformer on a rank.

    Attributes:
        matmul_s: Products, quantising included.
        attention_s: Self- and cross-attention.
        memory_s: Memory-bound kernels.
        exchange_s: Between ranks.
        copy_s: Weights that stream in from the host.
        launch_s: The host's time to launch it all.
        overlaps: Whether the copies run beside the computing.
    """

    matmul_s: float
    attention_s: float
    memory_s: float
    exchange_s: float
    copy_s: float
    launch_s: float
    overlaps: bool

    @property
    def compute_s(self) -> float:
        """What the device works, copies aside."""
        return max(self.matmul_s + self.attention_s + self.memory_s + self.exchange_s, self.launch_s)

    @property
    def total_s(self) -> float:
        """All of it."""
        return max(self.compute_s, self.copy_s) if self.overlaps else self.compute_s + self.copy_s


def times(
    case: Case, networks: Architecture, gpu: Gpu, traces: Traces, *, stack: Stack = DIFFUSERS, calibration: Calibration | None = None
) -> Times:
    """Seconds of a case as it runs.

    Raises:
        CaseError: The model cannot do the case's shape.
    """
    if len(kinds := experts_alike(case)) == 2:
        both = [times(alike, networks, gpu, traces, stack=stack, calibration=calibration) for alike in kinds]
        return _between(*both, high=_schedule(case, networks).count(Expert.HIGH) / case.steps)
    attention = stack.attention or case.attention
    rate = reach.rates(
        gpu,
        dtype=case.dtype,
        vae_dtype=case.vae_dtype,
        quant=case.quant,
        attention=attention,
        calibration=calibration or Calibration(),
    )
    forward = _forward(case, networks, traces, rate, stack)
    share = computed_share(case, networks)
    per_step = forwards(case) / case.cfg_parallel
    # What a cache skips is computing; the weights still stream.
    step_s = None if share is None else per_step * max(share * forward.total_s, forward.copy_s if forward.overlaps else 0.0)
    return Times(
        load_s=_load(case, networks, traces, rate, gpu),
        text_encode_s=_text_encode(case, networks, rate, stack),
        preprocess_s=_preprocess(case, networks, traces, rate),
        step_s=step_s,
        swap_s=_swaps(case, networks, rate),
        vae_decode_s=_vae(case, networks, traces, rate, encode=False, frames=latent_shape(case).frames),
        compile_s=reach.COMPILE_S[case.compile],
        steps=case.steps,
        forward=forward,
    )


def _schedule(case: Case, networks: Architecture) -> tuple[Expert | None, ...]:
    return step_experts(steps=case.steps, shift=case.shift, boundary=networks.boundary, solver=case.solver)


def _between(first: Times, second: Times, *, high: float) -> Times:
    """Times of a case whose experts are kept as in two others, the first's for so large a share of the steps."""
    steps = [each.step_s for each in (first, second)]
    return replace(
        first,
        load_s=(first.load_s + second.load_s) / 2,
        swap_s=(first.swap_s + second.swap_s) / 2,
        step_s=None if steps[0] is None or steps[1] is None else high * steps[0] + (1 - high) * steps[1],
    )


def computed_share(case: Case, networks: Architecture) -> float | None:
    """Share of a forward's time that a cache leaves to be computed; null where the content decides (first_block, mag)."""
    match case.cache:
        case Cache.NONE:
            return 1.0
        case Cache.FIRST_BLOCK | Cache.MAG:
            return None
        case Cache.TAYLORSEER:
            interval = case.cache_interval or _TAYLOR_INTERVAL
            whole = min(case.steps, _TAYLOR_WHOLE)
            computed = whole + math.ceil((case.steps - whole) / interval)
            return max(computed / case.steps, 0.05)
        case Cache.PAB:
            interval = case.cache_interval or _PAB_INTERVAL
            level = [(1 - step / case.steps) for step in range(case.steps)]
            shifted = [1000 * case.shift * x / (1 + (case.shift - 1) * x) for x in level]
            inside = sum(_PAB_RANGE[0] < t < _PAB_RANGE[1] for t in shifted) / case.steps
            return 1 - inside * (1 - 1 / interval) * _attention_share(case, networks)


def _attention_share(case: Case, networks: Architecture) -> float:
    """Share of a forward's FLOP in self-attention and its projections."""
    tokens, dim = rank_tokens(case, networks), networks.transformer.dim
    whole = transformer_flop(networks.transformer, latent_shape(case), text_tokens=networks.text_encoder.tokens)
    return networks.transformer.layers * (4 * tokens**2 * dim + 8 * tokens * dim**2) / whole


def _forward(case: Case, networks: Architecture, traces: Traces, rate: Rates, stack: Stack) -> Forward:
    numbers, traced = networks.transformer, transformer_trace(case, networks, traces)
    ranks, dim, layers = case.ulysses * case.ring, numbers.dim, numbers.layers
    tokens = rank_tokens(case, networks)
    text = networks.text_encoder.tokens
    whole = case.batch * transformer_flop(numbers, latent_shape(case), text_tokens=text)
    attention = case.batch * layers * 4 * (tokens * ranks // case.batch) * (tokens * ranks // case.batch + text) * dim
    moved = traced.moved_bytes if stack.moved_bytes is None else stack.moved_bytes * layers * tokens * dim
    if case.compile is not Compile.NONE:
        moved *= reach.COMPILED_MOVES
    # Weights are read once a forward by the products; on few tokens that is what they take.
    weights = transformer_bytes(numbers, case.dtype, case.quant)
    matmul_s = max((whole - attention) / ranks / rate.matmul, weights / rate.memory) + _quantising(case, networks, tokens, rate)
    memory_s = moved / rate.memory
    if stack.tf32_time_embedding:
        # Of every token, whatever the ranks.
        memory_s += case.batch * 2 * tokens * ranks * (numbers.freq_dim * dim + 7 * dim**2) / rate.tf32
    copy_s, overlaps = _copies(case, weights, rate)
    return Forward(
        matmul_s=matmul_s,
        attention_s=attention / ranks / rate.attention,
        memory_s=memory_s,
        exchange_s=_exchange(case, networks, tokens, weights, rate),
        copy_s=copy_s,
        launch_s=traced.kernels * reach.LAUNCH_S * (reach.COMPILED_MOVES if case.compile is not Compile.NONE else 1),
        overlaps=overlaps,
    )


def _quantising(case: Case, networks: Architecture, tokens: int, rate: Rates) -> float:
    """Seconds that a quantiser adds to a forward: weights made whole again, or activations made small."""
    numbers = networks.transformer
    match case.quant:
        case Quant.NONE:
            return 0.0
        case Quant.TORCHAO_FP8_DYNAMIC | Quant.TORCHAO_INT8_DYNAMIC:
            # Each product's input is read for its range, read again and written in 8 bits: of four inputs of a block that are as wide as the
            # stream, shared by q, k and v in none of the libraries, and the feed-forward's inner one.
            inputs = 7 * numbers.dim + numbers.ffn_dim
            return numbers.layers * tokens * inputs * (2 * BYTES[case.dtype] + 1) / rate.memory
        case _:
            kept = kept_bytes(case.quant, case.dtype) + BYTES[case.dtype]
            return transformer_count(numbers).linears * kept / rate.memory


def _copies(case: Case, weights: float, rate: Rates) -> tuple[float, bool]:
    """Seconds of weights streaming in for one forward, and whether beside the computing."""
    match case.offload:
        case Offload.GROUP_BLOCK | Offload.GROUP_LEAF:
            if case.group_disk:
                return weights / min(reach.READ_BYTES_PER_S, rate.pinned), case.group_stream
            if case.group_stream:
                return weights / rate.pinned, True
            return _there_and_back(weights, rate), False
        case Offload.SEQUENTIAL:
            # What leaves is dropped: its host copy is kept.
            return weights / rate.from_pageable, False
        case _:
            return 0.0, False


def _exchange(case: Case, networks: Architecture, tokens: int, weights: float, rate: Rates) -> float:
    """Seconds of a forward in collectives: Ulysses' four all-to-alls a block, ring's gathering of keys and values, FSDP's of weights."""
    stream = tokens * networks.transformer.dim * BYTES[case.dtype]
    layers = networks.transformer.layers
    ulysses = layers * 4 * stream * (case.ulysses - 1) / case.ulysses
    ring = layers * 2 * stream * (case.ring - 1)
    # Half of FSDP's gathering hides behind the block before; assumed.
    sharded = 0.5 * weights * (case.gpus - 1) / case.gpus if case.fsdp else 0.0
    return (ulysses + ring + sharded) / rate.peer


def _there_and_back(weights: float, rate: Rates) -> float:
    """Seconds of weights that come from pageable memory and are copied back into it."""
    return weights / rate.from_pageable + weights / rate.to_pageable


def _swaps(case: Case, networks: Architecture, rate: Rates) -> float:
    """Seconds of experts coming to the device between steps, at the first step and at the switch, and of what leaves for them."""
    comes = len(set(_schedule(case, networks)))
    weights = transformer_bytes(networks.transformer, case.dtype, case.quant)
    match case.offload:
        case Offload.EXPERT_PINNED:
            return comes * weights / rate.pinned
        case Offload.EXPERT:
            return comes * weights / rate.from_pageable
        case Offload.MODEL:
            # T5 leaves for the first expert, the first expert for the second; the last one leaves for the VAE.
            text = _text_bytes(case, networks) if case.text_encoder is TextEncoder.PLACED else 0
            return comes * weights / rate.from_pageable + (text + (comes - 1) * weights) / rate.to_pageable
        case _:
            return 0.0


def _text_bytes(case: Case, networks: Architecture) -> int:
    return text_encoder_bytes(networks.text_encoder, case.dtype, case.text_encoder_quant)


def _text_encode(case: Case, networks: Architecture, rate: Rates, stack: Stack) -> float:
    flop = text_encoder_flop(networks.text_encoder) * forwards(case)
    if stack.text_fp32_on_host:
        return flop / rate.fp32 + text_encoder_bytes(networks.text_encoder, Dtype.FP32) / rate.pinned
    if case.text_encoder is TextEncoder.CPU:
        return flop / reach.CPU_FLOP_PER_S
    weights = _text_bytes(case, networks)
    computing = max(flop / rate.matmul, forwards(case) * weights / rate.memory)
    match case.offload:
        case Offload.MODEL:
            return computing + weights / rate.from_pageable
        case Offload.GROUP_BLOCK | Offload.GROUP_LEAF | Offload.SEQUENTIAL:
            copy_s, overlaps = _copies(case, forwards(case) * weights, rate)
            return max(computing, copy_s) if overlaps else computing + copy_s
        case _:
            return computing


def _preprocess(case: Case, networks: Architecture, traces: Traces, rate: Rates) -> float:
    if case.task is Task.T2V:
        return 0.0
    return _vae(case, networks, traces, rate, encode=True, frames=encoded_frames(case, networks))


def _vae(case: Case, networks: Architecture, traces: Traces, rate: Rates, *, encode: bool, frames: int) -> float:
    """Seconds of a pass of the VAE: every rank does it, or waits for one that does."""
    shape = latent_shape(case)
    count = vae_encode_flop if encode else vae_decode_flop
    flop = case.batch * count(networks.vae, frames=frames, height=shape.height, width=shape.width)
    traced = vae_trace(case, networks, traces, encode=encode, frames=frames)
    seconds = max(flop / rate.convolution + traced.moved_bytes / rate.vae_memory, traced.kernels * reach.LAUNCH_S)
    if case.vae_tiling and max(shape.height, shape.width) > TILE_PIXELS // networks.vae.spatial_stride:
        seconds *= _TILED_WORK
    if case.offload in (Offload.GROUP_BLOCK, Offload.GROUP_LEAF, Offload.SEQUENTIAL) and not case.vae_offload:
        # Its layers are called once a latent frame, and come each time; encoder and decoder are counted for either.
        copy_s, overlaps = _copies(case, frames * traced.weight_bytes, rate)
        return max(seconds, copy_s) if overlaps else seconds + copy_s
    return seconds + _vae_moves(case, networks, traced.weight_bytes, rate, decode=not encode)


def _vae_moves(case: Case, networks: Architecture, weights: int, rate: Rates, *, decode: bool) -> float:
    """Seconds of the VAE coming to the device, of what leaves for it, and of its own leaving where that is within the stage."""
    match case.offload:
        case _ if case.vae_offload:
            return _there_and_back(weights, rate)
        case Offload.MODEL:
            expert = transformer_bytes(networks.transformer, case.dtype, case.quant) if decode else 0
            return weights / rate.from_pageable + expert / rate.to_pageable
        case _:
            return 0.0


def _load(case: Case, networks: Architecture, traces: Traces, rate: Rates, gpu: Gpu) -> float:
    """Seconds of Model_Initialization: read from files that are in the case's format, and placed; or made on the spot."""
    text = _text_bytes(case, networks)
    transformers = networks.experts * transformer_bytes(networks.transformer, case.dtype)
    vae = vae_trace(case, networks, traces, encode=False, frames=1).weight_bytes
    weights = text + transformers + vae
    stays = case.offload is Offload.NONE
    if case.weights == Weights.RANDOM:
        return weights / min(reach.FILL_BYTES_PER_S, gpu.memory_bytes_per_s) if stays else weights / reach.READ_BYTES_PER_S
    placed = weights if stays else 0.0
    if case.offload in (Offload.EXPERT, Offload.EXPERT_PINNED):
        placed = text + vae
    return weights / reach.READ_BYTES_PER_S + placed / rate.from_pageable
