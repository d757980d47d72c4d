"""Sweeps of sweeps: the matrices of several sweeps as one ordered set of cases, equal ones once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from wansweep.case import Case, Model
from wansweep.errors import ConfigError
from wansweep.labels import unique
from wansweep.matrix import Fields, Matrix, expand, only
from wansweep.presets import Scalar
from wansweep.sweep import Exclusion


def union(
    groups: Mapping[str, Matrix], *, model: Model | None = None, chosen: Sequence[str] = ()
) -> tuple[tuple[Case, ...], tuple[Exclusion, ...]]:
    """The cases of every group in order, and those left out; a case that an earlier group has too is that group's.

    Where a group sets a field that the command line gives, the command line wins. The model is no such field, since sizes and settings
    follow from it: it chooses among a group's cases.

    Args:
        groups: Name to matrix.
        model: Keeps the cases of this one; null keeps all.
        chosen: Labels or ids to keep; empty keeps all.

    Raises:
        ConfigError: With every problem found, each told with its group; or no case is left.
    """
    kept: dict[str, Case] = {}
    excluded: list[Exclusion] = []
    problems: list[str] = []
    for name, matrix in groups.items():
        try:
            cases, left_out = expand(replace(_overridden(matrix), group=name))
        except ConfigError as error:
            problems += [f"group {name}: {problem}" for problem in error.problems]
            continue
        excluded += [exclusion for exclusion in left_out if model in (None, exclusion.case.model)]
        for case in cases:
            if model not in (None, case.model):
                continue
            if case.id in kept:
                excluded.append(Exclusion(case=case, reason=f"same settings as {kept[case.id].label}"))
            kept.setdefault(case.id, case)
    if problems:
        raise ConfigError(problems)
    if not kept:
        raise ConfigError([f"model={model}: none of the groups has a case of it ({', '.join(groups)})"])
    return only(tuple(unique(list(kept.values()))), chosen), tuple(excluded)


def _overridden(matrix: Matrix) -> Matrix:
    """The matrix without what it sets of fields that the command line gives."""
    given = matrix.pinned

    def without(fields: Fields) -> Fields:
        return {name: value for name, value in fields.items() if name not in given}

    def columns(axes: Mapping[str, Sequence[Scalar]]) -> Mapping[str, Sequence[Scalar]]:
        return {name: values for name, values in axes.items() if name not in given}

    return replace(
        matrix,
        cases={name: without(fields) for name, fields in matrix.cases.items()},
        axes=columns(matrix.axes),
        zips={name: left for name, zipped in matrix.zips.items() if (left := columns(zipped))},
        include=[without(fields) for fields in matrix.include],
        pinned=frozenset(),
        laid_over=given,
    )
