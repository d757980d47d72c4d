"""Drift of a run: measured once, kept in its folder, and in its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.conftest import make_case
from tests.drift.videos import made
from tests.makers import make_record, make_resolved
from tests.runs import run_folder, wansweep
from wansweep.case import Case
from wansweep.config import read_request
from wansweep.drift import keepsake
from wansweep.levers import Offload, Quant
from wansweep.publish import Publisher, read_results
from wansweep.record import Record
from wansweep.report import html, markdown
from wansweep.store import RunFolder, create
from wansweep.tables.constraints import Limits
from wansweep.tables.recommendation import Objective, recommend
from wansweep.telemetry.environment import environment

PLAIN = make_case(label="plain")
FP8 = make_case(label="fp8", quant=Quant.FP8_CAST)
OFFLOADED = make_case(label="offloaded", offload=Offload.MODEL)
SHUFFLED = make_case(label="shuffled", quant=Quant.FP8_CAST, seed=7)


def trial(case: Case, number: int = 0, *, sha: str) -> Record:
    ran = replace(make_resolved(case), latents_sha256=sha * 64, output_sha256=sha * 64)
    return replace(make_record(case, trial=number), resolved=ran)


def a_run(reports: Path, *records: Record, **kept: keepsake.Keepsake) -> RunFolder:
    """A folder with the records, and what trials kept: by label, of the later trials with the number behind it."""
    cases = tuple({record.case_id: record.case for record in records}.values())
    quick = read_request(["+sweep=quick"]).sweep
    folder = create(reports, replace(quick, cases=cases), environment())
    publisher = Publisher(folder)
    for record in records:
        folder.append(record)
        name = record.label + (str(record.trial) if record.trial else "")
        if name in kept:
            frames = [Image.fromarray(frame) for frame in kept[name].frames]
            keepsake.write(folder.drift / f"{record.case_id}-{record.trial}.npz", kept[name].latents, frames, kept[name].numbers)
    assert publisher.records == []
    return folder


def rows(folder: RunFolder, *, measure: bool = True) -> dict[str, dict[str, Any]]:
    lines: list[str] = []
    results = read_results(folder, measure=lines.append if measure else None)
    return {row["label"]: row for row in results.summary.iter_rows(named=True)}


def test_a_lossy_case_is_held_against_its_twin_and_the_twins_repeats_are_the_floor(tmp_path: Path) -> None:
    folder = a_run(
        tmp_path,
        *(trial(PLAIN, 0, sha="a"), trial(PLAIN, 1, sha="b"), trial(FP8, sha="c")),
        plain=made(),
        plain1=made(scale=1.001),
        fp8=made(gain=0.8, scale=1.02),
    )
    row = rows(folder)["fp8"]
    assert row["drift_against"] == "plain"
    assert row["ssim"] == pytest.approx(0.9759, abs=1e-3)
    assert row["latent_error"] == pytest.approx(0.02, rel=1e-4)
    assert row["latent_error_floor"] == pytest.approx(0.001, rel=1e-3)
    assert (row["drift_n"], row["drift_floor_n"], row["drift_why"]) == (1, 1, None)


def test_a_measured_drift_outlives_what_it_was_measured_from_but_not_the_trial(tmp_path: Path) -> None:
    folder = a_run(tmp_path, trial(PLAIN, sha="a"), trial(FP8, sha="c"), plain=made(), fp8=made(gain=0.8))
    before = rows(folder)["fp8"]["ssim"]
    for file in folder.drift.glob("*.npz"):
        file.unlink()
    assert rows(folder, measure=False)["fp8"]["ssim"] == before
    folder.append(trial(FP8, sha="d"))
    again = rows(folder)["fp8"]
    assert again["ssim"] is None
    assert "files in drift/ are gone" in again["drift_why"]


def test_nothing_is_measured_unless_asked_and_then_only_once(tmp_path: Path) -> None:
    folder = a_run(tmp_path, trial(PLAIN, sha="a"), trial(FP8, sha="c"), plain=made(), fp8=made(gain=0.8))
    assert rows(folder, measure=False)["fp8"]["ssim"] is None
    lines: list[str] = []
    read_results(folder, measure=lines.append)
    assert lines == ["drift 1/1: fp8 against plain"]
    read_results(folder, measure=lines.append)
    assert len(lines) == 1


def test_another_seed_is_no_twin(tmp_path: Path) -> None:
    folder = a_run(tmp_path, trial(PLAIN, sha="a"), trial(FP8, sha="c"), trial(SHUFFLED, sha="d"), plain=made(), fp8=made(), shuffled=made())
    row = rows(folder)["shuffled"]
    assert row["ssim"] is None
    assert row["drift_against"] is None
    assert row["drift_why"] == "no lossless twin: the nearest lossless case, plain, is asked for another video (seed 42 -> 7)"


def test_a_lossless_lever_that_gives_the_same_bits_has_no_drift_without_any_file(tmp_path: Path) -> None:
    folder = a_run(tmp_path, trial(PLAIN, sha="a"), trial(OFFLOADED, sha="a"), trial(FP8, sha="c"))
    found = rows(folder)
    assert [found["offloaded"][name] for name in ("psnr_db", "psnr_db_why", "ssim", "flip", "latent_error")] == [
        None,
        "identical",
        1.0,
        0.0,
        0.0,
    ]
    assert found["fp8"]["ssim"] is None


def test_the_reports_tell_drift_and_recommend_goes_by_it(tmp_path: Path) -> None:
    folder = a_run(tmp_path, trial(PLAIN, sha="a"), trial(FP8, sha="c"), plain=made(), fp8=made(gain=0.8, scale=1.02))
    results = read_results(folder, measure=lambda _: None)
    text = markdown.render(results)
    assert "| fp8 | quant=fp8\\_cast |".replace("\\_", "_") + " plain | 1 | 30.1 | 0.9759 | 0.217 | 0.0200 | n/a | n/a |" in text
    page = html.render(results)
    assert 'id="chart-drift"' in page
    assert "SSIM 0.9759, PSNR 30.1 dB, FLIP 0.217, latent error 0.0200 (floor not measured), against plain" in page
    near, far = (recommend(results, Limits(ssim=least), Objective.TIME)[0] for least in (0.97, 0.98))
    by_label = [{one.case.label: one.met for one in answer.candidates} for answer in (near, far)]
    assert by_label == [{"plain": True, "fp8": True}, {"plain": True, "fp8": False}]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A real run: a lossless case, which runs twice, a lossy one, and a lever that changes nothing."""
    configs = tmp_path_factory.mktemp("conf")
    (configs / "sweep").mkdir()
    (configs / "sweep" / "drifting.yaml").write_text(
        "# @package _global_\nbase: {weights: tiny, model: ti2v_5b, steps: 2}\ncluster: {exclusive: false}\nsweep:\n  name: drifting\n"
        "  cases: {plain: {}, offloaded: {offload: model}, fp8: {quant: fp8_cast}}\n"
    )
    reports = tmp_path_factory.mktemp("reports")
    done = wansweep("+sweep=drifting", "--config-dir", str(configs), f"reports={reports}", "procedure.isolation=warm")
    assert done.returncode == 0, done.stderr
    return run_folder(done)


