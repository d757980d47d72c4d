"""More than one node, with Ray's own multi-node cluster on one machine: three nodes of two logical GPUs, and a head without any."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.runs import ROOT
from tests.schedule.conftest import processes_of
from tests.schedule.stub import ran, records_in, started
from wansweep.record import Outcome, Record, from_json


class Nodes:
    """A cluster and its keeper."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    def kill(self, node: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"kill {node}\n")
        self.process.stdin.flush()
        assert any(line.strip() == "gone" for line in self.process.stdout)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with (
        tempfile.TemporaryDirectory(prefix="wsn-", ignore_cleanup_errors=True) as folder,
        (Path(folder) / "stderr").open("w") as said,
        subprocess.Popen(
            [sys.executable, "-m", "tests.schedule.nodes", folder, "3"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as cluster,
    ):
        assert cluster.stdout is not None
        assert cluster.stdin is not None
        address = next((line.strip() for line in cluster.stdout if line.count(":") == 1 and " " not in line.strip()), None)
        assert address, Path(said.name).read_text()[-2000:]
        yield Nodes(cluster, address)
        family = processes_of(cluster.pid)
        cluster.stdin.close()
        cluster.wait(timeout=240)
    psutil.wait_procs(family, timeout=120)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def spread(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Record], Path]:
    """Trials of one and two GPUs, and one of four, which no node has: it may straddle."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "traces").mkdir()
    sizes = {"wide": 4, "pair-a": 2, "pair-b": 2, "one-a": 1, "one-b": 1}
    cases = [(label, size, "sleep 0 3") for label, size in sizes.items()]
    cluster = {"address": nodes.address, "straddle": True}
    return ran(cases, cluster=cluster, run_folder=str(folder)), folder


def test_all_trials_of_a_cluster_run(spread: tuple[dict[str, Record], Path]) -> None:
    assert {label: str(record.outcome) for label, record in spread[0].items()} == dict.fromkeys(
        ["wide", "pair-a", "pair-b", "one-a", "one-b"], "ok"
    )


def test_trials_spread_over_the_nodes(spread: tuple[dict[str, Record], Path]) -> None:
    records, _ = spread
    assert len({node for record in records.values() for node in record.nodes}) >= 2


def test_a_gang_that_fits_a_node_never_straddles_and_one_that_may_takes_as_few_as_it_can(spread: tuple[dict[str, Record], Path]) -> None:
    records, _ = spread
    assert {label: len(record.nodes) for label, record in records.items()} == {"wide": 2, "pair-a": 1, "pair-b": 1, "one-a": 1, "one-b": 1}


def test_every_rank_of_a_gang_over_two_nodes_leaves_its_stages_on_one_clock(spread: tuple[dict[str, Record], Path]) -> None:
    stages = spread[0]["wide"].stages
    assert [stage.rank for stage in stages] == [0, 1, 2, 3]
    assert all(0 < stage.start_s < spread[0]["wide"].wall_s for stage in stages)


def test_what_a_trial_measured_comes_to_the_run_folder_from_another_node(spread: tuple[dict[str, Record], Path]) -> None:
    records, folder = spread
    traces = {path.name: path.read_text() for path in (folder / "traces").iterdir()}
    assert set(traces) == {f"{record.case_id}-0.jsonl" for record in records.values()}
    assert all(json.loads(text.splitlines()[0]) for text in traces.values())


def test_trials_say_who_shared_their_node(spread: tuple[dict[str, Record], Path]) -> None:
    records, _ = spread
    for record in records.values():
        for title in record.shared_with:
            other = records[title.removesuffix(" #0")]
            assert f"{record.label} #0" in other.shared_with
            assert set(record.nodes) & set(other.nodes)
    assert records["pair-a"].shared_with == ()


def test_a_node_that_is_killed_costs_only_the_trials_on_it_and_they_are_tried_again_elsewhere(nodes: Nodes, tmp_path: Path) -> None:
    """Runs last: the cluster is smaller afterwards."""
    go_on = tmp_path / "go-on"
    cases = [(label, 2, f"hold 0 {go_on}") for label in ("first", "second", "third")]
    with started(cases, cluster={"address": nodes.address}) as sweep:
        assert sweep.stderr is not None
        at_work: dict[str, str] = {}
        for line in sweep.stderr:
            label, _, doing = line.strip().partition(": ")
            if doing.startswith("Step_3_Inference on "):
                at_work[label] = doing.removeprefix("Step_3_Inference on ")
            if len(at_work) == len(cases):
                break
        assert len(set(at_work.values())) == 3
        nodes.kill(at_work["second"])
        go_on.touch()
        out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, err
    records = {record.label: record for record in map(from_json, records_in(out))}
    assert {record.outcome for record in records.values()} == {Outcome.OK}
    assert {label: len(record.earlier_attempts) for label, record in records.items()} == {"first": 0, "second": 1, "third": 0}
    assert records["second"].earlier_attempts[0].startswith(f"attempt 1: its controller on node {at_work['second'][:8]} died")
    assert records["second"].nodes[0] != at_work["second"]
    assert all(records[label].nodes == (at_work[label],) for label in ("first", "third"))
