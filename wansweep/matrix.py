"""Named cases, axes, zips, includes and excludes to an ordered tuple of Cases.

Every value is checked where it stands, so a message names the key that the user wrote. All problems are found before any is told.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from wansweep.case import Case, Model, Preset, declared_fields
from wansweep.errors import ConfigError, did_you_mean
from wansweep.labels import labelled, unique
from wansweep.presets import Presets, Scalar, preset_of
from wansweep.privacy import has_secret, in_home
from wansweep.sweep import Exclusion

Fields = Mapping[str, Scalar]

# Names become file names, which 255 bytes hold with what is added to them.
NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# No sweep that anybody waits for; one axis too many would fill the memory instead of being told.
MOST_CASES = 100_000
_TYPES = typing.get_type_hints(Case)
# A run folder may be published, so a path in the user's home begins with ~; whoever opens one expands it.
_FILES = ("weights", "transformer_gguf", "transformer_2_gguf")
SECRET_RULE = "holds what is or looks like a token or password, and would stand in every record; leave it out"
# pydantic would take true for 1.
_NUMBERS = (int, float, int | None, float | None)
# What a sweep may set: the declared fields, and the preset that fills those it leaves open.
_ADAPTERS: Mapping[str, TypeAdapter[Scalar]] = {
    **{f.name: TypeAdapter(_TYPES[f.name]) for f in declared_fields()},
    "preset": TypeAdapter(Preset),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A sweep as written.

    Attributes:
        base: Fields of every case; null leaves a field to the preset.
        presets: Settings of every case of a preset and model, under base.
        boundaries: Of each model, between its experts.
        cases: Named cases, as fields over base.
        axes: Field to values; every combination.
        zips: Name to columns of equal length, walked in step.
        include: More cases, as fields over base.
        exclude: Patterns over the product: a value or values a field, and optionally ``why``.
        pinned: Base fields given on the command line, which nothing may overwrite.
        only: Labels or ids to keep; empty keeps all.
        group: Name of the sweep among others that are run as one; begins its labels.
        laid_over: Fields that took the place of what the sweep says, as axes of the command line do; an exclude that
            names one of them may match nothing.
    """

    base: Fields
    presets: Presets
    boundaries: Mapping[Model, float | None]
    cases: Mapping[str, Fields]
    axes: Mapping[str, Sequence[Scalar]]
    zips: Mapping[str, Mapping[str, Sequence[Scalar]]]
    include: Sequence[Fields]
    exclude: Sequence[Mapping[str, Scalar | Sequence[Scalar]]]
    pinned: frozenset[str] = frozenset()
    only: Sequence[str] = ()
    group: str = ""
    laid_over: frozenset[str] = frozenset()

    def sets(self, field: str) -> bool:
        """Whether an axis, a zip or a case of its own sets the field."""
        parts = (self.axes, *self.zips.values(), *self.cases.values(), *self.include)
        return any(field in part for part in parts)


def expand(matrix: Matrix) -> tuple[tuple[Case, ...], tuple[Exclusion, ...]]:
    """The cases of a matrix in order (named, product, included), and those left out with the reason.

    Raises:
        ConfigError: With every problem found.
    """
    checked = _checked(matrix)
    generated, excluded = _without_excluded(checked, _product(checked))
    generated += [_case(checked, fields) for fields in checked.include]
    cases = [_case(checked, {**fields, "name": name}) for name, fields in checked.cases.items()]
    cases += labelled(generated, varied=_varied(checked), group=checked.group)
    kept: dict[str, Case] = {}
    for case in cases:
        if case.id in kept:
            excluded.append(Exclusion(case=case, reason=f"same settings as {kept[case.id].label}"))
        kept.setdefault(case.id, case)
    return only(tuple(unique(list(kept.values()))), checked.only), tuple(excluded)


