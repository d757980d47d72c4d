"""A checkpoint converted once to a 16-bit folder in the cache, which every process then maps instead of casting it for itself.

Two processes that map one 16-bit file share its pages; two that cast an fp32 file have a copy each (UMT5-XXL: 10.6 GiB a rank, and
21.2 GiB to read instead of 10.6). Only components that would be cast are written, tensor by tensor, so it takes the memory of the largest
tensor; the others are links. Layout of a safetensors file: https://github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import safe_open

from wansweep.cache import cache_dir, made_once
from wansweep.levers import Dtype
from wansweep.trial.checkpoint import Checkpoint, NoWeightsError
from wansweep.trial.formats import component_dtype, weight_dtype

# Part of the key: change it with anything below.
VERSION = "1"
STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in STORED.items()}
# bf16 files that keep a norm or a table in bf16 too are opened as they are: 0.2 % of an A14B expert is no reason to write it again.
_WORTH = 0.05
# A mapped tensor is as fast as torch's own, and goes through the same kernels, when it begins where torch's would.
_ALIGNMENT_BYTES = 64

Header = dict[str, dict[str, Any]]


def converted(checkpoint: Checkpoint, dtype: Dtype) -> Checkpoint:
    """The checkpoint with its components in the case's 16-bit format; itself when nothing would be cast, or for fp32.

    Raises:
        NoWeightsError: The cache's disk has no room for it.
    """
    folder = checkpoint.folder
    if folder is None or dtype is Dtype.FP32:
        return checkpoint
    parts = [part for part, kind in checkpoint.components().items() if part != "vae" and _worth(checkpoint, part, kind, dtype)]
    if not parts:
        return checkpoint
    target = cache_dir() / "converted" / _key(checkpoint, dtype)

    def make(scratch: Path) -> None:
        _check_room(checkpoint, parts, scratch)
        for entry in folder.iterdir():
            if entry.name not in parts:
                (scratch / entry.name).symlink_to(entry.resolve())
        for part in parts:
            _convert(checkpoint, part, scratch / part, dtype)

    return replace(checkpoint, folder=made_once(target, make), original=folder)


def stored_dtype(checkpoint: Checkpoint, component: str) -> torch.dtype | None:
    """The format most of a component's bytes are in; null for a format that is no plain float, or files that are no safetensors."""
    total: Counter[str] = Counter()
    for file in checkpoint.files(component):
        for tensor in header(file).values():
            begin, end = tensor["data_offsets"]
            total[tensor["dtype"]] += end - begin
    return STORED.get(total.most_common(1)[0][0]) if total else None


def header(file: Path) -> Header:
    """Name to dtype, shape and offsets of each tensor in a safetensors file; nothing else of it is read."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        tensors: Header = json.loads(opened.read(length))
    tensors.pop("__metadata__", None)
    return tensors


def _worth(checkpoint: Checkpoint, part: str, kind: type, dtype: Dtype) -> bool:
    total = changed = 0
    for file in checkpoint.files(part):
        for name, tensor in header(file).items():
            begin, end = tensor["data_offsets"]
            total += end - begin
            changed += (end - begin) * (tensor["dtype"] != _wanted(kind, part, name, tensor["dtype"], dtype))
    return changed > _WORTH * total


def _wanted(kind: type, part: str, name: str, stored: str, dtype: Dtype) -> str:
    """Safetensors' word for the format that a tensor is wanted in; what is no plain float stays."""
    return _NAMES[weight_dtype(kind, name, component_dtype(part, dtype))] if stored in STORED else stored


def _key(checkpoint: Checkpoint, dtype: Dtype) -> str:
    """Names the source and the format: the hub's commit, or for a folder the size and change time of its files."""
    folder = checkpoint.folder
    assert folder is not None
    rules = {part: sorted(getattr(kind, "_keep_in_fp32_modules", None) or ()) for part, kind in checkpoint.components().items()}
    stats = {str(file.relative_to(folder)): file.stat() for file in checkpoint.all_files()}
    times = {} if checkpoint.revision else {name: stat.st_mtime_ns for name, stat in stats.items()}
    where = [checkpoint.name, checkpoint.revision] if checkpoint.revision else [str(folder.resolve())]
    source = [*where, {name: stat.st_size for name, stat in stats.items()}, times]
    digest = hashlib.sha256(json.dumps([VERSION, source, dtype, rules], sort_keys=True).encode()).hexdigest()[:12]
    return f"{checkpoint.name.rstrip('/').rpartition('/')[2]}-{dtype}-{digest}"


def _check_room(checkpoint: Checkpoint, parts: list[str], scratch: Path) -> None:
    """At most the size of the files there are; halves of fp32 ones."""
    needed = sum(file.stat().st_size for part in parts for file in checkpoint.files(part))
    if (free := shutil.disk_usage(scratch).free) < needed:
        room = f"{scratch.parent} has {free / 1e9:.1f} GB free, and up to {needed / 1e9:.1f} GB are needed to convert {', '.join(parts)}"
        raise NoWeightsError(f"weights={checkpoint.name}: {room}; make room, set XDG_CACHE_HOME, or use procedure.convert=false")


def _convert(checkpoint: Checkpoint, part: str, target: Path, dtype: Dtype) -> None:
    files, kind = checkpoint.files(part), checkpoint.components()[part]
    target.mkdir()
    for text in files[0].parent.glob("*.json"):
        shutil.copyfile(text, target / text.name)
    for file in files:
        _convert_file(file, target / file.name, lambda name, stored: _wanted(kind, part, name, stored, dtype))


def _convert_file(source: Path, target: Path, wanted: Callable[[str, str], str]) -> None:
    """Write a file's tensors in the wanted formats, each of whole cache lines first so that all of these are aligned."""
    before = header(source)
    after: Header = {name: {"dtype": wanted(name, tensor["dtype"]), "shape": tensor["shape"]} for name, tensor in before.items()}
    sizes = {name: _bytes(tensor, before[name]) for name, tensor in after.items()}
    order = sorted(after, key=lambda name: (sizes[name] % _ALIGNMENT_BYTES != 0, name))
    at = 0
    for name in order:
        after[name]["data_offsets"] = [at, at + sizes[name]]
        at += sizes[name]
    text = json.dumps({"__metadata__": {"format": "pt", "diffusers": diffusers.__version__}, **after}).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT_BYTES)
    with safe_open(source, framework="pt") as opened, target.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            tensor = opened.get_tensor(name)
            if after[name]["dtype"] in STORED:
                tensor = tensor.to(STORED[after[name]["dtype"]])
            out.write(memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))


def _bytes(tensor: dict[str, Any], before: dict[str, Any]) -> int:
    if tensor["dtype"] not in STORED:
        begin, end = before["data_offsets"]
        return int(end - begin)
    shape: list[int] = tensor["shape"]
    return math.prod(shape) * STORED[tensor["dtype"]].itemsize
