"""Peak memory of a case, a GPU and a host: the weights that are resident in each stage, and what the stage's network allocates beside them.

`peak_bytes` is to be held against ``peak_allocated_bytes``: what tensors and cuDNN's workspaces take of torch's allocator. Beside it a process
has a CUDA context and, with several ranks, NCCL's buffers; `fits_bytes` counts them too, and is to be held against ``peak_device_bytes``.

Margins and constants are named below, each with where it is from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wansweep.case import Case, Task
from wansweep.levers import Attention, Cache, Compile, Dtype, Offload, Quant, TextEncoder, Weights
from wansweep.plan.architecture import Architecture
from wansweep.plan.flops import forwards
from wansweep.plan.geometry import LatentShape, latent_shape
from wansweep.plan.stack import DIFFUSERS, Stack
from wansweep.plan.traces import Traced, Traces
from wansweep.plan.weights import BYTES, largest_linear_bytes, pinned_bytes, text_encoder_bytes, transformer_bytes, transformer_count
from wansweep.record import StageKind
from wansweep.units import GIB, MIB

# cuDNN's workspaces of 3D convolutions: the same decode took 20.83 and 20.91 GiB on a GPU where 19.28 were traced
# (research/wan_in_diffusers.md, 4).
VAE_WORKSPACE = 0.08
# torch gives cuBLAS 32 MiB on Hopper and 8 MiB elsewhere (CUDABlas.cpp, getChosenWorkspaceSize); the larger is taken.
CUBLAS_BYTES = 32 * MIB
# A context with the kernels of torch, cuBLAS and cuDNN loaded; between 0.4 and 0.6 GiB on the cards that public logs show. Assumed.
CONTEXT_BYTES = 512 * MIB
# NCCL's channels and buffers of a communicator; assumed.
NCCL_BYTES = 400 * MIB
# A whole tiled decode holds so many fp32 videos at its end: rows of overlapping tiles (256 of every 192 pixels, 1.78), and three copies.
# Traced whole: 1.70, 3.91 and 5.71 GiB where the video has 0.36, 0.83 and 1.22 (research/wan_in_diffusers.md, 4).
TILED_VIDEOS = 4.7
TILE_PIXELS = 256
# Noise, latent, UniPC's two predictions and last sample, and the two branches' predictions.
LATENT_COPIES = 8
# What a rank's process holds on the host beside weights: python, torch, CUDA's libraries. Assumed; 0.4 GiB without CUDA was measured.
PROCESS_BYTES = 3 * GIB
# A predicted peak is believed to this share (docs/planner.md): a case over the limit by less is tried.
ERROR = 0.05
# Scores of attention as composed of products, in fp32 twice: before and after the softmax.
_MATH_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Predicted peaks.

    Attributes:
        stages_bytes: Allocated on a GPU in each stage, the fullest rank's.
        host_bytes: Of all ranks together.
        beside_bytes: On the GPU, outside torch's allocator.
    """

    stages_bytes: dict[StageKind, int]
    host_bytes: int
    beside_bytes: int

    @property
    def peak_stage(self) -> StageKind:
        """Which stage needs the most."""
        return max(self.stages_bytes, key=lambda stage: self.stages_bytes[stage])

    @property
    def peak_bytes(self) -> int:
        """Most allocated on a GPU."""
        return self.stages_bytes[self.peak_stage]

    def excess_bytes(self, usable_bytes: int) -> int:
        """By how much a GPU with so much to give is too small; negative where there is room."""
        return self.peak_bytes + self.beside_bytes - usable_bytes


def memory(case: Case, networks: Architecture, traces: Traces, stack: Stack = DIFFUSERS) -> Memory:
    """Peaks of a case as it runs.

    Raises:
        CaseError: The model cannot do the case's shape.
    """
    if len(kinds := experts_alike(case)) == 2:
        return _between(*(memory(alike, networks, traces, stack) for alike in kinds), resident=case.offload is Offload.NONE)
    parts = _Parts.of(case, networks, traces, stack)
    work = _allocated(case, networks, traces, stack)
    held = _held(case, networks)
    stages = {stage: round(parts.resident(case, stage) + work[stage] + held + CUBLAS_BYTES) for stage in work}
    if parts.loading:
        stages[StageKind.MODEL_INITIALIZATION] = round(parts.loading)
    return Memory(
        stages_bytes=stages,
        host_bytes=_host(case, networks, parts),
        beside_bytes=CONTEXT_BYTES + (NCCL_BYTES if case.gpus > 1 else 0),
    )


