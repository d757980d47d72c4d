"""The JavaScript that draws report.html's pictures: put together once, then found in the user's cache folder."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

from wansweep.cache import cache_dir, made_once

# Of Vega-Lite, which altair writes.
VERSION = "6.4"
_FILE = "bundle.js"


@cache
def library() -> str:
    """Vega, Vega-Lite and vega-embed in a scope of their own. Two seconds of CPU to put together, so once for all processes of a machine."""
    folder = cache_dir() / f"vega-{VERSION}-{metadata.version('vl-convert-python')}"
    try:
        bundle = (made_once(folder, _put_together) / _FILE).read_text(encoding="utf-8")
    except OSError:  # a cache that cannot be written, or was cleared this moment: a report needs none
        bundle = _bundle()
    assert "</script" not in bundle.lower(), "the bundle would end its script element"
    return f"(() => {{\n{bundle}\n}})();"


def _put_together(folder: Path) -> None:
    (folder / _FILE).write_text(_bundle(), encoding="utf-8")


def _bundle() -> str:
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(vl_version=VERSION)  # type: ignore[call-arg]  # its stub asks for a default
    return bundle