def test_a_run_measures_its_lossy_cases_and_its_own_floor(swept: RunFolder) -> None:
    summary = pl.read_parquet(swept.path / "summary.parquet")
    found = {row["label"]: row for row in summary.iter_rows(named=True)}
    fp8, offloaded, plain = found["fp8"], found["offloaded"], found["plain"]
    assert 30 < fp8["psnr_db"] < 80
    assert 0.9 < fp8["ssim"] < 1
    assert 0 < fp8["flip"] < 0.2
    assert 1e-4 < fp8["latent_error"] < 0.1
    assert (plain["n"], plain["drift_why"]) == (2, "what the others of its workload are held against")
    # A CPU adds in the same order every time.
    assert (fp8["ssim_floor"], fp8["latent_error_floor"], fp8["drift_floor_n"]) == (1.0, 0.0, 1)
    assert (offloaded["psnr_db_why"], offloaded["latent_error"]) == ("identical", 0.0)


def test_what_was_kept_is_the_video_that_was_made(swept: RunFolder) -> None:
    kept = keepsake.read(next(swept.drift.glob("*.npz")))
    assert kept is not None
    assert kept.numbers == (0, 3, 6, 10, 13, 16)
    assert kept.frames.shape == (6, 64, 128, 3)
    assert kept.latents.dtype == np.float32