def _checked(matrix: Matrix) -> Matrix:
    """The matrix with every scalar of its field's type; all problems of keys, types and clashes in one ConfigError."""
    problems: list[str] = []

    def fields(path: str, given: Fields) -> Fields:
        return {key: value for key, raw in given.items() for ok, value in [_value(f"{path}.{key}", key, raw, problems)] if ok}

    def columns(path: str, given: Mapping[str, Sequence[Scalar]]) -> Mapping[str, Sequence[Scalar]]:
        return {key: _column(f"{path}.{key}", key, values, problems) for key, values in given.items()}

    checked = replace(
        matrix,
        base=fields("base", matrix.base),
        presets={
            (name, model): replace(settings, fields=fields(f"models.{model}.presets.{name}.fields", settings.fields))
            for (name, model), settings in matrix.presets.items()
        },
        cases={name: fields(f"sweep.cases.{name}", given) for name, given in matrix.cases.items()},
        axes=columns("sweep.axes", matrix.axes),
        zips={name: columns(f"sweep.zips.{name}", given) for name, given in matrix.zips.items()},
        include=[fields(f"sweep.include[{i}]", given) for i, given in enumerate(matrix.include)],
        exclude=[_pattern(f"sweep.exclude[{i}]", given, problems) for i, given in enumerate(matrix.exclude)],
    )
    problems += [
        f"sweep.cases.{name}: a name is at most 100 letters, digits, '.', '_' and '-', and starts with a letter or digit"
        for name in matrix.cases
        if not NAME_RULE.fullmatch(name)
    ]
    problems += [*_clashes(matrix), *_too_many(matrix)]
    if problems:
        raise ConfigError(problems)
    return checked


def _value(path: str, key: str, raw: Scalar, problems: list[str]) -> tuple[bool, Scalar]:
    """Whether the value is of its field's type, and the value in that type; null stands for "not set" in any field."""
    if key not in _ADAPTERS or key == "name":
        rule = "cases are named by sweep.cases.NAME" if key == "name" else f"no such case field; {did_you_mean(key, _ADAPTERS)}"
        problems.append(f"{path}: {rule}")
        return False, None
    if raw is None:
        return True, None
    if isinstance(raw, bool) and _TYPES.get(key) in _NUMBERS:
        problems.append(f"{path}={raw}: a number is wanted here")
        return False, None
    if isinstance(raw, str) and has_secret(raw):
        problems.append(f"{path}: {SECRET_RULE}")
        return False, None
    try:
        return True, _ADAPTERS[key].validate_python(in_home(raw) if isinstance(raw, str) and key in _FILES else raw)
    except ValidationError as error:
        problems.append(f"{path}={raw!r}: {explain(error.errors()[0])}")
        return False, None


def _column(path: str, key: str, values: Sequence[Scalar], problems: list[str]) -> Sequence[Scalar]:
    if not values:
        problems.append(f"{path}=[]: an axis needs at least one value; ~{path} drops it")
    column = []
    for i, raw in enumerate(values):
        ok, value = _value(f"{path}[{i}]" if key in _ADAPTERS else path, key, raw, problems)
        column += [value] if ok else []
        if key not in _ADAPTERS:
            break
    return column


def _pattern(path: str, given: Mapping[str, Scalar | Sequence[Scalar]], problems: list[str]) -> Mapping[str, Scalar | Sequence[Scalar]]:
    pattern: dict[str, Scalar | Sequence[Scalar]] = {}
    for key, raw in given.items():
        if key == "why":
            pattern[key] = str(raw)
        else:
            values = [raw] if isinstance(raw, str) or not isinstance(raw, Sequence) else raw
            pattern[key] = _column(f"{path}.{key}", key, values, problems)
    return pattern


def explain(details: ErrorDetails) -> str:
    """A pydantic complaint in a few words, with the nearest choice where the choices are known."""
    message = details["msg"]
    if details["type"] in ("enum", "literal_error"):
        choices = re.findall(r"'([^']*)'", message)
        near = did_you_mean(str(details["input"]).lower(), choices)
        return f"not one of {', '.join(choices)}{f'; {near}' if near.startswith('did') else ''}"
    return message[0].lower() + message[1:]


