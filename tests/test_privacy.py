"""No token and no home folder in anything that a run keeps."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import make_case
from tests.makers import make_record
from wansweep.config import read_request
from wansweep.errors import ConfigError
from wansweep.privacy import has_secret, public, public_word
from wansweep.record import Outcome, SamplerFacts, from_json, to_json
from wansweep.store import create
from wansweep.telemetry.environment import environment

TOKEN = "a-token-that-looks-like-nothing"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", "/srv/people/ada")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"401 for {TOKEN}.", "401 for ***."),
        ("no such file /srv/people/ada/wan/x", "no such file ~/wan/x"),
        (f"/home/bob/x and /{'root'}/y", "~/x and ~/y"),
        ("hf_abcdefghijklmnop https://u:p@host/", "*** https://***@host/"),
        ("\x1b[31mred\x1b[0m\x07", "[31mred[0m"),
        ("/srv/people/adam is another", "/srv/people/adam is another"),
        ("RAY_AUTH_MODE=disabled", "RAY_AUTH_MODE=disabled"),
    ],
)
def test_a_text_is_published_without_secrets_homes_and_controls(text: str, shown: str) -> None:
    assert public(text) == shown


def test_a_record_says_nothing_of_home_or_token_wherever_a_library_put_them() -> None:
    said = f"OSError: /srv/people/ada/wan: {TOKEN} hf_abcdefghijklmnop"
    record = make_record(make_case())
    assert record.resolved
    record = replace(
        record,
        outcome=Outcome.CRASH,
        reason=said,
        log_tail=(said,),
        earlier_attempts=(said,),
        device_notes=(said,),
        sampler=SamplerFacts(cpu_s=None, wall_s=None, nvml_s=None, errors=(said,)),
        resolved=replace(record.resolved, weights="/srv/people/ada/wan", converted="/srv/people/ada/.cache/x"),
    )
    document = to_json(record).decode()
    assert not any(word in document for word in (TOKEN, "hf_abc", "/srv/people/ada"))
    assert document.count("OSError: ~/wan: *** ***") == 5
    again = from_json(document).resolved
    assert again
    assert (again.weights, again.converted) == ("~/wan", "~/.cache/x")


def test_a_run_folder_begins_without_home_or_token_and_its_command_still_means_the_same(tmp_path: Path) -> None:
    request = read_request(["+sweep=quick", "weights=/srv/people/ada/wan 2.2", "reports=/srv/people/ada/reports"])
    assert request.reports == Path("/srv/people/ada/reports")
    assert {case.weights for case in request.sweep.cases} == {"~/wan 2.2"}
    folder = create(tmp_path, request.sweep, environment())
    kept = "".join(file.read_text() for file in folder.path.iterdir() if file.is_file())
    assert "/srv/people/ada" not in kept
    assert "'weights=~/wan 2.2' 'reports=~/reports'" in request.sweep.command
    again = read_request(shlex.split(request.sweep.command)[3:])
    assert (again.sweep.cases, again.reports) == (request.sweep.cases, request.reports)


def test_folders_in_the_home_are_taken_as_typed_in_lists_too() -> None:
    cases = read_request(["+sweep=seed", "sweep.cases={}", "sweep.axes.weights=[~/a,/srv/people/ada/b c]"]).sweep.cases
    assert {case.weights for case in cases} >= {"~/a", "~/b c"}


@pytest.mark.parametrize("text", [TOKEN, "hf_abcdefghijklmnop"])
def test_a_case_that_would_keep_a_token_is_refused_without_repeating_it(text: str) -> None:
    assert has_secret(text)
    with pytest.raises(ConfigError, match=r"base\.prompt: holds what is or looks like a token") as refused:
        read_request(["+sweep=quick", f"base.prompt={text}"])
    assert text not in str(refused.value)
    assert text not in public_word(f"base.prompt={text}")
