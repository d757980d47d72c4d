"""Experts from GGUF files, in the original Wan layout that such files have or in diffusers' (WanTransformer3DModel.from_single_file)."""

from __future__ import annotations

from pathlib import Path

from diffusers import GGUFQuantizationConfig, WanTransformer3DModel

from wansweep.case import Case
from wansweep.levers import Quant
from wansweep.trial.checkpoint import Checkpoint, NoWeightsError
from wansweep.trial.formats import TORCH_DTYPES
from wansweep.trial.invalid import Invalid, refusals


def load(case: Case, weights: Checkpoint) -> dict[str, WanTransformer3DModel]:
    """Component to expert, for those that the case declares quant=gguf of; the rest of the pipeline comes from the checkpoint.

    Raises:
        NoWeightsError: There is no such file on this node.
        Invalid: diffusers refuses the file, or it has not all of the expert's weights.
    """
    files = {"transformer": case.transformer_gguf, "transformer_2": case.transformer_2_gguf}
    return {name: _expert(case, weights, name, files[name]) for name in files if case.quants.get(name) is Quant.GGUF}


def _expert(case: Case, weights: Checkpoint, component: str, named: str) -> WanTransformer3DModel:
    lever = f"{component}_gguf={named}"
    if weights.folder is None:
        raise Invalid(f"{lever}: weights={weights.name} has no config to read the file by; give weights=hub or a folder")
    file = Path(named).expanduser()
    if not file.is_file():
        raise NoWeightsError(f"{lever}: no such file on this node; name a .gguf file that every node has")
    dtype = TORCH_DTYPES[case.dtype]
    with refusals(lever):
        quantisation = GGUFQuantizationConfig(compute_dtype=dtype)
        try:
            # Its config is the checkpoint's, so that nothing is looked up on the hub.
            return WanTransformer3DModel.from_single_file(
                str(file), config=str(weights.folder), subfolder=component, quantization_config=quantisation, dtype=dtype, local_files_only=True
            )
        except NotImplementedError as error:
            # diffusers leaves what a file lacks without memory, and fails as it places the whole: "Cannot copy out of meta tensor".
            raise Invalid(f"{lever}: some of the expert's weights are not in the file; give one of the whole expert") from error
