"""What a sweep exports: the series alone, and scraped from Ray's own endpoint while a sweep runs."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.conftest import make_case
from tests.makers import make_record
from tests.runs import ROOT, command
from wansweep.record import Outcome, StageKind
from wansweep.schedule import export
from wansweep.schedule.export import CASES, SERIES, CaseState, Exporter
from wansweep.schedule.progress import Progress

CONF = ROOT / "tests" / "conf"


class Recorded:
    """In place of Ray's metrics: what was set last, by name and labels."""

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] = ()) -> None:
        self.name, self.tag_keys = name, tag_keys
        assert description
        SET.setdefault(name, {})

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        assert set(tags or {}) == set(self.tag_keys)
        SET[self.name][tuple((tags or {}).values())] = value

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        self.set(SET[self.name].get(tuple((tags or {}).values()), 0) + value, tags)


SET: dict[str, dict[tuple[str, ...], float]] = {}


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporter]:
    SET.clear()
    monkeypatch.setattr(export, "Gauge", Recorded)
    monkeypatch.setattr(export, "Counter", Recorded)
    yield Exporter(total=3)
    SET.clear()


AT = Progress(
    label="case", trial=0, doing="Step_3_Inference", kind=StageKind.STEP_INFERENCE, steps=8, step=3, step_s=1.5,
    readings={0: {"device_used_bytes": 5e9, "sm_active_pct": 98.0}, 1: {"power_w": 700.0}},
)  # fmt: skip


def test_a_trial_is_followed_from_waiting_to_its_outcome(exporter: Exporter) -> None:
    exporter.waiting("case")
    assert SET["wansweep_case_state"] == {("case",): CaseState.WAITING}
    exporter.doing("case", 0, "starting")
    exporter.progress(replace(AT, kind=StageKind.T5_ENCODING, step=None, step_s=None))
    exporter.progress(AT)
    assert SET["wansweep_case_state"] == {("case",): CaseState.RUNNING}
    assert SET["wansweep_stage"] == {("case", "T5_Encoding"): 0, ("case", "Inference"): 1}
    assert (SET["wansweep_step"], SET["wansweep_steps"], SET["wansweep_step_s"]) == ({("case",): 3}, {("case",): 8}, {("case",): 1.5})
    assert SET["wansweep_device_used_bytes"] == {("case", "0"): 5e9}
    assert SET["wansweep_power_w"] == {("case", "1"): 700.0}
    assert (SET["wansweep_trials_running"][()], SET["wansweep_trials_waiting"][()]) == (1, 2)
    exporter.finished(make_record(make_case()))
    assert SET["wansweep_case_state"] == {("case",): CaseState.OK}
    assert SET["wansweep_trials"] == {("ok",): 1}
    assert (SET["wansweep_trials_running"][()], SET["wansweep_trials_waiting"][()]) == (0, 2)


def test_what_a_trial_leaves_is_zero_and_not_its_last_reading(exporter: Exporter) -> None:
    exporter.progress(AT)
    exporter.finished(make_record(make_case()))
    assert set(SET["wansweep_stage"].values()) == {0}
    assert SET["wansweep_sm_active_pct"] == {("case", "0"): 0}
    assert SET["wansweep_power_w"] == {("case", "1"): 0}


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.OOM, CaseState.ANSWERED),
        (Outcome.INVALID, CaseState.ANSWERED),
        (Outcome.CRASH, CaseState.FAILED),
        (Outcome.TIMEOUT, CaseState.FAILED),
    ],
)
def test_an_outcome_that_is_no_success_is_a_state_of_its_own(exporter: Exporter, outcome: Outcome, state: CaseState) -> None:
    exporter.finished(make_record(make_case(), outcome=outcome, reason="why"))
    assert SET["wansweep_case_state"] == {("case",): state}
    assert SET["wansweep_trials"] == {(str(outcome),): 1}


