"""wansweep: decide how to run Wan2.2 video models, from measurements."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wansweep.api import expand, load, run_case

__version__ = "0.1.0"
__all__ = ["__version__", "expand", "load", "run_case"]


def __getattr__(name: str) -> object:
    """The functions of `wansweep.api`, loaded when first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module("wansweep.api"), name)
