"""What one command line asks for: the composed config, checked, to a Sweep. Where untyped data ends."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wansweep.case import Case, Model, Preset
from wansweep.composition import chooses_model, compose, key_of, parse, side_by_side, sweep_names
from wansweep.errors import ConfigError, did_you_mean
from wansweep.groups import union
from wansweep.hardware import GPUS
from wansweep.matrix import NAME_RULE, SECRET_RULE, Matrix, expand, explain, of_model
from wansweep.plan.rules import problems as case_problems
from wansweep.plan.stack import STACKS
from wansweep.presets import Settings
from wansweep.privacy import HIDDEN, has_secret, public_word
from wansweep.sweep import Cluster, Hardware, ModelSource, Procedure, Sweep

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from pydantic_core import ErrorDetails

_STRICT = ConfigDict(extra="forbid")


# A folder that a script left empty (resume=$UNSET) is a mistake, and never the current one.
_Folder = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f]+$")]
_Boundary = Annotated[float, Field(gt=0, lt=1)]


class _Settings(BaseModel):
    model_config = _STRICT
    fields: dict[str, Any]
    boundary: _Boundary | None
    sizes: tuple[str, ...] = ()


class _Model(BaseModel):
    model_config = _STRICT
    repo: Annotated[str, Field(pattern=r"^\w[\w.-]*/\w[\w.-]*$")]
    revision: Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")] | None
    fps: Annotated[int, Field(ge=1, le=240)]
    boundary: _Boundary | None
    presets: dict[Preset, _Settings]


class _Sweep(BaseModel):
    model_config = _STRICT
    name: Annotated[str, Field(pattern=f"^{NAME_RULE.pattern}$")]
    cases: dict[str, dict[str, Any]]
    axes: dict[str, list[Any]]
    zips: dict[str, dict[str, list[Any]]]
    include: list[dict[str, Any]]
    exclude: list[dict[str, Any]]
    only: list[str]
    groups: list[str]


class _Resume(BaseModel):
    model_config = _STRICT
    folder: _Folder | None
    force: bool


class _Root(BaseModel):
    """The composed config, whole."""

    model_config = _STRICT
    base: dict[str, Any]
    models: dict[Model, _Model]
    sweep: _Sweep
    procedure: Procedure
    cluster: Cluster
    hardware: Hardware
    reports: _Folder
    resume: _Resume
    format: Literal["table", "json"]
    stack: str
    calibrate: _Folder | None


# pydantic's words for what `_unknown` tells better.
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
# What run folders keep of a config; its cases are looked at with their fields (`matrix`), the command by itself.
_RECORDED = ("sweep", "models", "cluster")
_NODES: Mapping[str, Iterable[str]] = {
    "sweep": _Sweep.model_fields,
    "resume": _Resume.model_fields,
    **{
        node: [field.name for field in dataclasses.fields(kind)]
        for node, kind in [("procedure", Procedure), ("cluster", Cluster), ("hardware", Hardware)]
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What one command line asks for.

    Attributes:
        sweep: What to run.
        reports: Folder that run folders go into.
        resume: A run folder to go on with.
        force: Go on with it although sweep or environment differ.
        format: Of ``plan``.
        stack: Whose code ``plan`` predicts, a name of `plan.stack.STACKS`.
        calibrate: A run folder that ``plan`` learns the card's rates from.
    """

    sweep: Sweep
    reports: Path
    resume: Path | None
    force: bool
    format: Literal["table", "json"]
    stack: str = "diffusers"
    calibrate: Path | None = None


