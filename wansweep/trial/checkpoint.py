"""Where a case's weights are: a folder on this node, and what is known of it before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

from wansweep.case import Case
from wansweep.levers import Weights
from wansweep.sweep import ModelSource
from wansweep.trial.formats import module_class
from wansweep.trial.networks import pipeline_class
from wansweep.trial.tiny import tiny_checkpoint

INDEX = "model_index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class NoWeightsError(Exception):
    """The weights are not there or not whole; the message says what was looked for, where, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Weights on this node.

    Attributes:
        name: What the record calls them: ``tiny``, ``random``, the hub id, or the folder that the user named.
        folder: That is opened, in diffusers' layout; null for random weights, which have none.
        revision: Commit of the hub's repository; null elsewhere.
        original: The folder that `folder` was converted from; null where the files are opened as they came.
    """

    name: str
    folder: Path | None
    revision: str | None = None
    original: Path | None = None

    def files(self, component: str) -> tuple[Path, ...]:
        """The safetensors files that loading a component opens: the shards of its index, or the one file without an index."""
        part = self._root / component
        for index in sorted(part.glob("*.safetensors.index.json")):
            return tuple(part / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values())))
        return tuple(part / name for name in ("diffusion_pytorch_model.safetensors", "model.safetensors") if (part / name).exists())

    def components(self) -> dict[str, type]:
        """Component to the class of its module, for those that have weights."""
        if self.folder is None:
            return {}
        named = {name: entry for name, entry in json.loads((self.folder / INDEX).read_bytes()).items() if isinstance(entry, list)}
        found = {name: module_class(library, kind) for name, (library, kind) in named.items() if library}
        return {name: kind for name, kind in found.items() if kind is not None}

    def all_files(self) -> tuple[Path, ...]:
        """The safetensors files of every component."""
        return tuple(file for component in self.components() for file in self.files(component))

    @property
    def _root(self) -> Path:
        assert self.folder is not None, "random weights have no files"
        return self.folder


def locate(case: Case, source: ModelSource) -> Checkpoint:
    """Where the case's weights are; a miniature is built, and a hub's repository fetched, when it is not there.

    Raises:
        NoWeightsError: There are none, or files are missing.
    """
    match case.weights:
        case Weights.RANDOM:
            return Checkpoint(name=Weights.RANDOM, folder=None)
        case Weights.TINY:
            return Checkpoint(name=Weights.TINY, folder=tiny_checkpoint(case.model, boundary=source.boundary))
        case Weights.HUB:
            folder = _fetched(case, source)
            return _whole(Checkpoint(name=source.repo, folder=folder, revision=folder.name), _way_out(source))
        case named:
            folder = Path(named).expanduser()
            way_out = "name a folder that `save_pretrained` or `hf download --local-dir` made, or use weights=hub, random or tiny"
            if not folder.is_dir():
                raise NoWeightsError(f"weights={named}: no such folder on this node; {way_out}")
            return _whole(Checkpoint(name=str(folder), folder=folder), way_out)


def _fetched(case: Case, source: ModelSource) -> Path:
    """The snapshot of the hub's repository in the local cache, downloaded first unless HF_HUB_OFFLINE forbids it or it is there."""
    try:
        offline = constants.is_offline_mode()
        return Path(pipeline_class(case.task).download(source.repo, revision=source.revision, local_files_only=offline))
    except (OSError, ValueError, HFValidationError, OfflineModeIsEnabled) as error:
        where = f"weights=hub: {source.repo} at revision {source.revision or 'main'} is not in the cache {constants.HF_HUB_CACHE}"
        # The library's words come last and short: a reason is cut at 500 characters.
        why = (
            "HF_HUB_OFFLINE is set, so it was not fetched" if constants.is_offline_mode() else f"fetching it failed: {_first_line(error)[:120]}"
        )
        raise NoWeightsError(f"{where}; {_way_out(source)} ({why})") from error


def _way_out(source: ModelSource) -> str:
    revision = f" --revision {source.revision}" if source.revision else ""
    fetch = f"run `hf download {source.repo}{revision}` where there is a network"
    return f"{fetch}, set HF_HOME to a cache that has it, or use weights=/folder or random"


def _whole(checkpoint: Checkpoint, way_out: str) -> Checkpoint:
    """The checkpoint, when nothing of it is missing: a download that was cut short leaves a snapshot that looks like one."""
    folder = checkpoint.folder
    assert folder is not None
    if not (folder / INDEX).is_file():
        raise NoWeightsError(f"weights={checkpoint.name}: {folder} has no {INDEX}, so it is not in diffusers' layout; {way_out}")
    missing = [file for file in checkpoint.all_files() if not file.is_file()]
    missing += [folder / part / "config.json" for part in checkpoint.components() if not (folder / part / "config.json").is_file()]
    without = [part for part in checkpoint.components() if not checkpoint.files(part)]
    missing += [folder / part for part in without]
    if pickled := [file for part in without for form in _PICKLES for file in sorted((folder / part).glob(form))]:
        raise NoWeightsError(
            f"weights={checkpoint.name}: {pickled[0].relative_to(folder)} is a pickle, which can run any code as it is read; only "
            f"safetensors are read: load it where you trust it and save_pretrained() it, or use weights=hub or random"
        )
    if missing:
        gone = f"{missing[0].relative_to(folder)}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}"
        raise NoWeightsError(f"weights={checkpoint.name}: {folder} is not whole, {gone} missing; {way_out}")
    return checkpoint


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
