"""Whole runs of the program, as a user starts them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from wansweep.store import RunFolder

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 300


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "wansweep", *arguments]


def wansweep(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def run_folder(done: subprocess.CompletedProcess[str]) -> RunFolder:
    """The run folder that a sweep left: the last line on stdout."""
    assert done.stdout, done.stderr
    return RunFolder(path=Path(done.stdout.splitlines()[-1]))


def masked(text: str) -> str:
    """A report without what changes from run to run and machine to machine: figures of this CPU, hashes, versions, paths, advice."""
    text = text.partition("# Environment")[0]
    # Which cases no other beats depends on the machine's speed.
    text = re.sub(r"^# Choosing\n\n.*?\n(?=# )", "# Choosing\n\n#\n\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\b\d+\.\d+\b", "#", text)
    text = re.sub(r"latents [0-9a-f]{12}", "latents #", text)
    text = re.sub(r"reports=\S+", "reports=#", text)
    text = re.sub(r"on cpu \([^)]*\)", "on cpu (#)", text)
    # CPU and host memory of a stage are null or not as its length is; on a CPU the GPU's figures always are.
    text = re.sub(r"^(\| \w+ \| # \| n/a \|) \S+ \| \S+ (\| n/a \| n/a \| n/a \|)$", r"\1 # | # \2", text, flags=re.MULTILINE)
    text = re.sub(r"^- \*\*(Memory|Measured|n/a|Avg CPU Utilization)\*\*: .*$", r"- **\1**: #", text, flags=re.MULTILINE)
    # Who ran beside whom depends on the machine's cores.
    text = re.sub(r"^- \*\*Node shared with\*\*: .*\n", "", text, flags=re.MULTILINE)
    # Which rules find something depends on the machine's speed.
    text = re.sub(r"^\*\*(Instability warnings|Bottlenecks Detected):\*\*\n(- .*\n)+\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^(Nothing found by|Not checked).*$", "#", text, flags=re.MULTILINE)
