"""The Case: one configuration of a Wan2.2 run, frozen and flat.

What is here is what the user declares. What really happened is `record.Resolved`; the two are kept side by side.
Field names and defaults follow Wan2.2's own (wan/configs/*.py) and diffusers' WanPipeline.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wansweep.levers import Attention, Cache, Compile, Dtype, Offload, Quant, Solver, TextEncoder

# What is read back from a file may say anything; what a user may ask for is `plan.bounds`'.
Count = Annotated[int, Field(gt=-(2**20), lt=2**20)]


class Model(StrEnum):
    """The three Wan2.2 families that diffusers loads."""

    TI2V_5B = "ti2v_5b"
    T2V_A14B = "t2v_a14b"
    I2V_A14B = "i2v_a14b"

    @property
    def has_two_experts(self) -> bool:
        """Whether a high-noise and a low-noise expert share the steps."""
        return self is not Model.TI2V_5B


class Task(StrEnum):
    """What the video is made from: a text, or an image and a text."""

    T2V = "t2v"
    I2V = "i2v"


class Preset(StrEnum):
    """Whose settings a case has: those of Wan2.2's own code, of diffusers and the converted checkpoints, or MLPerf's.

    The last are like MLPerf's alone: a run of them is no MLPerf result.
    """

    OFFICIAL = "official"
    DIFFUSERS_DEFAULT = "diffusers-default"
    MLPERF_LIKE = "mlperf-like"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One configuration. Two cases with equal declared fields are one case.

    Attributes:
        model: Wan2.2 family.
        task: t2v or i2v; only TI2V-5B can do both.
        width: Pixels.
        height: Pixels.
        frames: Frames of video, 4n+1.
        steps: Denoising steps.
        shift: Flow shift of the scheduler. Decides how many steps each A14B expert gets.
        guidance: CFG scale; of the high-noise expert where there are two. At most 1 turns CFG off: one forward a step, in both experts.
        guidance_2: CFG scale of the low-noise expert; null for a model with one. At most 1 with guidance above 1 is computed as it stands:
            two forwards, weighted so; it saves nothing.
        weights: ``tiny``, ``random``, ``hub`` or a folder in diffusers' layout.
        prompt: Text prompt.
        negative_prompt: Text for the unconditional forward.
        name: Set for cases that the sweep names; part of the identity, so that one setting can be run under two names.
        seed: Of the noise.
        dtype: Number format of transformers and text encoder.
        offload: Offload mode.
        gpus: Ranks of the gang, one GPU each; the product of the parallel degrees, or with fsdp a multiple of it.
        ulysses: Degree of Ulysses sequence parallelism.
        ring: Degree of ring attention, outside Ulysses.
        cfg_parallel: 2 gives the two forwards of CFG to two halves of the gang.
        fsdp: The transformers' weights are sharded over the gang, which may then be a multiple of the degrees' product.
        attention: Backend of diffusers' dispatcher, on both experts.
        vae_dtype: Number format of the VAE.
        vae_tiling: The VAE works in tiles.
        vae_slicing: The VAE works one video at a time.
        fused_qkv: Query, key and value in one projection.
        cache: What is kept from step to step.
        cache_threshold: Error that first_block and mag allow; null for diffusers' default.
        cache_interval: Steps that taylorseer and pab compute once in; null for diffusers' default.
        quant: How the transformers' weights are kept; of the high-noise expert alone where `quant_2` says otherwise.
        group_blocks: Blocks that group_block moves together.
        group_stream: Group offload copies in a stream of its own, where the device has streams.
        group_record_stream: With a stream: memory is given back without waiting for it.
        group_non_blocking: Group offload does not wait for its copies.
        group_low_cpu_mem: With a stream: weights are pinned as they are copied, not all beforehand.
        group_disk: Group offload parks weights on disk.
        text_encoder: Where T5 is.
        vae_offload: The VAE waits on the CPU while it does not compute.
        solver: What turns a prediction of noise into the next latent.
        batch: Videos made at once from one prompt.
        text_encoder_quant: How T5's weights are kept.
        quant_2: How the low-noise expert's weights are kept; null for as `quant`.
        transformer_gguf: With quant=gguf: the file of the expert, or of the high-noise one.
        transformer_2_gguf: With quant_2=gguf, or null: the file of the low-noise expert.
        compile: What torch.compile compiles.
        compile_backend: By torch.compile's names.
        label: What tables call the case; given by the sweep, no part of the identity.
        preset: Whose settings these are, all of them; null for settings of its own. Follows from the other fields, so no part of the identity.
    """

    model: Model
    task: Task
    width: Count
    height: Count
    frames: Count
    steps: Count
    shift: float
    guidance: float
    guidance_2: float | None
    weights: str
    prompt: str
    negative_prompt: str
    name: str = ""
    seed: int = 42
    dtype: Dtype = Dtype.BF16
    offload: Offload = Offload.NONE
    gpus: Count = 1
    ulysses: Count = 1
    ring: Count = 1
    cfg_parallel: Count = 1
    fsdp: bool = False
    attention: Attention = Attention.NATIVE
    vae_dtype: Dtype = Dtype.FP32
    vae_tiling: bool = False
    vae_slicing: bool = False
    fused_qkv: bool = False
    cache: Cache = Cache.NONE
    cache_threshold: float | None = None
    cache_interval: int | None = None
    quant: Quant = Quant.NONE
    group_blocks: Count = 1
    group_stream: bool = True
    group_record_stream: bool = False
    group_non_blocking: bool = False
    group_low_cpu_mem: bool = False
    group_disk: bool = False
    text_encoder: TextEncoder = TextEncoder.PLACED
    vae_offload: bool = False
    solver: Solver = Solver.UNIPC
    batch: Count = 1
    text_encoder_quant: Quant = Quant.NONE
    quant_2: Quant | None = None
    transformer_gguf: str = ""
    transformer_2_gguf: str = ""
    compile: Compile = Compile.NONE
    compile_backend: str = "inductor"
    label: str = field(default="", compare=False, metadata={"declared": False})
    preset: Preset | None = field(default=None, compare=False, metadata={"declared": False})

    @property
    def id(self) -> str:
        """Twelve hex digits over the declared fields.

        Fields at their default are left out, so a field added later does not change the ids of old runs.
        """
        values = zip(declared_fields(), _declared_values(self), strict=True)
        declared = {f.name: value for f, value in values if f.default is dataclasses.MISSING or value != f.default}
        return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def quants(self) -> dict[str, Quant]:
        """Component to how its weights are kept, for those that can be quantised."""
        low = {"transformer_2": self.quant if self.quant_2 is None else self.quant_2} if self.model.has_two_experts else {}
        return {"transformer": self.quant, **low, "text_encoder": self.text_encoder_quant}

    @property
    def parallel(self) -> str:
        """The parallel degrees above 1 in words, outermost first: ``ulysses2``, ``cfg2+ring2+ulysses2``, ``ulysses4+fsdp``; else ``none``."""
        return degrees_in_words(cfg=self.cfg_parallel, ring=self.ring, ulysses=self.ulysses, fsdp=self.fsdp)


def degrees_in_words(*, cfg: int, ring: int, ulysses: int, fsdp: bool) -> str:
    """The degrees above 1, as `Case.parallel` has them."""
    degrees = (("cfg", cfg), ("ring", ring), ("ulysses", ulysses))
    words = [f"{name}{degree}" for name, degree in degrees if degree > 1] + ["fsdp"] * fsdp
    return "+".join(words) or "none"


@functools.cache
def declared_fields() -> tuple[dataclasses.Field[object], ...]:
    """The fields a user may set, in order."""
    return tuple(f for f in dataclasses.fields(Case) if f.metadata.get("declared", True))


_declared_values = operator.attrgetter(*(f.name for f in declared_fields()))