def _clashes(matrix: Matrix) -> Iterator[str]:
    """Places where one part of a matrix would silently overwrite another."""
    places: list[tuple[str, str]] = [(field, f"sweep.axes.{field}") for field in matrix.axes]
    for name, columns in matrix.zips.items():
        places += [(field, f"sweep.zips.{name}.{field}") for field in columns]
        lengths = {field: len(values) for field, values in columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{field}: {length}" for field, length in lengths.items())
            yield f"sweep.zips.{name}: columns of unequal length ({told}); a zip walks them in step"
    seen: dict[str, str] = {}
    for field, path in places:
        if field in seen:
            yield f"{path}: {seen[field]} sets {field} too; a field is one axis"
        seen.setdefault(field, path)
    places += [(field, f"sweep.cases.{name}.{field}") for name, fields in matrix.cases.items() for field in fields]
    places += [(field, f"sweep.include[{i}].{field}") for i, fields in enumerate(matrix.include) for field in fields]
    for field in sorted(matrix.pinned):
        if paths := [path for given, path in places if given == field]:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            where, way_out = f"{paths[0]}{more}", f"override that instead, or drop it with ~{paths[0]}"
            yield f"base.{field}={matrix.base.get(field)} of the command line is overwritten by {where}; {way_out}"


def _too_many(matrix: Matrix) -> Iterator[str]:
    lengths = [len(values) for values in matrix.axes.values()]
    lengths += [max((len(values) for values in columns.values()), default=1) for columns in matrix.zips.values()]
    if (count := math.prod(lengths)) > MOST_CASES:
        yield f"sweep.axes: {count} combinations; a sweep has at most {MOST_CASES}, so leave out axes or values"


def _varied(matrix: Matrix) -> tuple[str, ...]:
    """The fields that generated cases differ in, in the order written."""
    fields = [*matrix.axes, *(f for columns in matrix.zips.values() for f in columns), *(f for given in matrix.include for f in given)]
    return tuple(dict.fromkeys(fields))


def _product(matrix: Matrix) -> list[dict[str, Scalar]]:
    """Every combination of axes and zips as fields, the first axis slowest; base alone when the sweep says nothing else."""
    steps: list[list[dict[str, Scalar]]] = [[{field: value} for value in values] for field, values in matrix.axes.items()]
    for columns in matrix.zips.values():
        steps.append([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    if not steps and (matrix.cases or matrix.include):
        return []
    return [{field: value for part in parts for field, value in part.items()} for parts in itertools.product(*steps)]


def _without_excluded(matrix: Matrix, product: Sequence[Fields]) -> tuple[list[Case], list[Exclusion]]:
    """The product's cases that no exclude matches, and the matched ones.

    Raises:
        ConfigError: An exclude matches nothing.
    """
    cases = labelled([_case(matrix, fields) for fields in product], varied=_varied(matrix), group=matrix.group)
    hits = [0] * len(matrix.exclude)
    kept: list[Case] = []
    excluded: list[Exclusion] = []
    for case in cases:
        matched = [i for i, pattern in enumerate(matrix.exclude) if _matches(case, pattern)]
        for i in matched:
            hits[i] += 1
        if matched:
            excluded.append(Exclusion(case=case, reason=str(matrix.exclude[matched[0]].get("why", f"sweep.exclude[{matched[0]}]"))))
        else:
            kept.append(case)
    idle = [
        f"sweep.exclude[{i}] ({_told(pattern)}) matches none of the {len(cases)} combinations; drop it or mend its values"
        for i, pattern in enumerate(matrix.exclude)
        if hits[i] == 0 and not matrix.laid_over & pattern.keys()
    ]
    if idle:
        raise ConfigError(idle)
    return kept, excluded


def _matches(case: Case, pattern: Mapping[str, Scalar | Sequence[Scalar]]) -> bool:
    return all(getattr(case, key) in values for key, values in pattern.items() if key != "why" and isinstance(values, Sequence))


def _told(pattern: Mapping[str, Scalar | Sequence[Scalar]]) -> str:
    """The pattern as the user wrote it."""
    return ", ".join(f"{key}={'|'.join(map(str, v)) if isinstance(v, Sequence) else v}" for key, v in pattern.items() if key != "why")


def _case(matrix: Matrix, fields: Fields) -> Case:
    """One case: the dataclass's defaults, under the preset's, under base, under its own fields; gpus and degrees complete each other."""
    own = {key: value for key, value in {**matrix.base, **fields}.items() if value is not None}
    if "model" not in own:
        raise ConfigError([f"base.model: not set; one of: {', '.join(Model)}"])
    model = Model(str(own["model"]))
    given = {**_settings(matrix, model, own.pop("preset", None)), **own}
    if "ulysses" not in given:
        others = _degree(given, "ring") * _degree(given, "cfg_parallel")
        given["ulysses"] = max(1, _degree(given, "gpus") // others)
    given.setdefault("gpus", math.prod(_degree(given, name) for name in ("ulysses", "ring", "cfg_parallel")))
    nullable = {f.name: None for f in declared_fields() if type(None) in typing.get_args(_TYPES[f.name])}
    missing = [f.name for f in declared_fields() if f.default is dataclasses.MISSING and f.name not in {**nullable, **given}]
    if missing:
        raise ConfigError([f"base.{field}: not set, and models.{model}.presets has no value for it" for field in missing])
    case = Case(**{**nullable, **given, "label": str(given.get("name", ""))})  # type: ignore[arg-type]
    return replace(case, preset=preset_of(case, matrix.boundaries.get(model), matrix.presets))


def _settings(matrix: Matrix, model: Model, preset: Scalar) -> Fields:
    """What the preset, or the official one where none is named, fills in.

    Raises:
        ConfigError: The named one has nothing for the model.
    """
    name = Preset(str(preset or Preset.OFFICIAL))
    settings = matrix.presets.get((name, model))
    if settings is None and preset is not None:
        known = ", ".join(other for known, other in matrix.presets if known is name)
        raise ConfigError([f"preset={name}: there are no such settings for {model}; there are for {known or 'no model'}"])
    return {key: value for key, value in settings.fields.items() if value is not None} if settings else {}


def _degree(given: Mapping[str, Scalar | None], field: str) -> int:
    """A degree as given, at least 1: `plan.rules` tells of worse ones."""
    degree = given.get(field, 1)
    return degree if isinstance(degree, int) and degree > 0 else 1


def only(cases: tuple[Case, ...], wanted: Sequence[str]) -> tuple[Case, ...]:
    """The cases whose label or id is named; all of them when none is.

    Raises:
        ConfigError: A name that no case has.
    """
    known = {name: case.id for case in cases for name in (case.label, case.id)}
    if unknown := [
        f"sweep.only={name}: no case has this label or id; {did_you_mean(name, [c.label for c in cases])}"
        for name in wanted
        if name not in known
    ]:
        raise ConfigError(unknown)
    ids = {known[name] for name in wanted}
    return tuple(case for case in cases if not ids or case.id in ids)


def of_model(cases: Sequence[Case], excluded: Sequence[Exclusion], model: Model) -> tuple[tuple[Case, ...], tuple[Exclusion, ...]]:
    """Those of one model.

    Raises:
        ConfigError: There is no case of it.
    """
    kept = tuple(case for case in cases if case.model is model)
    if not kept:
        raise ConfigError([f"model={model}: no case of this sweep is of it; it has {', '.join(sorted({case.model for case in cases}))}"])
    return kept, tuple(exclusion for exclusion in excluded if exclusion.case.model is model)
