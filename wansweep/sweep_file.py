"""A sweep as the text of sweep.yaml, and back: of a folder that anybody may have made."""

from __future__ import annotations

import shlex

import yaml
from pydantic import TypeAdapter

from wansweep.sweep import Sweep

_SWEEP = TypeAdapter(Sweep)
# The C emitter and parser are ten times as fast, and not in every build of PyYAML.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Ours has 6; the C parser makes objects by recursion, without an end of its own: 100,000 brackets end the process.
DEEPEST = 100


def written_sweep(sweep: Sweep) -> bytes:
    """The sweep as YAML."""
    document = yaml.dump(_SWEEP.dump_python(sweep, mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=160)
    return document.encode()


def read_sweep(text: str) -> Sweep:
    """The sweep that a YAML text says.

    Raises:
        yaml.YAMLError: It is no YAML, or nested deeper than any of ours.
        ValueError: It is no sweep, or one whose commands are not to be pasted.
    """
    return _runnable(_SWEEP.validate_python(_from_yaml(text)))


def _runnable(sweep: Sweep) -> Sweep:
    """The sweep, whose commands reports tell their readers to paste: a folder from elsewhere may name any.

    Raises:
        ValueError: One is no command line of wansweep.
    """
    for command in (sweep.command, *sweep.commands.values()):
        words = shlex.split(command)
        ours = words[:1] == ["wansweep"] or words[:3] == ["python", "-m", "wansweep"]
        if not ours or shlex.join(words) != command:  # what stands unquoted may be a second command
            raise ValueError(f"command {command[:80]!r} is none of wansweep's")
    return sweep


def _from_yaml(text: str) -> object:
    """What a YAML text says, which may be anybody's.

    Raises:
        yaml.YAMLError: It is none, or nested deeper than any of ours.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} deep")
    return yaml.load(text, Loader=_Loader)