def read_request(overrides: Sequence[str], *, config_dir: Path | None = None) -> Request:
    """What the overrides ask for, composed, resolved and checked.

    Args:
        overrides: Hydra overrides as typed: ``+sweep=quick``, ``base.steps=3``.
        config_dir: A folder of the user's own configs, searched beside the shipped ones.

    Raises:
        ConfigError: With every problem found.
    """
    parsed = parse(overrides, config_dir, keys=_Root.model_fields)
    root = _checked(compose(parsed, config_dir))
    model = _chosen_model(root) if any(chooses_model(override) for override in parsed) else None
    matrix = _matrix(root, parsed)
    if root.sweep.groups:
        cases, excluded = union(_groups(root, parsed, config_dir), model=model, chosen=root.sweep.only)
    elif model is not None and matrix.sets("model"):
        # Sizes and settings follow from the model, so it cannot be laid over cases: it chooses among them.
        others = [override for override in parsed if not chooses_model(override)]
        own = _checked(compose(others, config_dir))
        cases, excluded = of_model(*expand(_matrix(own, others)), model)
    else:
        cases, excluded = expand(matrix)
    known = ("auto", "cpu", *GPUS)
    if root.hardware.name not in known:
        raise ConfigError([f"hardware.name={root.hardware.name}: no such hardware; {did_you_mean(root.hardware.name, known)}"])
    if not cases:
        raise ConfigError([f"sweep.name={root.sweep.name}: no case is left of it ({len(excluded)} excluded); mend sweep.exclude"])
    if lines := _case_lines(cases):
        raise ConfigError(lines)
    sweep = Sweep(
        name=root.sweep.name,
        cases=cases,
        excluded=excluded,
        procedure=root.procedure,
        cluster=root.cluster,
        hardware=root.hardware,
        models={name: ModelSource(**source.model_dump(exclude={"presets"})) for name, source in root.models.items()},
        command=_command(overrides, config_dir),
    )
    if root.resume.force and not root.resume.folder:
        raise ConfigError(["resume.force=true: nothing to go on with; name the run folder too, as resume=RUN_DIR"])
    if root.stack not in STACKS:
        raise ConfigError([f"stack={root.stack}: no such code; {did_you_mean(root.stack, STACKS)}"])
    return Request(
        sweep=sweep,
        reports=Path(root.reports).expanduser(),
        resume=Path(root.resume.folder).expanduser() if root.resume.folder else None,
        force=root.resume.force,
        format=root.format,
        stack=root.stack,
        calibrate=Path(root.calibrate).expanduser() if root.calibrate else None,
    )


def _checked(plain: dict[str, Any]) -> _Root:
    """The composed config in its types.

    Raises:
        ConfigError: With every unknown key and every value of a wrong type.
    """
    if isinstance(plain.get("sweep"), Mapping) and "sweep" in plain["sweep"]:
        raise ConfigError(["sweep.sweep: no such key; the first line of a sweep's file has to be `# @package _global_`"])
    problems = [*_unknown("", plain, _Root.model_fields)]
    for node, known in _NODES.items():
        problems += _unknown(f"{node}.", plain.get(node), known)
    models = plain.get("models")
    for name, model in models.items() if isinstance(models, Mapping) else ():
        problems += _unknown(f"models.{name}.", model, _Model.model_fields)
    problems += [f"{path}: {SECRET_RULE}" for node in _RECORDED for path, text in _texts(node, plain.get(node)) if has_secret(text)]
    try:
        root = _Root.model_validate(plain)
    except ValidationError as error:
        problems += [_told(details) for details in error.errors() if details["type"] not in _UNKNOWN_KEY]
    if problems:
        raise ConfigError(problems)
    return root


def _told(details: ErrorDetails) -> str:
    """A complaint of pydantic's on one line; what lacks a part is not shown whole."""
    where = ".".join(map(str, details["loc"]))
    if details["type"] == "missing":
        return f"{where}: is not there, and has to be"
    return f"{where}={details['input']!r}: {explain(details)}"


def _texts(path: str, node: object) -> Iterator[tuple[str, str]]:
    """Every text of a composed config with where it stands; of a mapping also the keys."""
    match node:
        case str():
            yield path, node
        case Mapping():
            for key, value in node.items():
                yield from ((f"{path}.{HIDDEN}" if has_secret(str(key)) else path, str(key)), *_texts(f"{path}.{key}", value))
        case list() | tuple():
            for i, value in enumerate(node):
                yield from _texts(f"{path}[{i}]", value)


