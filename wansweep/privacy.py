"""What may be published of a text: no home folder, no token, nothing that steers a terminal."""

from __future__ import annotations

import os
import re

HIDDEN = "***"
SECRET_NAME = re.compile(r"(token|secret|password|passwd|credential|api_?key|auth)", re.IGNORECASE)

_HOME = re.compile(r"(?:/home|/Users)/[^/\s:,'\"]+|/root(?=/|$)")
_SECRET_VALUE = re.compile(r"\b(hf_|sk-|gh[opsur]_|github_pat_|AKIA|xox[abp]-)[\w-]{8,}|(?<=://)[^/@\s]+(?=@)")
# Of variables whose value is a secret itself; RAY_AUTH_MODE=disabled is none, and short values are words.
_SECRET_VARIABLE = re.compile(r"(token|secret|password|passwd|api_?key)$", re.IGNORECASE)
_SECRET_CHARACTERS = 12
_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def public(text: str) -> str:
    """The text without the user's home, anybody's home, the values of secret variables, what looks like a token, and control characters."""
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    return _STEERS.sub("", _SECRET_VALUE.sub(HIDDEN, _HOME.sub("~", in_home(text))))


def in_home(text: str) -> str:
    """The text with the user's own home as ``~``: a path that stays the same path."""
    home = os.path.expanduser("~")  # noqa: PTH111  (Path.home raises where there is none)
    return re.sub(re.escape(home.rstrip("/")) + r"(?=/|$)", "~", text) if len(home) > 1 else text


def has_secret(text: str) -> bool:
    """Whether a secret stands in the text, by its value or by its looks."""
    return any(value in text for value in _secrets()) or bool(_SECRET_VALUE.search(text))


def public_word(argument: str) -> str:
    """One word of a command line: a value under a secret's name is hidden, the rest is public and runs again."""
    name, equals, _ = argument.partition("=")
    if equals and SECRET_NAME.search(name):
        return f"{name}={HIDDEN}"
    return HIDDEN.join(_SECRET_VALUE.sub(HIDDEN, part) for part in _without(in_home(argument)))


def _without(text: str) -> list[str]:
    """The text, cut where values of secret variables stood."""
    return re.split("|".join(map(re.escape, secrets)), text) if (secrets := _secrets()) else [text]


def _secrets() -> list[str]:
    return [value for name, value in os.environ.items() if len(value) >= _SECRET_CHARACTERS and _SECRET_VARIABLE.search(name)]
