"""Where weights come from: the hub's cache, folders whole and not, the copy in another format, and the parts of loading."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import make_a14b, make_case
from tests.trial.test_generate import TEXT_TOKENS, run, source
from wansweep.cache import cache_dir, made_once
from wansweep.case import Case, Model, Task
from wansweep.levers import Dtype
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.plan.geometry import as_run
from wansweep.record import Outcome, Stage
from wansweep.sweep import ModelSource
from wansweep.trial import pipeline
from wansweep.trial.checkpoint import Checkpoint, NoWeightsError, locate
from wansweep.trial.clock import HostClock
from wansweep.trial.converted import converted, header, stored_dtype
from wansweep.trial.generate import generate
from wansweep.trial.stages import Stages, read_journal
from wansweep.trial.tiny import miniature, tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "some-org/Wan-Diffusers"
SIZE = {"width": 128, "height": 64, "frames": 5, "steps": 2}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of our own, empty. The library reads HF_HOME when it is imported, so its constant is what is changed here."""
    cache = tmp_path / "hf" / "hub"
    for where in ("huggingface_hub.constants.HF_HUB_CACHE", "diffusers.utils.constants.HF_MODULES_CACHE"):
        monkeypatch.setattr(where, str(cache), raising=False)
    monkeypatch.setenv("HF_HOME", str(cache.parent))
    return cache


def hub_layout(hub: Path, model: Model, boundary: float | None) -> Path:
    """A tiny checkpoint as the hub's cache holds it; returns the snapshot."""
    repo = hub / f"models--{REPO.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    snapshot = repo / "snapshots" / COMMIT
    checkpoint = tiny_checkpoint(model, boundary=boundary)
    for file in checkpoint.rglob("*"):
        if file.is_file():
            (snapshot / file.relative_to(checkpoint)).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / file.relative_to(checkpoint)).symlink_to(file)
    return snapshot


def hub_source(revision: str | None = None) -> ModelSource:
    return ModelSource(repo=REPO, revision=revision, fps=16, boundary=0.875)


def test_the_hubs_cache_is_found_offline_with_its_commit_and_files(hub: Path) -> None:
    snapshot = hub_layout(hub, Model.T2V_A14B, 0.875)
    found = locate(make_a14b(weights="hub"), hub_source())
    assert (found.name, found.folder, found.revision) == (REPO, snapshot, COMMIT)
    assert {file.relative_to(snapshot).parts[0] for file in found.all_files()} == {"text_encoder", "transformer", "transformer_2", "vae"}
    assert locate(make_a14b(weights="hub"), hub_source(COMMIT)) == found


