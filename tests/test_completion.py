from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wansweep import completion
from wansweep.errors import ConfigError
from wansweep.levers import Offload

VERBS = ("run", "plan", "report")


def words(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COMP_LINE", f"wansweep {line}")
    return completion.answer("query=bash", verbs=VERBS).split()


def test_the_first_word_may_be_a_verb_or_an_override(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words("p", monkeypatch) == ["plan", "preset=", "procedure.", "procedure="]
    assert {*VERBS, "model=", "weights=", "hardware="} <= set(words("", monkeypatch))


@pytest.mark.parametrize("before", ["", "plan ", "run weights=tiny "])
def test_sweeps_and_groups_are_completed_whatever_verb_and_alias_stand_before(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert words(f"{before}+sweep=off", monkeypatch) == ["+sweep=official", "+sweep=offload"]
    assert words(f"{before}+sweep=offload hardware=a100", monkeypatch) == ["hardware=a100-40gb", "hardware=a100-80gb"]
    assert words(f"{before}+sweep=offload procedure.re", monkeypatch) == ["procedure.repeats=", "procedure.retries="]


def test_a_closed_set_of_choices_is_offered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(words("+sweep=quick base.offload=", monkeypatch)) >= {f"base.offload={mode}" for mode in Offload}
    assert words("+sweep=quick weights=", monkeypatch) == ["weights=hub", "weights=random", "weights=tiny"]
    assert words("+sweep=quick model=t", monkeypatch) == ["model=t2v_a14b", "model=ti2v_5b"]


def test_a_verb_that_takes_files_leaves_them_to_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words("report rep", monkeypatch) == []


def test_another_request_is_answered_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="bash, fish, zsh"):
        completion.answer("install=tcsh", verbs=VERBS)
    with pytest.raises(ConfigError, match="did you mean 'install'"):
        completion.answer("instal=bash", verbs=VERBS)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_the_installed_program(tmp_path: Path) -> None:
    program = tmp_path / "wansweep"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom wansweep.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    script = (
        'eval "$(wansweep -sc install=bash)"; COMP_LINE="wansweep plan +sweep=qu"; COMP_CWORD=2; hydra_bash_completion; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(["bash", "-c", script], env={"PATH": path, "PYTHONPATH": str(Path.cwd())}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["+sweep=quick"], done.stderr
