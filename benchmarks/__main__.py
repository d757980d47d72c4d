"""``python -m benchmarks [NAME ...] [--cases N] [--rows N]``: run the benchmarks, all of them or those named."""

from __future__ import annotations

import argparse
import importlib

NAMES = ("measuring", "packing", "comparing", "planning", "scale", "load")


def main() -> None:
    """Print each benchmark's figures; exit code 2 for a name that is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--cases", type=int, help="of the benchmark load")
    parser.add_argument("--rows", type=int, help="of the benchmark scale")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; one of: {', '.join(NAMES)}")
    sizes = {"load": options.cases, "scale": options.rows}
    for name in options.names or NAMES:
        print(f"## {name}", flush=True)
        # Each alone: torch is a second and half a GB that most have no use for.
        benchmark = importlib.import_module(f"benchmarks.{name}")
        size = sizes.get(name)
        benchmark.run(*([] if size is None else [size]))


if __name__ == "__main__":
    main()