def _unknown(prefix: str, given: object, known: Iterable[str]) -> Iterable[str]:
    """A line for every key that nobody knows; what is no mapping at all is pydantic's to tell."""
    names = list(known)
    if not isinstance(given, Mapping):
        return []
    return [f"{prefix}{key}: no such key; {did_you_mean(str(key), names)}" for key in given if key not in names]


def _command(overrides: Sequence[str], config_dir: Path | None) -> str:
    """The command line as it may be published: home folders as ``~``, which every path of ours may begin with, and no token."""
    more = ["--config-dir", str(config_dir)] if config_dir else []
    words = [override for override in overrides if not re.match(r"\+{0,2}resume[.=]", override)]
    return shlex.join(["python", "-m", "wansweep", *map(public_word, [*words, *more])])


def _matrix(root: _Root, parsed: Sequence[Override]) -> Matrix:
    keys = [key_of(override) for override in parsed]
    return Matrix(
        base=root.base,
        presets={(name, model): Settings(**dict(given)) for model, source in root.models.items() for name, given in source.presets.items()},
        boundaries={model: source.boundary for model, source in root.models.items()},
        cases=root.sweep.cases,
        axes=root.sweep.axes,
        zips=root.sweep.zips,
        include=root.sweep.include,
        exclude=root.sweep.exclude,
        pinned=frozenset(key.removeprefix("base.") for key in keys if key.startswith("base.")),
        only=root.sweep.only,
        laid_over=frozenset(key.removeprefix("sweep.axes.") for key in keys if key.startswith("sweep.axes.")),
    )


def _groups(root: _Root, parsed: Sequence[Override], config_dir: Path | None) -> dict[str, Matrix]:
    """Each group's matrix, composed as ``+sweep=GROUP`` with the same overrides would be, but for those of the sweep that holds the groups.

    Raises:
        ConfigError: There is no such group, one has groups itself, or the sweep has cases beside its groups.
    """
    names, known = root.sweep.groups, sweep_names(config_dir)
    problems = [f"sweep.groups: no sweep {name!r}; {did_you_mean(name, known)}" for name in names if name not in known]
    problems += [
        f"sweep.{part}: a sweep of groups has no {part} of its own; set a field of every case (base.steps=4), choose groups "
        f"(sweep.groups=[{names[0]}]), or run the one: +sweep={names[0]}"
        for part in ("cases", "axes", "zips", "include", "exclude")
        if getattr(root.sweep, part)
    ]
    if problems:
        raise ConfigError(problems)
    others = [override for override in parsed if override.key_or_group.split(".")[0] != "sweep" and not chooses_model(override)]
    plains = side_by_side(names, others, config_dir)
    matrices = {}
    for name in names:
        group = _checked(plains.get(name) or compose(others, config_dir, sweep=name))
        if group.sweep.groups:
            raise ConfigError([f"sweep.groups: {name} has groups itself ({', '.join(group.sweep.groups)}); name those"])
        matrices[name] = _matrix(group, others)
    return matrices


def _chosen_model(root: _Root) -> Model:
    """The model that the command line names.

    Raises:
        ConfigError: There is no such model.
    """
    named = str(root.base["model"])
    if named not in list(Model):
        raise ConfigError([f"model={named}: no such model; {did_you_mean(named, [str(model) for model in Model])}"])
    return Model(named)


def _case_lines(cases: Sequence[Case]) -> list[str]:
    """What no machine could run, one line a problem with the cases that have it."""
    labels: dict[str, list[str]] = {}
    for case in cases:
        for problem in case_problems(case):
            labels.setdefault(problem, []).append(case.label)
    return [f"{problem} (case {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})" for problem, names in labels.items()]
