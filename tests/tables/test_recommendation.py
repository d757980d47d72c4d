"""Which case to use, under which constraints, and the line that uses it."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from tests.conftest import DATA, make_case
from tests.makers import make_record, make_resolved, make_stages, with_figures
from wansweep.case import Case, declared_fields
from wansweep.config import read_request
from wansweep.errors import ConfigError
from wansweep.lossy import FREE, LOSSLESS, lossy_levers, workload
from wansweep.quantities import byte_count, seconds, share
from wansweep.record import Outcome, Record
from wansweep.report import recommendation as rendered
from wansweep.seed import importing
from wansweep.seed.parse import parse
from wansweep.tables.constraints import Limits
from wansweep.tables.recommendation import Objective, Recommendation, recommend
from wansweep.tables.results import Results, tabulate
from wansweep.telemetry.environment import environment
from wansweep.units import GIB

QUICK = read_request(["+sweep=quick"]).sweep


def measured(label: str, step_s: float, gib: float, *, energy_j: float = 10.0, video: str | None = None, **fields: object) -> Record:
    """A case of 3.75 s and four steps."""
    case = make_case(label=label, **fields)
    record = make_record(case, stages=with_figures(make_stages(case, step_s=step_s), peak_allocated_bytes=gib * GIB, energy_j=energy_j))
    return replace(record, resolved=replace(make_resolved(case), output_sha256=video))


def run(*records: Record) -> Results:
    return tabulate(replace(QUICK, cases=tuple(record.case for record in records)), environment(), records, ())


RUN = run(
    measured("none", 1.0, 40.0),
    measured("model", 1.5, 22.0, offload="model"),
    measured("leaf", 4.0, 6.0, offload="group_leaf"),
    measured("sequential", 9.0, 8.0, offload="sequential"),
    measured("two", 0.6, 30.0, gpus=2, ulysses=2),
    measured("fp8", 0.5, 20.0, quant="torchao_fp8"),
)


def answer(results: Results, objective: Objective = Objective.TIME, **limits: object) -> Recommendation:
    (one,) = recommend(results, Limits(**limits), objective)  # type: ignore[arg-type]
    return one


def best(objective: Objective = Objective.TIME, **limits: object) -> str | None:
    one = answer(RUN, objective, **limits).best
    return one.case.label if one else None


def test_the_fastest_case_under_24_gib_is_a_lossless_one() -> None:
    assert best(vram_bytes=24 * GIB) == "model"
    assert best(vram_bytes=24 * GIB, allow_lossy=True) == "fp8"
    assert best() == "two"
    assert best(vram_bytes=5 * GIB) is None


def test_each_objective_has_its_own_answer() -> None:
    assert best(Objective.VRAM) == "leaf"
    assert best(Objective.GPU_SECONDS) == "none"
    assert best(Objective.GPU_SECONDS, vram_bytes=35 * GIB) == "model"
    assert best(Objective.VRAM, total_s=12.0) == "model"


def test_the_least_energy_is_found_and_a_case_without_energy_is_no_answer() -> None:
    thrifty = run(measured("a", 1.0, 10, energy_j=50.0), measured("b", 2.0, 10, energy_j=20.0, offload="model"))
    assert answer(thrifty, Objective.ENERGY).best.case.label == "b"
    case = make_case(label="dark")
    assert answer(run(make_record(case)), Objective.ENERGY).best is None


def test_every_constraint_is_told_met_or_not_and_near_misses_are_named() -> None:
    one = answer(RUN, vram_bytes=20.5 * GIB, total_s=11.0)
    text = rendered.render([one], RUN, Limits(vram_bytes=20.5 * GIB, total_s=11.0))
    assert one.best is None
    assert "Fastest under 22.01 GB = 20.50 GiB (GPU memory allocated), under 11 s: no measured case meets every constraint" in text
    assert [near.case.label for near in one.near_misses] == ["model"]
    assert "near miss: model (9.75 s, 22.00 GiB" in text
    assert "NOT met max-vram: 1.50 GiB too much; met max-time: 1.25 s to spare" in text
    assert "NOT met drift: lossy (quant=torchao_fp8) and its drift not measured" in text


def test_what_the_next_gib_and_the_next_second_would_buy() -> None:
    assert answer(RUN, vram_bytes=24 * GIB).trades == (
        "18.00 GiB more would buy 2.00 s (0.11 s for each GiB): none",
        "10.00 s more would save 16.00 GiB (1.6 GiB for each second): leaf",
        "1 GPU more would buy 3.60 s: two",
    )


def test_the_frontier_is_what_no_countable_case_beats_in_time_memory_and_gpus() -> None:
    assert {one.case.label for one in answer(RUN).candidates if one.on_frontier} == {"none", "model", "leaf", "two"}


def test_a_case_that_takes_more_gpus_than_there_are_is_no_answer_and_no_near_miss() -> None:
    assert best(gpus=1) == "none"
    assert best(gpus=2) == "two"
    only = answer(RUN, gpus=1, total_s=5.0)
    assert (only.best, "two" in [one.case.label for one in only.near_misses]) == (None, False)


def test_where_nothing_meets_the_constraints_nor_nearly_the_nearest_is_named() -> None:
    found = answer(RUN, vram_bytes=3 * GIB)
    assert [(one.case.label, one.excess_pct) for one in found.near_misses] == [("leaf", 100.0)]
    assert "  the nearest, 100 % beyond: leaf (19.75 s, 6.00 GiB" in rendered.render([found], RUN, Limits(vram_bytes=3 * GIB))
    assert answer(RUN, vram_bytes=23 * GIB).near_misses == ()


def test_videos_from_text_and_from_pictures_are_told_apart() -> None:
    found = recommend(run(measured("text", 2.0, 9.0), measured("picture", 1.0, 9.0, task="i2v")), Limits(), Objective.TIME)
    assert [one.candidates[0].size.split()[:2] for one in found] == [["ti2v_5b", "t2v"], ["ti2v_5b", "i2v"]]


def test_a_lossy_case_whose_video_is_its_twins_to_the_bit_has_a_measured_drift_of_none() -> None:
    twin, cached = measured("plain", 1.0, 10.0, video="a" * 64), measured("tiled", 0.9, 9.0, video="a" * 64, vae_tiling=True)
    assert answer(run(twin, cached), ssim=0.95).best.case.label == "tiled"
    other = measured("tiled", 0.9, 9.0, video="b" * 64, vae_tiling=True)
    assert answer(run(twin, other), ssim=0.95).best.case.label == "plain"


def test_only_cases_that_make_the_same_video_are_alternatives() -> None:
    found = recommend(run(measured("long", 2.0, 9.0), measured("short", 1.0, 9.0, frames=81)), Limits(), Objective.TIME)
    assert [one.best.case.label for one in found if one.best] == ["long", "short"]


def test_failed_cases_are_no_candidates_and_a_run_without_an_ok_case_says_so() -> None:
    failed = run(make_record(make_case(label="a"), outcome=Outcome.OOM, reason="no room"))
    assert recommend(failed, Limits(), Objective.TIME) == []
    assert rendered.render([], failed, Limits()) == "quick: no case ended ok, so there is nothing to recommend\n"


def test_the_printed_command_runs_that_very_case() -> None:
    sweep = read_request(["+sweep=quick", "base.steps=3", "sweep.only=[ti2v_5b]"]).sweep
    full = read_request(["+sweep=quick", "base.steps=3"]).sweep
    records = [make_record(case) for case in full.cases]
    results = tabulate(replace(sweep, cases=full.cases), environment(), records, ())
    for one in recommend(results, Limits(), Objective.TIME):
        text = rendered.render([one], results, Limits())
        line = next(line for line in text.splitlines() if "use it: " in line).partition("use it: ")[2]
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "wansweep"]
        (case,) = read_request(words[3:]).sweep.cases
        assert case.id == one.best.case.id


def test_an_imported_run_is_recommended_from_as_far_as_it_goes() -> None:
    records = importing.records(parse((DATA / "seed_report.md").read_text(), path="old.md"), file="old.md")
    sweep = importing.sweep([record.case for record in records], file="old.md")
    results = tabulate(sweep, importing.environment(file="old.md"), records, ())
    found = recommend(results, Limits(vram_bytes=40 * GIB), Objective.TIME)
    text = rendered.render(found, results, Limits(vram_bytes=40 * GIB))
    assert "n/a n/axn/axn/a" not in text or "steps" in text
    ten = next(one for one in found if len(one.candidates) > 1 or one.candidates[0].case.label == "02_Efficiency_Mode_720p")
    assert ten.best.case.label == "02_Efficiency_Mode_720p"
    assert ten.best.figures[Objective.GPU_SECONDS] is None
    assert ten.best.ssim is None
    assert "not known: old.md does not say how its cases were run" in text


def test_every_field_of_a_case_is_free_lossy_or_part_of_the_workload() -> None:
    names = {field.name for field in declared_fields()}
    assert set(FREE) | set(LOSSLESS) <= names
    assert not set(FREE) & set(LOSSLESS)
    for name in FREE:
        assert workload(make_case()) == workload(replace(make_case(), **{name: "other"})), name


@pytest.mark.parametrize(
    ("fields", "lossy"),
    [
        ({"quant": "bnb_4bit"}, ["quant=bnb_4bit"]),
        ({"attention": "sage"}, ["attention=sage"]),
        ({"attention": "_native_flash", "offload": "model", "compile": "regional"}, []),
        ({"cache": "mag", "cache_threshold": 0.1}, ["cache=mag", "cache_threshold=0.1"]),
        ({"vae_dtype": "bf16", "vae_tiling": True}, ["vae_dtype=bf16", "vae_tiling=True"]),
    ],
)
def test_lossy_levers_are_named(fields: dict[str, object], lossy: list[str]) -> None:
    case: Case = make_case(**fields)
    assert lossy_levers(case) == lossy


def test_amounts_have_units() -> None:
    assert byte_count("24GB", option="x") == 24e9
    assert byte_count("24 GiB", option="x") == 24 * GIB
    assert byte_count("800mb", option="x") == 800e6
    assert (seconds("120s", option="x"), seconds("1.5min", option="x"), seconds("2h", option="x")) == (120, 90, 7200)
    assert share("0.95", option="x") == 0.95
    for wrong in ("24", "24XB", "-3GB", "0GB", "GB", "", "nanGB", "1e3GB"):
        with pytest.raises(ConfigError, match="--max-vram .*write an amount of memory above 0"):
            byte_count(wrong, option="--max-vram")
    for wrong in ("12", "3 years", "-1s"):
        with pytest.raises(ConfigError, match="write a length of time"):
            seconds(wrong, option="--max-time")
    for wrong in ("95", "1.2", "-0.1", "x"):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            share(wrong, option="--min-ssim")
