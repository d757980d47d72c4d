"""What the documents tell a reader to type, and a stand-in for wansweep that runs it on this machine.

As a program it is ``wansweep`` on the PATH of a documented command: it takes the arguments as they are written, but weights that are not
here are miniatures, a sweep that runs is its first small case, and Ray is the suite's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wansweep.config import Request

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "SECURITY.md", "launch/README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language; commands have none."""
    path = ROOT / page
    text = path.read_text() if path.exists() else ""
    return [body for tag, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if tag == language]


def commands(page: str) -> list[str]:
    """The commands of a page, in order, comments left out."""
    lines = "".join(blocks(page, "")).replace("\\\n", "").splitlines()
    return [bare for line in lines if (bare := re.sub(r"(^|\s+)#.*$", "", line).strip())]


def main(given: list[str]) -> int:
    """The command line as it is written, made small."""
    from wansweep import cli
    from wansweep.config import read_request

    verb, rest = (given[0], given[1:]) if given[0] in cli.VERBS else ("run", given)
    if verb == "run":
        rest = [re.sub(r"^weights=.*", "weights=tiny", argument) for argument in rest]
        own = Path(rest[rest.index("--config-dir") + 1]) if "--config-dir" in rest else None
        overrides = [argument for argument in rest if "=" in argument]
        cases = read_request(overrides, config_dir=own).sweep.cases
        if not any(argument.startswith("sweep.only=") for argument in rest):
            small = min(cases, key=lambda case: (case.gpus, case.offload != "none"))
            rest.append(f"sweep.only=['{small.label}']")
        if "weights=tiny" not in rest and any(case.weights != "tiny" for case in cases):
            rest.append("weights=tiny")
        rest += [
            f"cluster.address={os.environ['WANSWEEP_TEST_RAY']}",
            "procedure.isolation=warm",
            "procedure.cooldown_s=0",
            "procedure.repeats=1",
        ]
        return once(rest, read_request([argument for argument in rest if "=" in argument], config_dir=own))
    return cli.main([verb, *rest])


def once(arguments: list[str], asked: Request) -> int:
    """Run the sweep, unless another command asked for it: three sources of weights are one miniature here, and that run folder stands in."""
    from wansweep import cli

    sweep = asked.sweep
    same = (ROOT, sweep.name, sweep.cases, sweep.excluded, sweep.procedure, sweep.cluster, sweep.hardware, sweep.models)
    known = Path(os.environ["WANSWEEP_TEST_TYPED"]) / hashlib.sha256(repr(same).encode()).hexdigest()
    place = asked.reports / sweep.name
    if known.exists():
        shutil.copytree(known, place, dirs_exist_ok=True)
        return 0
    before = set(place.glob("*"))
    code = cli.main(["run", *arguments])
    for made in set(place.glob("*")) - before:
        shutil.copytree(made, known / made.name)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
