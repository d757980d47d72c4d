"""Why a case cannot run here: a lever that the machine or a library refuses, or that was declared and is not in force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Invalid(Exception):  # noqa: N818  (an outcome, not an error of ours)
    """The case cannot run here; the message is the reason."""


@contextmanager
def refusals(lever: str) -> Iterator[None]:
    """What a library refuses inside the ``with`` ends the case as invalid, in the library's own words.

    Args:
        lever: The declared field and value, as the reason begins.

    Raises:
        Invalid: With the lever and the reason. Running out of memory stays what it is.
    """
    try:
        yield
    except (torch.OutOfMemoryError, Invalid):
        raise
    except (RuntimeError, ValueError, ImportError, NotImplementedError, AssertionError, TypeError) as error:
        raise Invalid(f"{lever}: {str(error) or type(error).__name__}") from error


def hold(field: str, *, declared: object, resolved: object) -> None:
    """Hold what was declared against what was read back.

    Raises:
        Invalid: They differ.
    """
    if declared != resolved:
        raise Invalid(f"declared {field}={declared}, resolved {resolved}")
