"""The newest readings in a trace that is still being written, from its last lines alone: for live views, not for figures."""

from __future__ import annotations

import json
import os
from pathlib import Path

# Some seconds of eight GPUs at ten readings a second.
TAIL_BYTES = 256 * 1024


def newest(path: Path) -> dict[tuple[str, str], float]:
    """Device and metric to the newest value in the trace's last part; empty while there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    found: dict[tuple[str, str], float] = {}
    for text in lines:
        try:
            line = json.loads(text)
            found |= {(line["d"], metric): float(value) for metric, value in line.get("v", {}).items()}
        except (ValueError, TypeError, KeyError):  # the first and last may be half; Start and Cost have no device
            continue
    return found