def test_what_stays_true_is_set_again_while_nothing_happens(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray forgets a gauge after two reports: cases that wait or are over would be gone from every dashboard."""
    monkeypatch.setattr(export, "AGAIN_EVERY_S", 0.01)
    exporter.waiting("one")
    exporter.finished(make_record(make_case(label="other")))
    before = {name: dict(series) for name, series in SET.items() if name != "wansweep_trials"}
    with exporter:
        for series in SET.values():
            series.clear()
        end = time.monotonic() + 20
        while {name: SET[name] for name in before} != before:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert SET["wansweep_trials"] == {}  # a count would count twice


def test_a_sweep_of_thousands_does_not_make_thousands_of_series(exporter: Exporter) -> None:
    for number in range(3000):
        exporter.waiting(f"case{number}")
    assert len(SET["wansweep_case_state"]) == CASES + 1


def test_every_label_is_one_of_a_few() -> None:
    assert {label for series in SERIES for label in series.labels} == {"case", "rank", "stage", "outcome"}


def scraped(ports: list[int]) -> dict[str, dict[str, float]]:
    """Our series at the endpoints: name to labels to value."""
    found: dict[str, dict[str, float]] = {}
    for port in ports:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, OSError):
            continue
        for name, labels, value in re.findall(r"^(ray_wansweep_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            kept = ",".join(part for part in re.findall(r'\b(?:case|rank|stage|outcome)="[^"]*"', labels))
            series = found.setdefault(name, {})
            # Counters of sweeps that are over are still there on a cluster that others used.
            series[kept] = float(value) + (series.get(kept, 0.0) if name.endswith("_total") else 0.0)
    return found


PORTS = """
import json, ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps([node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]))
"""


def test_rays_own_endpoint_shows_a_sweep_move(ray_address: str, tmp_path) -> None:
    import json
    import sys

    asked = subprocess.run([sys.executable, "-c", PORTS, ray_address], capture_output=True, text=True, timeout=240, check=True)
    ports = json.loads(asked.stdout.splitlines()[-1])
    overrides = ["+sweep=four", "--config-dir", str(CONF), f"cluster.address={ray_address}", f"reports={tmp_path}", "procedure.isolation=warm"]
    seen: dict[str, dict[str, set[float]]] = {}
    before = scraped(ports).get("ray_wansweep_trials_total", {})
    with subprocess.Popen(
        command(*overrides, "base.steps=300"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as sweep:
        try:
            while sweep.poll() is None:
                for name, series in scraped(ports).items():
                    for labels, value in series.items():
                        seen.setdefault(name, {}).setdefault(labels, set()).add(value)
                time.sleep(1)
        finally:
            sweep.kill()
        assert sweep.returncode == 0, sweep.stderr and sweep.stderr.read()
    on_a_cpu = {series.exported for series in SERIES} - {
        f"ray_wansweep_{name}" for name in ("device_used_bytes", "sm_active_pct", "gpu_busy_pct", "power_w")
    }
    assert set(seen) == on_a_cpu
    assert max(max(values) for values in seen["ray_wansweep_trials_running"].values()) >= 1
    assert len(set().union(*seen["ray_wansweep_step"].values())) > 3  # a step after the other
    assert {1.0} <= set().union(*(values for labels, values in seen["ray_wansweep_stage"].items() if 'stage="Inference"' in labels))
    assert all(re.fullmatch(r'case="[^"]+",rank="\d+"', labels) for labels in seen["ray_wansweep_host_rss_bytes"])
    assert max(set().union(*seen["ray_wansweep_host_rss_bytes"].values())) > 50e6
    states = {labels: sorted(values) for labels, values in seen["ray_wansweep_case_state"].items()}
    assert any({CaseState.WAITING, CaseState.RUNNING} <= set(values) for values in states.values())
    ended = {labels: max(values) - before.get(labels, 0.0) for labels, values in seen["ray_wansweep_trials_total"].items()}
    assert [labels for labels, more in ended.items() if more] == ['outcome="ok"']
