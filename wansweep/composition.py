"""The command line and the YAML files to one plain config. Where Hydra and OmegaConf end.

Hydra composes and nothing more: no multirun, no job logging, no folders of its own. What may stand in the config is `config`'s to know.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from wansweep.errors import ConfigError, did_you_mean
from wansweep.shipped import conf_dir

GROUPS = ("sweep", "procedure", "cluster", "hardware")
# Short for another key; what the contract's users type most.
ALIASES = {"model": "base.model", "weights": "base.weights", "preset": "base.preset", "resume": "resume.folder"}

# A path in the home, as commands have it; Hydra's grammar takes a ~ in quotes only.
_IN_HOME = re.compile(r"(?<=[=,\[])(~/[^,\]}'\"]*)")


def sweep_names(config_dir: Path | None = None) -> list[str]:
    """The sweeps that ``+sweep=`` can name."""
    return _options("sweep", config_dir)


def parse(overrides: Sequence[str], config_dir: Path | None, *, keys: Iterable[str]) -> list[Override]:
    """The overrides, parsed and their first words checked, so that a typo is answered in our words and not in Hydra's.

    Args:
        overrides: As typed.
        config_dir: The user's own configs, beside the shipped ones.
        keys: That the config has at its top.

    Raises:
        ConfigError: With every problem found.
    """
    known = [*keys, *ALIASES]
    problems: list[str] = []
    parsed: list[Override] = []
    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(_IN_HOME.sub(r"'\1'", text))
        except HydraException as error:
            problems.append(f"{text}: not an override ({_one_line(error)}); write key=value, and quote values with spaces or brackets")
            continue
        problems += _word_problems(override, config_dir, known)
        parsed.append(override)
    if not problems and not any(o.key_or_group == "sweep" for o in parsed):
        problems.append(f"no sweep named: add +sweep=NAME, {did_you_mean('', sweep_names(config_dir))}")
    if problems:
        raise ConfigError(problems)
    return parsed


def _word_problems(override: Override, config_dir: Path | None, known: Sequence[str]) -> Iterable[str]:
    """What is wrong with an override's key, or with the group option it names."""
    key = override.key_or_group
    first = key.split(".")[0].split("@")[0]
    if override.is_sweep_override():
        yield f"{override.input_line}: a sweep over values is an axis here; write sweep.axes.{key.removeprefix('base.')}=[...]"
    elif first == "hydra" and key != "hydra.searchpath":
        yield f"{override.input_line}: Hydra only composes here, so this would do nothing; hydra.searchpath is its one key that has a use"
    elif first not in known and first != "hydra":
        yield f"{override.input_line}: no such key; {did_you_mean(first, known)}"
    elif key in GROUPS and override.type is not OverrideType.DEL:
        name = override.value()
        if isinstance(name, list):
            several = "; several sweeps as one: +sweep=full sweep.groups=[quick,seed]" if key == "sweep" else ""
            yield f"{override.input_line}: one {key} is wanted here, by its name{several}"
        elif str(name) not in (options := _options(key, config_dir)):
            yield f"{key}={name}: no such {key}; {did_you_mean(str(name), options)}"


def _options(group: str, config_dir: Path | None) -> list[str]:
    folders = [conf_dir(), *([config_dir] if config_dir else [])]
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def key_of(override: Override) -> str:
    """The key that an override sets, in full."""
    return ALIASES.get(override.key_or_group, override.key_or_group)


def chooses_model(override: Override) -> bool:
    """Whether it says which model to run."""
    return override.type is not OverrideType.DEL and key_of(override) == ALIASES["model"]


def compose(overrides: Sequence[Override], config_dir: Path | None = None, *, sweep: str | None = None) -> dict[str, Any]:
    """The config that overrides make, plain and not checked.

    Args:
        overrides: Parsed.
        config_dir: The user's own configs, beside the shipped ones.
        sweep: A sweep that they are laid over, when they name none.

    Raises:
        ConfigError: Hydra, OmegaConf or YAML cannot make one of it.
    """
    first = [f"+sweep={sweep}"] if sweep else []
    with _told_in_a_line():
        return _plain(_composed([*first, *map(_as_hydra, overrides)], config_dir))


def side_by_side(sweeps: Sequence[str], overrides: Sequence[Override], config_dir: Path | None) -> dict[str, dict[str, Any]]:
    """Those of the sweeps that can be composed at once, each as `compose` would by itself: composing is most of a plan's time.

    Raises:
        ConfigError: Hydra, OmegaConf or YAML cannot make one of it.
    """
    names = [name for name in sweeps if _stands_alone(name, config_dir)]
    if not names or any(override.type is OverrideType.DEL for override in overrides):
        return {}
    with _told_in_a_line():
        root = _composed([*(f"+sweep@sweeps.{name}={name}" for name in names), *map(_as_hydra, overrides)], config_dir)
        OmegaConf.set_struct(root, value=False)
        own = root.pop("sweeps")
        plains = {}
        for name in names:
            composed = OmegaConf.merge(root, own[name])
            for override in overrides:
                if override.key_or_group not in GROUPS:
                    OmegaConf.update(composed, key_of(override), override.value(), merge=True, force_add=True)
            plains[name] = _plain(composed)
        return plains


def _stands_alone(name: str, config_dir: Path | None) -> bool:
    """Whether a sweep's file means the same wherever Hydra puts it: it says where it belongs, and draws in no other file."""
    files = [folder / "sweep" / f"{name}.yaml" for folder in (conf_dir(), *([config_dir] if config_dir else []))]
    texts = [file.read_text() for file in files if file.exists()]
    return name.isidentifier() and all(text.startswith("# @package _global_\n") and "defaults:" not in text for text in texts)


def _as_hydra(override: Override) -> str:
    """The override as Hydra is to see it.

    Keys inside our own nodes are forced in, whether or not a YAML has them already: `config` and `matrix` know what may stand there
    and answer a typo better than Hydra's struct mode. ``sweep=NAME`` is taken as ``+sweep=NAME``.
    """
    line = str(override.input_line)
    key = override.key_or_group
    if override.type is OverrideType.DEL or key.startswith("hydra"):
        return line
    bare = line.lstrip("+")
    if key in ALIASES:
        return "++" + ALIASES[key] + bare.removeprefix(key)
    if key in GROUPS:
        return f"+{bare}" if key == "sweep" else bare
    return f"++{bare}"


def _composed(overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        return hydra_compose(config_name="config", overrides=[*search, *overrides])


def _plain(composed: Any) -> dict[str, Any]:  # noqa: ANN401
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@contextmanager
def _told_in_a_line() -> Iterator[None]:
    """Hydra's, OmegaConf's and YAML's errors as ours."""
    try:
        with warnings.catch_warnings():
            # A folder of hydra.searchpath that is not there: what was looked for in it would be missing without a word of it.
            warnings.filterwarnings("error", message="provider=.* is not available")
            yield
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError, RecursionError, UserWarning) as error:
        # Hydra says OSError of a file that is no mapping.
        raise ConfigError([_one_line(error)]) from error


def _one_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "a file of the config is nested too deep, or draws in itself; look at its defaults:"
    return " ".join(str(error).split())
