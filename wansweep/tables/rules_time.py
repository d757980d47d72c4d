"""Rules on where the seconds of a run went: loading, the experts' swap, decoding, and what lies in no stage."""

from __future__ import annotations

import polars as pl

from wansweep import hardware
from wansweep.levers import Weights
from wansweep.plan.architecture import ARCHITECTURES, Transformer
from wansweep.record import Record, StageKind
from wansweep.tables.compute import device_names
from wansweep.tables.finding import Answer, Finding, NoData, Row, gib, increase, of_kind, seconds, share, total_s
from wansweep.units import GIB

# Shares of Total_Execution above which a part is worth a line.
LOADING_SHARE = 0.25
COLD_LOADING_SHARE = 0.1
SWAP_SHARE = 0.05
VAE_SHARE = 0.25
UNATTRIBUTED_SHARE = 0.01
# Copies of pinned memory reach 80 to 90 % of a link, those of pageable memory a tenth to a quarter; below this something else takes the time.
LINK_SHARE = 0.3
# A move that is over in less has nothing worth gaining.
SHORT_MOVE_S = 1.0
MOSTLY_CACHED = 0.5
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_LINK_RULE = "expert swap against the link"


def loading(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether the model's loading is a large part of the run."""
    del record
    total, load = total_s(stages), seconds(stages, StageKind.MODEL_INITIALIZATION)
    if load <= LOADING_SHARE * total:
        return None
    return Finding(
        evidence=f"Model_Initialization takes {share(load, total)}.",
        action="Keep the process for more than one video, or load from a local folder in the run's own dtype.",
    )


def cold_load(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether a slow loading came from a disk and not from the page cache."""
    cached = record.weights_cached.value if record and record.weights_cached else None
    if cached is None:
        return NoData(rule="cold load", lacked="the page cache's share of the weights at load")
    total, load = total_s(stages), seconds(stages, StageKind.MODEL_INITIALIZATION)
    if cached >= MOSTLY_CACHED or load <= COLD_LOADING_SHARE * total:
        return None
    read = increase(of_kind(stages, StageKind.MODEL_INITIALIZATION), "read_bytes")
    rate = f", reading {gib(read)} from disk at {read / load / 1e9:.2f} GB/s" if read else ""
    return Finding(
        evidence=f"The page cache held {100 * cached:.0f} % of the weights, and Model_Initialization takes {share(load, total)}{rate}.",
        action="Warm up before measuring (procedure.warmups=1), or put the weights on a faster disk.",
    )


def swap(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether moving experts to the GPU is a considerable part of the run."""
    del record
    total, moving = total_s(stages), seconds(stages, StageKind.STEP_LOADING)
    if moving <= SWAP_SHARE * total:
        return None
    worst = _longest_move(stages)
    evidence = f"Placing experts takes {share(moving, total)}, {worst['duration_s']:.2f} s of it in {worst['stage']}."
    return Finding(evidence=evidence, action="Keep both experts resident (offload=none) if they fit.")


def swap_against_link(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether the longest move of an expert took much longer than its bytes need on the host's link.

    Counted is the expert that comes; what leaves to make room is not, so a rate under a third of the link cannot come from that alone.
    """
    moves = of_kind(stages, StageKind.STEP_LOADING)
    if moves.is_empty() or _longest_move(stages)["duration_s"] < SHORT_MOVE_S:
        return None
    size = _expert_bytes(record)
    if size is None:
        return NoData(rule=_LINK_RULE, lacked="the expert's size")
    links = [gpu.pcie_bytes_per_s for name in (device_names(record) if record else ()) if (gpu := hardware.find(name))]
    if not links:
        return NoData(rule=_LINK_RULE, lacked="the link's bandwidth")
    move, link = _longest_move(stages), min(links)
    rate = size / move["duration_s"]
    if rate >= LINK_SHARE * link:
        return None
    return Finding(
        evidence=f"{move['stage']}: {move['duration_s']:.1f} s for {size / GIB:.1f} GiB = {rate / 1e9:.1f} GB/s of {link / 1e9:.1f} GB/s; "
        f"the link alone needs {size / link:.1f} s.",
        action="Look for what else is in it: weights read from disk or swap, pageable instead of pinned memory, a cast on the CPU.",
    )


def vae_share(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether decoding is a large part of the run."""
    del record
    total, vae = total_s(stages), seconds(stages, StageKind.VAE_DECODING)
    if vae <= VAE_SHARE * total:
        return None
    evidence = f"VAE_Decoding takes {share(vae, total)}."
    return Finding(evidence=evidence, action="With so few steps the decode weighs most; more steps or fewer frames change the balance.")


def unattributed(stages: pl.DataFrame, record: Record | None) -> Answer:
    """Whether more than a rest lies in no stage."""
    del record
    total = total_s(stages)
    rest = total - seconds(stages, *(k for k in StageKind if k not in (StageKind.TOTAL_EXECUTION, StageKind.SAVE)))
    if rest <= UNATTRIBUTED_SHARE * total:
        return None
    evidence = f"{rest:.3f} s of {total:.2f} s ({100 * rest / total:.1f} %) are in no stage."
    return Finding(evidence=evidence, action="Read the other shares with that much doubt.")


def transformer_parameters(transformer: Transformer) -> int:
    """Weights and biases of a denoiser or expert, norms included (diffusers 0.42 models/transformers/transformer_wan.py)."""
    dim, patch_pixels = transformer.dim, transformer.patch**2
    attention = 4 * (dim**2 + dim) + 2 * dim  # query, key, value, output; a norm for query and one for key
    feed_forward = 2 * dim * transformer.ffn_dim + transformer.ffn_dim + dim
    block = 2 * attention + feed_forward + 2 * dim + 6 * dim  # the cross-attention's norm, the modulation table
    patches = transformer.in_channels * patch_pixels * dim + dim
    text = transformer.text_dim * dim + dim + dim**2 + dim
    time = transformer.freq_dim * dim + dim + dim**2 + dim + 6 * dim**2 + 6 * dim
    output = dim * transformer.out_channels * patch_pixels + transformer.out_channels * patch_pixels + 2 * dim
    return transformer.layers * block + patches + text + time + output


def _expert_bytes(record: Record | None) -> int | None:
    """Bytes of the denoiser, or of one expert, in the number format that it was loaded in; null for a miniature or a quantised one."""
    if record is None or record.resolved is None or record.case.weights == Weights.TINY or record.resolved.quant != "none":
        return None
    size = _DTYPE_BYTES.get(record.resolved.dtypes.get("transformer", ""))
    return size and size * transformer_parameters(ARCHITECTURES[record.case.model].transformer)


def _longest_move(stages: pl.DataFrame) -> Row:
    return of_kind(stages, StageKind.STEP_LOADING).sort("duration_s").row(-1, named=True)