def test_a_trial_from_the_hubs_cache_records_repository_commit_and_page_cache(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_layout(hub, Model.T2V_A14B, 0.875)
    monkeypatch.setattr("tests.trial.test_generate.source", lambda _: hub_source())
    _, ending = run(make_a14b(weights="hub", **SIZE), tmp_path)
    assert (ending.outcome, ending.reason) == (Outcome.OK, "")
    assert ending.resolved is not None
    assert (ending.resolved.weights, ending.resolved.revision) == (REPO, COMMIT)
    assert ending.weights_cached is not None
    assert ending.weights_cached.value is not None


@pytest.mark.parametrize("revision", [None, "v2"])
def test_a_repository_that_is_not_there_is_told_with_its_cache_and_the_way_out(hub: Path, revision: str | None) -> None:
    with pytest.raises(NoWeightsError) as caught:
        locate(make_a14b(weights="hub"), hub_source(revision))
    message = str(caught.value)
    for told in (REPO, f"revision {revision or 'main'}", str(hub), "HF_HUB_OFFLINE is set", f"hf download {REPO}", "HF_HOME"):
        assert told in message
    assert "\n" not in message


def test_what_to_do_about_a_failed_download_is_not_cut_off(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to the hub " * 100)

    monkeypatch.setattr("wansweep.trial.checkpoint.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr("wansweep.trial.networks.WanPipeline.download", unreachable)
    _, ending = run(make_a14b(weights="hub"), tmp_path)
    assert ending.outcome is Outcome.CRASH
    assert "weights=/folder or random (fetching it failed: no route to the hub" in ending.reason


def test_a_download_that_was_cut_short_is_no_checkpoint(hub: Path) -> None:
    snapshot = hub_layout(hub, Model.T2V_A14B, 0.875)
    (snapshot / "transformer_2" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(NoWeightsError, match="not whole, transformer_2 missing"):
        locate(make_a14b(weights="hub"), hub_source())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path, make_case(), max_shard_size="100KB")
    shards = sorted((folder / "transformer").glob("*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(NoWeightsError, match=f"{shards[1].name} missing"):
        locate(make_case(weights=str(folder)), source(make_case()))


@pytest.mark.parametrize(("made", "told"), [(False, "no such folder"), (True, "no model_index.json")])
def test_a_folder_that_is_none_is_a_reason_and_no_traceback(tmp_path: Path, made: bool, told: str) -> None:
    folder = tmp_path / "weights"
    if made:
        folder.mkdir()
    _, ending = run(make_case(weights=str(folder)), tmp_path)
    assert ending.outcome is Outcome.CRASH
    assert ending.reason.startswith(f"weights={folder}: ")
    assert told in ending.reason


def saved(tmp_path: Path, case: Case, **arguments: object) -> Path:
    """A checkpoint in fp32, as the hub's text encoder is."""
    folder = tmp_path / "checkpoint"
    plain = pipeline.load(replace(case, dtype=Dtype.FP32), source(case), pipeline.checkpoint(replace(case, dtype=Dtype.FP32), source(case)))
    plain.save_pretrained(folder, **arguments)
    return folder


@pytest.mark.parametrize("dtype", [Dtype.BF16, Dtype.FP16])
def test_a_converted_checkpoint_casts_nothing_and_gives_the_same_bits(tmp_path: Path, dtype: Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    case = as_run(make_a14b(steps=3, dtype=dtype))
    case = replace(case, weights=str(saved(tmp_path, case)))
    direct = pipeline.checkpoint(case, source(case), convert=False)
    copy = pipeline.checkpoint(case, source(case))
    assert direct.original is None
    assert copy.original == direct.folder
    assert copy.folder is not None
    assert copy.folder.is_relative_to(cache_dir())
    assert [stored_dtype(copy, part) for part in ("transformer", "text_encoder")] == [
        getattr(torch, {"bf16": "bfloat16", "fp16": "float16"}[dtype])
    ] * 2
    assert (copy.folder / "vae").is_symlink()

    monkeypatch.setattr("wansweep.trial.converted._convert", lambda *_: pytest.fail("converted again"))
    again = pipeline.checkpoint(case, source(case))
    assert again == copy
    before = {name: tensor.data_ptr() for name, tensor in opened(case, again)}
    assert before
    plain, mapped = (pipeline.load(case, source(case), weights) for weights in (direct, again))
    for name, module in pipeline.modules(plain).items():
        theirs = pipeline.modules(mapped)[name].state_dict()
        assert all(torch.equal(tensor, theirs[key]) and tensor.dtype == theirs[key].dtype for key, tensor in module.state_dict().items())
    outputs = [generate(pipe, case, Stages(model=case.model, clock=HostClock()), text_tokens=TEXT_TOKENS) for pipe in (plain, mapped)]
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1], outputs[1][1])


def opened(case: Case, weights: Checkpoint) -> list[tuple[str, torch.Tensor]]:
    """The parameters of a load in which casting was seen to keep each one's storage."""
    seen: list[tuple[str, torch.Tensor]] = []

    def watched(module: torch.nn.Module, dtype: torch.dtype) -> None:
        before = {name: p.data_ptr() for name, p in module.named_parameters()}
        real(module, dtype)
        assert {name: p.data_ptr() for name, p in module.named_parameters()} == before
        seen.extend(module.named_parameters())

    real = pipeline.cast
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wansweep.trial.pipeline.cast", watched)
        pipeline.load(case, source(case), weights)
    return seen


def test_a_converted_checkpoint_is_mapped_and_aligned(tmp_path: Path) -> None:
    case = make_case(weights=str(saved(tmp_path, make_case(), max_shard_size="200KB")))
    copy = pipeline.checkpoint(case, source(case))
    files = copy.files("transformer")
    assert len(files) > 1
    for file in files:
        assert {name: tuple(t["shape"]) for name, t in header(file).items()} == {n: tuple(t.shape) for n, t in load_file(file).items()}
    pipe = pipeline.load(case, source(case), copy)
    maps = Path("/proc/self/maps").read_text()
    assert str(files[0]) in maps
    assert all(p.data_ptr() % 64 == 0 for p in pipe.transformer.parameters() if p.numel() * p.element_size() % 64 == 0)


def test_what_is_in_the_format_already_is_opened_as_it_is(tmp_path: Path) -> None:
    case = make_case()
    folder = tmp_path / "half"
    pipeline.load(case, source(case), pipeline.checkpoint(case, source(case))).save_pretrained(folder)
    found = locate(replace(case, weights=str(folder)), source(case))
    assert converted(found, Dtype.BF16) is found
    assert converted(found, Dtype.FP32) is found


def test_a_changed_checkpoint_is_converted_anew(tmp_path: Path) -> None:
    folder = saved(tmp_path, make_case())
    case = make_case(weights=str(folder))
    first = pipeline.checkpoint(case, source(case))
    file = first.original / "transformer" / "diffusion_pytorch_model.safetensors"
    os.utime(file, ns=(1, 1))
    assert pipeline.checkpoint(case, source(case)).folder != first.folder


def test_a_cache_without_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(weights=str(saved(tmp_path, make_case())))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(NoWeightsError, match=r"procedure\.convert=false"):
        pipeline.checkpoint(case, source(case))
    assert not list((cache_dir() / "converted").glob(".*"))


def test_a_folder_that_a_dead_process_left_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".thing-dead").mkdir()

    def make(scratch: Path) -> None:
        (scratch / "file").write_text("whole")

    assert (made_once(tmp_path / "thing", make) / "file").read_text() == "whole"
    assert not list(tmp_path.glob(".*"))
    made_once(tmp_path / "thing", lambda _: pytest.fail("made twice"))


def loading(case: Case, folder: Path, **procedure: object) -> Stage:
    folder.mkdir()
    task, ending = run(case, folder, **procedure)
    assert (ending.outcome, ending.reason) == (Outcome.OK, "")
    assert ending.resolved is not None
    assert (ending.resolved.converted is not None) is procedure["convert"]
    return next(stage for stage in read_journal(task.journal(0)) if stage.name == "Model_Initialization")


@pytest.mark.parametrize("convert", [True, False])
def test_the_parts_of_loading_add_up_to_the_stage(tmp_path: Path, convert: bool) -> None:
    case = make_a14b(**SIZE, weights=str(saved(tmp_path, make_a14b())))
    shares = []
    for attempt in range(3):  # on a busy machine a time slice is a tenth of so short a stage
        stage = loading(case, tmp_path / str(attempt), convert=convert)
        parts = [stage.figures[name].value or 0 for name in ("open_s", "read_s", "cast_s", "h2d_s")]
        assert all(part > 0 for part in parts)
        assert stage.figures["fill_s"].why == "not_applicable"
        shares.append(sum(parts) / (stage.duration_s or 1))
        assert shares[-1] <= 1
        if shares[-1] > 0.95:
            return
    pytest.fail(f"shares of the stage: {shares}")


@pytest.mark.parametrize(
    ("model", "task"), [(Model.TI2V_5B, Task.T2V), (Model.TI2V_5B, Task.I2V), (Model.T2V_A14B, Task.T2V), (Model.I2V_A14B, Task.I2V)]
)
def test_all_four_sources_give_the_same_pipeline(model: Model, task: Task, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, model, miniature(model))
    case = make_case(model=model, task=task)
    boundary = source(case).boundary
    facts = ModelSource(repo=REPO, revision=None, fps=16, boundary=boundary)
    hub_layout(hub, model, boundary)
    found = []
    for weights in ("tiny", "random", "hub", str(tiny_checkpoint(model, boundary=boundary))):
        named = replace(case, weights=weights)
        pipe = pipeline.load(named, facts, pipeline.checkpoint(named, facts))
        parts = {name: (type(part), getattr(part, "dtype", None)) for name, part in pipe.components.items()}
        grown = {name: {k: (v.shape, v.dtype) for k, v in module.state_dict().items()} for name, module in pipeline.modules(pipe).items()}
        found.append((type(pipe), parts, grown, pipe.config.boundary_ratio, pipe.config.expand_timesteps))
    for other in found[1:]:
        assert other == found[0]
