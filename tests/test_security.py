"""What is read from disk is data, and what a config or a file says stays where it is put: in its folder, its cell, its word, its page."""

from __future__ import annotations

import ast
import json
import pickle
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_case
from tests.fuzz import many
from tests.makers import make_record
from tests.runs import ROOT
from wansweep.case import Model
from wansweep.errors import StoreError
from wansweep.labels import labelled
from wansweep.record import Outcome, to_json
from wansweep.report import html, markdown, terminal
from wansweep.report.cells import cell, code, fence
from wansweep.store import RunFolder, open_folder
from wansweep.sweep import Sweep
from wansweep.tables.results import Results, tabulate
from wansweep.telemetry.environment import environment
from wansweep.trial.checkpoint import INDEX, NoWeightsError, locate

MODULES = sorted((ROOT / "wansweep").rglob("*.py"))
# What runs code of a file's or a string's choosing, and what hands a string to a shell.
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "yaml.unsafe_load", "yaml.full_load"}
EVIL = "<x-evil onload=1>`$(touch evil)`|[a](b)\n# h\n```\n\x1b]0;evil\x07</script>'\";"


def spelled(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{spelled(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not UNSAFE_MODULES & {name.name.split(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNSAFE_MODULES
        if isinstance(node, ast.Call):
            called = spelled(node.func)
            assert called not in UNSAFE_CALLS, f"line {node.lineno}: {called}"
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            assert "trust_remote_code" not in keywords
            assert "shell" not in keywords or (isinstance(keywords["shell"], ast.Constant) and not keywords["shell"].value)
            if called in ("np.load", "numpy.load"):
                assert ast.unparse(keywords["allow_pickle"]) == "False"
            if called == "yaml.load":
                assert spelled(keywords["Loader"]) == "_Loader"


def test_a_sweep_file_that_asks_for_an_object_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    (tmp_path / "sweep.yaml").write_text(f"name: !!python/object/apply:os.system ['touch {evil}']\n")
    with pytest.raises(StoreError, match="cannot be read as a sweep"):
        open_folder(tmp_path)
    assert not evil.exists()


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (self.path, "w"))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_with_the_way_out_and_nothing_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"vae": ["diffusers", "AutoencoderKLWan"]}))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    (tmp_path / "vae" / name).write_bytes(pickle.dumps(Bomb(str(tmp_path / "evil"))))
    from wansweep.sweep import ModelSource

    with pytest.raises(NoWeightsError, match=f"{re.escape(name)} is a pickle.*save_pretrained"):
        locate(make_case(weights=str(tmp_path)), ModelSource(repo="a/b", revision=None, fps=16, boundary=None))
    assert not (tmp_path / "evil").exists()


@many(200)
@given(
    st.sampled_from(["weights", "compile_backend", "prompt", "transformer_gguf"]),
    st.one_of(st.text(max_size=80), st.just("../../x"), st.just(EVIL)),
)
def test_a_label_is_a_file_name_and_a_metrics_label_whatever_a_field_holds(field: str, value: str) -> None:
    (case,) = labelled([make_case(**{field: value})], varied=[field])
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", case.label)
    assert Path("videos", f"{case.label}-0.mp4").resolve().parent == Path("videos").resolve()


def test_a_record_whose_id_leads_elsewhere_is_no_record(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    folder.records.mkdir()
    document = json.loads(to_json(make_record(make_case())))
    (folder.records / "a.json").write_text(json.dumps({**document, "case_id": "../../../etc/x"}))
    assert folder.read()[0] == []


@many(300)
@given(st.one_of(st.text(max_size=40), st.text("`'\"\\\n $(|<é\x1b\u2028", max_size=12)))
def test_a_command_in_a_report_is_one_line_of_code_and_the_same_command(prompt: str) -> None:
    if "\0" in prompt or any("\ud800" <= char <= "\udfff" for char in prompt):
        return
    shown = code(shlex.join(["python", "-m", "wansweep", f"base.prompt={prompt}"]))
    assert len(shown.splitlines()) == 1
    ticks = re.match("`+", shown)
    assert ticks
    inner = shown[len(ticks[0]) : -len(ticks[0])]
    assert shown.endswith(ticks[0])
    assert ticks[0] not in inner


def test_a_shell_takes_a_shown_command_as_the_words_it_was(tmp_path: Path) -> None:
    import subprocess

    words = ["a\nb", "it's `x` $(touch evil)", "\x1bé\\n", "plain"]
    shown = code(shlex.join(["printf", r"%s\0", *words])).strip("`").strip()
    done = subprocess.run(
        ["bash", "-c", shown], cwd=tmp_path, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    )
    assert done.stdout.decode().split("\0")[:-1] == words
    assert not list(tmp_path.iterdir())


@given(st.text("`a\n", max_size=30))
def test_a_fence_is_never_ended_by_what_it_holds(text: str) -> None:
    assert fence(text, least=4) not in text


@given(st.one_of(st.text(max_size=40), st.just(EVIL)))
def test_a_cell_is_one_cell_without_markup(text: str) -> None:
    shown = cell(text)
    assert len(shown.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", shown)
    assert "<" not in shown


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs), (tag, attrs)


def hostile(text: str, sweep: Sweep) -> Results:
    """A run in which every text that a config, a file or a library gives is this one."""
    cases = [make_case(name=f"{text} {i}", label=f"{text} {i}", weights=text, prompt=text, model=Model.TI2V_5B) for i in range(2)]
    ok, bad = make_record(cases[0]), make_record(cases[1], outcome=Outcome.CRASH, reason=text)
    assert ok.resolved
    ran = replace(ok.resolved, device_name=text, weights=text, dtypes={text: text}, hooks={text: text}, attention=text, quant=text, cache=text)
    stages = tuple(replace(stage, name=text) if i == 3 else stage for i, stage in enumerate(ok.stages))
    records = [
        replace(ok, resolved=ran, stages=stages, node=text, shared_with=(text,), earlier_attempts=(text,)),
        replace(bad, log_tail=(text, "```` end"), device_notes=(text,)),
    ]
    sweep = replace(sweep, cases=tuple(cases), command=shlex.join(["python", "-m", "wansweep", f"base.prompt={text}"]))
    return tabulate(sweep, replace(environment(), cpu=text), records, [])


def test_hostile_texts_add_no_element_to_the_page_and_no_markup_to_the_report() -> None:
    from wansweep.config import read_request

    sweep = read_request(["+sweep=quick"]).sweep
    plain, evil = hostile("plain", sweep), hostile(EVIL, sweep)
    tags = []
    for results in (plain, evil):
        page = Tags()
        page.feed(html.render(results))
        tags.append(page.seen)
    assert tags[0] == tags[1]
    # Outside of code, whose spans and fences nothing inside can end.
    told = re.sub(r"(?ms)^(`{4,})text\n.*?^\1$", "", markdown.render(evil))
    told = re.sub(r"(?<!\\)(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", told)
    assert "<x-evil" not in told
    assert "</script" not in told
    assert not re.search(r"^# h", told, re.MULTILINE)
    shown = terminal.render(evil)
    assert "\x1b" not in shown
    assert "\x07" not in shown
