"""Old reports with anything in them: imported to the byte, or refused with the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import DATA
from tests.fuzz import answered, many
from wansweep.errors import SeedError
from wansweep.seed.parse import parse
from wansweep.seed.render import render

SEED = (DATA / "seed_report.md").read_text()
LINES = SEED.split("\n")


@st.composite
def damaged(draw: st.DrawFn) -> str:
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[draw(st.integers(0, len(lines) - 1))])
            case 2:
                place = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:place] + draw(st.text(max_size=3)) + lines[at][place + draw(st.integers(0, 2)) :]
            case _:
                lines[at] = draw(st.text(max_size=20))
    return "\n".join(lines)


@many(300)
@given(st.one_of(damaged(), st.text(max_size=200)))
def test_a_damaged_report_is_refused_with_its_line_or_comes_back_to_the_byte(text: str) -> None:
    try:
        document = parse(text, path="old.md")
    except SeedError as error:
        told = str(error)
    else:
        assert render(document) == text
        return
    assert told.startswith("old.md, line ")


@many(30)
@given(text=st.one_of(damaged().map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=60)))
def test_the_command_leaves_a_whole_folder_or_none(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    place: Path = tmp_path_factory.mktemp("old")
    (place / "old.md").write_bytes(text)
    code, out, err = answered("import", str(place / "old.md"), "-o", str(place / "run"))
    assert code in (0, 2)
    assert (place / "run").exists() == (code == 0)
    assert bool(out) == (code == 0)
    assert err.startswith("wansweep: ") == (code == 2)
