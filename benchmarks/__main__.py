"""``python -m benchmarks [NAME ...]``: run the benchmarks, all of them or those named."""

from __future__ import annotations

import sys

from benchmarks import comparing, measuring, packing, planning

BENCHMARKS = {"measuring": measuring.run, "packing": packing.run, "comparing": comparing.run, "planning": planning.run}


def main() -> int:
    """Print each benchmark's figures; exit code 2 for a name that is none."""
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        print(f"no such benchmark: {', '.join(unknown)}; one of: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names:
        print(f"## {name}")
        BENCHMARKS[name]()
    return 0


sys.exit(main())
