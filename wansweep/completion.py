"""Tab completion: Hydra's own, for the verbs and words that are ours beside it. Knows Hydra, as `composition` does.

``eval "$(wansweep -sc install=bash)"`` asks this for every Tab; zsh takes the same by ``bashcompinit``, fish has ``install=fish``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from enum import Enum
from io import StringIO
from typing import get_args, get_type_hints

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from wansweep.case import Case
from wansweep.composition import ALIASES
from wansweep.errors import ConfigError, did_you_mean
from wansweep.levers import Weights
from wansweep.shipped import conf_dir

_COMMANDS = ("install", "uninstall", "query")
_SHELLS = ("bash", "fish", "zsh")
# Verbs that take overrides; the others take files, which shells complete themselves.
_COMPOSING = ("run", "plan")


def answer(request: str, *, verbs: Sequence[str]) -> str:
    """What the shell wants: a script to evaluate for ``install=SHELL``, the words that fit for ``query=SHELL``.

    Args:
        request: The argument of ``-sc``. A query's command line is in COMP_LINE, as shells hand it over.
        verbs: The program's verbs.

    Raises:
        ConfigError: It asks for something else.
    """
    command, _, shell = request.partition("=")
    if command not in _COMMANDS or shell not in _SHELLS:
        problem = did_you_mean(command, _COMMANDS) if command not in _COMMANDS else did_you_mean(shell, _SHELLS)
        raise ConfigError([f"-sc {request}: not COMMAND=SHELL; {problem}"])
    if command != "query":
        return _hydra(request, line="")
    typed = os.environ.get("COMP_LINE", "").split(" ")[1:]
    verb = typed[0] if typed and typed[0] in verbs else None
    if verb is not None and len(typed) > 1:
        if verb not in _COMPOSING:
            return ""
        typed = typed[1:]
        verbs = ()
    word, before = (typed or [""])[-1], typed[:-1]
    own = [*(verb for verb in verbs if len(typed) < 2 and verb.startswith(word)), *_values(word)]
    # An alias (model=) is no key of the config: it would keep Hydra from composing what follows.
    words = [text for text in before if text and text.partition("=")[0] not in ALIASES]
    return " ".join(sorted({*own, *_hydra(request, line=" ".join(["wansweep", *words, word])).split()}))


def _hydra(request: str, *, line: str) -> str:
    """Hydra's answer about our configs."""
    before = os.environ.get("COMP_LINE")
    os.environ["COMP_LINE"] = line
    said = StringIO()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"), redirect_stdout(said):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            hydra.shell_completion(config_name="config", overrides=[request])
    finally:
        os.environ.pop("COMP_LINE") if before is None else os.environ.update(COMP_LINE=before)
    return said.getvalue()


def _values(word: str) -> Iterator[str]:
    """The choices of a case's field where it has a closed set of them, and the short keys; Hydra knows only what the config has now."""
    key, equals, typed = word.partition("=")
    if not equals:
        yield from (f"{alias}=" for alias in ALIASES if alias.startswith(key))
        return
    field = ALIASES.get(key, key).removeprefix("base.")
    kind = Weights if field == "weights" else get_type_hints(Case).get(field)
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, Enum):
            yield from (f"{key}={value}" for value in map(str, one) if value.startswith(typed))
