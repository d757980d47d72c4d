"""The picture that a README shows."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gpu_runs import gpu_cases, gpu_folder, gpu_records, gpu_results
from wansweep.cli import main
from wansweep.errors import ConfigError
from wansweep.record import Outcome
from wansweep.report.svg import render


def test_the_picture_is_an_svg_with_a_point_a_case_its_axes_and_its_cards() -> None:
    records = gpu_records(gpu_cases(), repeats=1)
    text = render(gpu_results(records))
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    said = {"".join(part.itertext()) for part in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Total time (s)", "Peak GPU memory in use (GiB)"} <= said
    ok = {record.label for record in records if record.outcome is Outcome.OK}
    assert {part.get("aria-label") for part in root.iter() if part.get("aria-roledescription") == "point"} - {None} >= ok
    assert "colour:" not in text


def test_a_label_is_text_not_markup() -> None:
    first, *others = gpu_records(gpu_cases(), repeats=1)
    sly = replace(first, label="<script>alert(1)</script>", case=replace(first.case, label="<script>alert(1)</script>"))
    text = render(gpu_results([sly, *others]))
    ET.fromstring(text)
    assert "<script" not in text


def test_a_run_without_a_point_says_why_there_is_no_picture() -> None:
    failed = [replace(record, outcome=Outcome.OOM, reason="out of memory") for record in gpu_records(gpu_cases()[:2], repeats=1)]
    with pytest.raises(ConfigError, match="no picture, No case of this run ended ok"):
        render(gpu_results(failed))


def test_report_writes_it(tmp_path: Path) -> None:
    folder = gpu_folder(tmp_path / "reports", gpu_records(gpu_cases()[:2], repeats=1))
    assert main(["report", str(folder.path), "--format", "svg", "-o", str(tmp_path / "picture.svg")]) == 0
    assert (tmp_path / "picture.svg").read_text().startswith("<svg")
