"""What can go wrong for a user, as a tree.

::

    WansweepError            one line per problem on stderr, exit code 2, no traceback
    ├── ConfigError          the command line or the YAML is wrong; carries every problem found, not the first
    ├── CaseError            one case asks for what its model cannot do
    ├── StoreError           a run folder cannot be made, read or written
    │   └── NewerSchemaError a record of a newer wansweep
    ├── SeedError            a report that is not in the seed format
    └── ClusterError         no Ray cluster, or one that can never hold a case

Our own bugs are ``assert``; what happens to a trial is no exception at all but an Outcome (record.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class WansweepError(Exception):
    """A mistake that the user can mend: the message names the thing, its value, the rule and the way out."""


class ConfigError(WansweepError):
    """Every problem of a config at once, one line each.

    Attributes:
        problems: The lines, in the order found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        assert problems, "a ConfigError without a problem"
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class CaseError(WansweepError):
    """A case that its model cannot run: a size off the grid, a task it was not trained for."""


class StoreError(WansweepError):
    """A run folder that is not there, not ours, or cannot be written."""


class NewerSchemaError(StoreError):
    """A record that a newer wansweep wrote; this one would misread it."""


class SeedError(WansweepError):
    """A Markdown report that cannot be read as the seed format; names the line, the rule and the way out."""


class ClusterError(WansweepError):
    """A Ray cluster that cannot be reached, or can never hold a case."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The tail of an error message: the nearest known word, or all of them when none is near."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(words)}"