def experts_alike(case: Case) -> tuple[Case, ...]:
    """A case whose experts are kept differently as two cases, each with both experts alike; else the case itself."""
    low = case.quants.get("transformer_2", case.quant)
    alike = replace(case, quant_2=None)
    return (alike,) if low is case.quant else (alike, replace(alike, quant=low))


def _between(high: Memory, low: Memory, *, resident: bool) -> Memory:
    """Memory of a case whose experts are kept as in two others: half of each where both experts are resident, else the larger."""
    either = high.stages_bytes.keys() & low.stages_bytes.keys()
    stages = {stage: (high.stages_bytes[stage], low.stages_bytes[stage]) for stage in high.stages_bytes if stage in either}
    return Memory(
        stages_bytes={stage: sum(both) // 2 if resident else max(both) for stage, both in stages.items()},
        host_bytes=(high.host_bytes + low.host_bytes) // 2,
        beside_bytes=high.beside_bytes,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """Bytes of weights: of each component, of what streaming keeps on the device of it, and of all while they load there."""

    text: float
    vae: float
    expert: float
    experts: int
    kept_whole: float
    block: float
    text_stream: float
    expert_stream: float
    loading: float

    @staticmethod
    def of(case: Case, networks: Architecture, traces: Traces, stack: Stack) -> _Parts:
        numbers, encoder = networks.transformer, networks.text_encoder
        text = text_encoder_bytes(encoder, case.dtype, case.text_encoder_quant)
        expert: float = transformer_bytes(numbers, case.dtype, case.quant)
        experts = networks.experts
        vae = vae_trace(case, networks, traces, encode=False, frames=1).weight_bytes
        largest = largest_linear_bytes(numbers, case.dtype)
        embedding = encoder.vocabulary * encoder.dim * BYTES[case.dtype]
        kept_whole = 0.0
        if case.fsdp:
            # What is in no block stays gathered once it was used, as the root of a model sharded block by block (FSDP, reshard_after_forward).
            count = transformer_count(numbers)
            kept_whole = experts * (count.total - count.linears) * BYTES[case.dtype] + (embedding if stack.fsdp_fp32 else 0)
            expert = transformer_bytes(numbers, Dtype.FP32 if stack.fsdp_fp32 else case.dtype, case.quant) / case.gpus
        blocks = (case.group_blocks if not case.group_stream else 2) if case.offload is Offload.GROUP_BLOCK else 0
        if blocks:
            streams = embedding + (text - embedding) * blocks / encoder.layers, expert * blocks / numbers.layers + largest
        else:
            streams = embedding, (2.0 if case.group_stream else 1.0) * largest
        loading = 0.0
        if case.offload is Offload.NONE and case.weights == Weights.RANDOM:
            # Random weights are made on the device, plain, and quantised there.
            plain = transformer_bytes(numbers, case.dtype)
            loading = text_encoder_bytes(encoder, case.dtype) + vae + experts * plain
        return _Parts(
            text=text / (case.gpus if stack.fsdp_fp32 and case.fsdp else 1),
            kept_whole=kept_whole,
            vae=vae,
            expert=expert,
            experts=experts,
            # Gathered in the format that it computes in, whatever its shards are kept in (torch FlatParamHandle, unsharded_param_dtype).
            block=transformer_bytes(numbers, case.dtype, case.quant) / numbers.layers,
            text_stream=streams[0],
            expert_stream=streams[1],
            loading=loading,
        )

    def resident(self, case: Case, stage: StageKind) -> float:
        """Weights on the device while a stage computes."""
        in_vae = stage in (StageKind.PREPROCESS, StageKind.VAE_DECODING)
        # An image is encoded before the loop, and nothing then sends the VAE away.
        vae = self.vae if in_vae or (case.task is Task.I2V and stage is StageKind.STEP_INFERENCE) else 0
        text = self.text if stage is StageKind.T5_ENCODING else 0
        gathered = self.kept_whole
        if case.fsdp and stage is StageKind.STEP_INFERENCE:
            # Two blocks are whole at a time: the one that computes and the next.
            gathered += 2 * self.block
        match case.offload:
            case Offload.NONE:
                return self._placed(case, stage) + self.experts * self.expert + gathered
            case Offload.EXPERT | Offload.EXPERT_PINNED:
                looping = stage in (StageKind.STEP_INFERENCE, StageKind.VAE_DECODING)
                return self._placed(case, stage) + (self.expert if looping else 0)
            case Offload.MODEL:
                encoded = self.text if stage is StageKind.PREPROCESS and case.task is Task.I2V else text
                return encoded + vae + (self.expert if stage is StageKind.STEP_INFERENCE else 0)
            case Offload.GROUP_BLOCK | Offload.GROUP_LEAF | Offload.SEQUENTIAL:
                streamed = {StageKind.T5_ENCODING: self.text_stream, StageKind.STEP_INFERENCE: self.expert_stream}
                return streamed.get(stage, 0) + (self.vae if in_vae else 0)

    def _placed(self, case: Case, stage: StageKind) -> float:
        """T5 and VAE where no mode moves them."""
        text = self.text if case.text_encoder is TextEncoder.PLACED else 0
        if case.text_encoder is TextEncoder.DROPPED and stage is StageKind.T5_ENCODING:
            text = self.text
        away = case.vae_offload and stage not in (StageKind.PREPROCESS, StageKind.VAE_DECODING)
        return text + (0 if away else self.vae)


def vae_trace(case: Case, networks: Architecture, traces: Traces, *, encode: bool, frames: int | None = None) -> Traced:
    """The VAE's pass over the case's latent, or over so many frames of it, untiled."""
    shape = latent_shape(case)
    size = (frames or shape.frames, shape.height, shape.width)
    return traces.vae(networks.vae, size, encode=encode, dtype=case.vae_dtype, batch=1 if case.vae_slicing else case.batch)


def transformer_trace(case: Case, networks: Architecture, traces: Traces) -> Traced:
    """A forward of the transformer on one rank."""
    shape = latent_shape(case)
    return traces.transformer(
        networks.transformer,
        (shape.frames, shape.height, shape.width),
        batch=case.batch,
        dtype=case.dtype,
        text_tokens=networks.text_encoder.tokens,
        ranks=case.ulysses * case.ring,
    )


def encoded_frames(case: Case, networks: Architecture) -> int:
    """Latent frames of what the VAE encodes before the loop: none, the one image, or for I2V-A14B the whole padded clip."""
    if case.task is Task.T2V:
        return 0
    return 1 if networks.transformer.token_timesteps else latent_shape(case).frames


def rank_tokens(case: Case, networks: Architecture) -> int:
    """Tokens of the batch that one rank has."""
    shape, patch = latent_shape(case), networks.transformer.patch
    return case.batch * shape.frames * (shape.height // patch) * (shape.width // patch) // (case.ulysses * case.ring)


def _allocated(case: Case, networks: Architecture, traces: Traces, stack: Stack) -> dict[StageKind, float]:
    """What each stage allocates beside weights."""
    numbers = networks.transformer
    tokens = rank_tokens(case, networks)
    text = 0 if case.text_encoder is TextEncoder.CPU else traces.text_encoder(networks.text_encoder, dtype=case.dtype).peak_bytes
    forward: float = transformer_trace(case, networks, traces).peak_bytes
    if stack.held_bytes is not None:
        whole = stack.whole_bytes * (case.ulysses * case.ring)
        forward = (stack.held_bytes - stack.whole_bytes + whole) * tokens * numbers.dim
    if case.ulysses * case.ring > 1:
        # The whole sequence's embedding is made before it is split, and an exchange has its q, k, v and output twice.
        forward += 2 * tokens * numbers.dim * BYTES[case.dtype] * (case.ulysses * case.ring - 1) + 4 * tokens * numbers.dim * BYTES[case.dtype]
    if case.attention is Attention.NATIVE_MATH:
        forward += _MATH_BYTES * numbers.heads / case.ulysses * tokens * tokens * case.ulysses**2 * case.ring / case.batch
    if case.quant is not Quant.NONE:
        forward += largest_linear_bytes(numbers, case.dtype)
    if case.compile is Compile.FULL:
        # A graph of the whole network keeps what its blocks share alive; assumed one more stream of tokens.
        forward += tokens * numbers.dim * BYTES[case.dtype]
    forward += cache_bytes(case, networks)
    encoded = encoded_frames(case, networks)
    return {
        StageKind.T5_ENCODING: text,
        StageKind.PREPROCESS: _vae_bytes(case, networks, traces, encode=True, frames=encoded) if encoded else 0,
        StageKind.STEP_INFERENCE: forward,
        StageKind.VAE_DECODING: _vae_bytes(case, networks, traces, encode=False, frames=latent_shape(case).frames),
    }


def cache_bytes(case: Case, networks: Architecture) -> float:
    """What a cache keeps of both CFG branches from step to step: streams of tokens, so many of each block or of the whole network.

    TaylorSeer keeps a value and a first derivative of three parts of a block, PAB the self-attention's output; the others keep residuals of the
    whole (diffusers 0.42 hooks/taylorseer_cache.py, pyramid_attention_broadcast.py, first_block_cache.py, mag_cache.py). A cache is one
    expert's.
    """
    layers = networks.transformer.layers
    streams = {Cache.NONE: 0, Cache.FIRST_BLOCK: 3, Cache.TAYLORSEER: 6 * layers, Cache.PAB: layers, Cache.MAG: 1}[case.cache]
    branches = forwards(case) / case.cfg_parallel
    return streams * networks.experts * branches * rank_tokens(case, networks) * networks.transformer.dim * BYTES[case.dtype]


def _vae_bytes(case: Case, networks: Architecture, traces: Traces, *, encode: bool, frames: int) -> float:
    """What a pass of the VAE allocates, workspaces included, whole or in tiles."""
    margin = 1 + VAE_WORKSPACE
    whole = vae_trace(case, networks, traces, encode=encode, frames=frames).peak_bytes * margin
    if not case.vae_tiling:
        return whole
    shape, side = latent_shape(case), TILE_PIXELS // networks.vae.spatial_stride
    if shape.height <= side and shape.width <= side:
        return whole
    tile = (frames, min(side, shape.height), min(side, shape.width))
    one = traces.vae(networks.vae, tile, encode=encode, dtype=case.vae_dtype).peak_bytes * margin
    stitched = 0.0 if encode else TILED_VIDEOS * video_bytes(case)
    rows = 0.0 if encode else (TILED_VIDEOS - 3) * video_bytes(case)
    return max(stitched, rows + one) + (video_bytes(case) if encode else 0)


def video_bytes(case: Case) -> int:
    """The video as the VAE gives it."""
    return case.batch * 3 * case.frames * case.height * case.width * BYTES[case.vae_dtype]


def _held(case: Case, networks: Architecture) -> float:
    """Latents, condition and embeddings that every stage after T5 holds."""
    shape: LatentShape = latent_shape(case)
    pixels = shape.frames * shape.height * shape.width * case.batch
    condition = networks.transformer.in_channels - shape.channels
    texts = 2 * networks.text_encoder.tokens * networks.text_encoder.dim * BYTES[case.dtype] * case.batch
    return pixels * 4 * (LATENT_COPIES * shape.channels + condition) + texts


def _host(case: Case, networks: Architecture, parts: _Parts) -> int:
    """Host memory of all ranks: mapped files count once, what a rank keeps for itself counts for each.

    Weights from files pass through the host; random ones are made where they stay.
    """
    files = parts.text + parts.vae + parts.experts * parts.expert * (case.gpus if case.fsdp else 1)
    if case.weights == Weights.RANDOM and case.offload is Offload.NONE:
        files = 0
    kept = 0.0
    match case.offload:
        case Offload.EXPERT_PINNED:
            kept = parts.experts * pinned_bytes(networks.transformer, case.dtype, case.quant)
            files -= parts.experts * parts.expert
        case Offload.GROUP_BLOCK | Offload.GROUP_LEAF if case.group_stream and not case.group_low_cpu_mem and not case.group_disk:
            kept = parts.experts * pinned_bytes(networks.transformer, case.dtype, case.quant) + parts.text + parts.vae
        case Offload.MODEL:
            # What comes back from the device is a copy of the rank's own.
            kept, files = files, 0
    if case.offload is Offload.NONE and case.text_encoder is TextEncoder.CPU and not files:
        kept = parts.text
    return round(case.gpus * (PROCESS_BYTES + kept) + files)
