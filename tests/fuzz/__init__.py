"""Bad input from hypothesis: configs, records, old reports. Longer: ``pytest tests/fuzz --hypothesis-profile=long --hypothesis-seed=1``."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from wansweep import cli

# The profile says how much larger a run is than the suite's own.
SHARE = settings().max_examples / 100

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [10**400, 2**63, -1, 0, -0.0, float("nan"), float("inf"), "../x", "a/b", "\0", "\ud800", "|<b>`$(x)`", "\n# x", "none", "tiny"]
    ),
)


def nested(scalars: st.SearchStrategy[object] = SCALARS) -> st.SearchStrategy[object]:
    """A scalar, or small lists and mappings of them; keys are no texts now and then, as in YAML."""
    keys = st.one_of(st.text(max_size=5), st.integers(), st.none(), st.sampled_from(["steps", "offload", "why", "name", "gpus", "seed"]))
    return st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=5)


def many(count: int) -> settings:
    """So many examples in the suite, more in a longer run."""
    return settings(max_examples=round(count * SHARE), suppress_health_check=list(HealthCheck), database=None)


def paths(tree: object, before: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Where every value of a tree of mappings and lists is."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [before, *(path for key, value in inner for path in paths(value, (*before, key)))]


def put(tree: object, path: Sequence[object], value: object) -> None:
    """Put a value into a tree; a path that another change has cut off is left."""
    with contextlib.suppress(KeyError, TypeError, IndexError):
        for key in path[:-1]:
            tree = tree[key]  # type: ignore[index]
        tree[path[-1]] = value  # type: ignore[index]


def answered(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line in this process; an exception is the traceback that a user would see."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = cli.main(arguments)
        except SystemExit as end:  # argparse's own answer
            code = int(str(end.code))
    return code, out.getvalue(), err.getvalue()
