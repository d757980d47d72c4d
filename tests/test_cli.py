"""What needs no cluster: plan, help, and wrong command lines."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from tests.runs import ROOT, wansweep

HEAVY = ("torch", "ray", "diffusers", "transformers", "polars", "hydra")


def imported_by(*arguments: str) -> set[str]:
    """Which heavy packages a command line imports."""
    probe = (
        f"import sys, wansweep.cli; wansweep.cli.main({list(arguments)!r}); print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=240, check=True)
    return set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))


def test_plan_imports_nothing_heavy_but_hydra() -> None:
    assert imported_by("plan", "+sweep=quick") == {"hydra"}


def test_plan_as_json_is_one_array_with_a_row_a_case_and_nothing_else() -> None:
    done = wansweep("plan", "+sweep=quick", "format=json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [row["label"] for row in rows][:2] == ["ti2v_5b", "ti2v_5b_image"]
    assert all(row["verdict"] == "run" and row["predicted_total_s"] is None for row in rows)


def test_plan_prints_what_each_case_reserves_and_what_was_left_out_and_why() -> None:
    done = wansweep("plan", "+sweep=quick", "sweep.exclude=[{offload: sequential, why: too slow to wait for}]")
    assert "2 GPUs on one node" in done.stdout
    assert "left out: t2v_a14b-1280x720x81-s4-sequential: too slow to wait for" in done.stdout


@pytest.mark.parametrize("verb", [[], ["run"], ["plan"]])
def test_a_wrong_config_is_one_line_and_exit_code_2(verb: list[str]) -> None:
    done = wansweep(*verb, "+sweep=quick", "base.stpes=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "wansweep: base.stpes: no such case field; did you mean 'steps'?\n"


def test_a_folder_that_is_no_run_is_one_line_and_exit_code_2() -> None:
    done = wansweep("report", "/nowhere")
    assert (done.returncode, done.stderr) == (2, "wansweep: /nowhere: no such folder; name a run folder under reports/<sweep>/\n")


def test_a_cluster_that_does_not_answer_is_one_line_and_exit_code_2(tmp_path) -> None:
    done = wansweep("+sweep=quick", "cluster.address=127.0.0.1:1", f"reports={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("wansweep: cluster.address=127.0.0.1:1: no Ray cluster answers there")


@pytest.mark.parametrize(
    ("environment", "override", "named"),
    [({}, "cluster.address={}", "cluster.address={}"), ({"RAY_ADDRESS": "{}"}, "cluster=auto", "cluster=auto: RAY_ADDRESS={}")],
)
def test_an_address_where_another_program_listens_is_told_within_seconds(tmp_path, environment, override: str, named: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        asked = ["+sweep=quick", override.format(address), f"reports={tmp_path}"]
        done = wansweep(*asked, **{name: value.format(address) for name, value in environment.items()})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"wansweep: {named.format(address)}: no Ray cluster answers there")


def test_help_tells_the_verbs() -> None:
    done = wansweep("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("plan", "report", "resume=RUN_DIR", "--config-dir"))


def test_the_verbs_that_read_folders_import_nothing_heavy_but_polars(tmp_path) -> None:
    old = str(ROOT / "tests" / "data" / "seed_report.md")
    folder = str(tmp_path / "old")
    for arguments in (
        ["import", old, "-o", folder],
        ["report", folder],
        ["report", folder, "--format", "seed"],
        ["compare", folder, folder],
        ["recommend", folder],
    ):
        assert imported_by(*arguments) == {"polars"}, arguments


def test_one_cases_breakdown_is_printed_by_its_label(tmp_path) -> None:
    folder = str(tmp_path / "old")
    wansweep("import", str(ROOT / "tests" / "data" / "seed_report.md"), "-o", folder)
    whole = wansweep("report", folder).stdout
    done = wansweep("report", folder, "--case", "02_Efficiency_Mode_720p")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("## Case: 02_Efficiency_Mode_720p\n")
    assert done.stdout in whole
    wrong = wansweep("report", folder, "--case", "02_Efficiency_Mode")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "wansweep: --case 02_Efficiency_Mode: no such case; did you mean '02_Efficiency_Mode_720p'?\n"


def test_compare_answers_with_its_exit_code_and_json_alone_on_stdout(tmp_path) -> None:
    folder = str(tmp_path / "old")
    wansweep("import", str(ROOT / "tests" / "data" / "seed_report.md"), "-o", folder)
    done = wansweep("compare", folder, folder, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["exit_code"], len(document["cases"])) == (0, 6)
    assert wansweep("compare", folder, folder, "--format", "md").stdout.startswith("**Undecided: 6 inconclusive")
    wrong = wansweep("compare", folder, folder, "--across", "trch")
    assert (wrong.returncode, wrong.stderr) == (2, "wansweep: --across trch: not compared between environments; did you mean 'torch'?\n")


def test_recommend_answers_and_tells_wrong_units_apart(tmp_path) -> None:
    folder = str(tmp_path / "old")
    wansweep("import", str(ROOT / "tests" / "data" / "seed_report.md"), "-o", folder)
    done = wansweep("recommend", folder, "--max-vram", "40GiB", "--objective", "vram")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "Least VRAM under 42.95 GB = 40.00 GiB (GPU memory allocated): 02_Efficiency_Mode_720p (147.06 s, 31.27 GiB; n=1, insufficient)"
        in done.stdout
    )
    wrong = wansweep("recommend", folder, "--max-vram", "24XB")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("wansweep: --max-vram 24XB: write an amount of memory above 0 with its unit, as 24GB")
