"""A workload of known size: sleeps, allocates, burns CPU alone and through a child, and says when it did what.

Run as a script; one JSON object on stdout. It waits for a line on stdin before it begins and before it ends, so that a sampler can be
started and stopped around it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from wansweep.telemetry.host import Counters, Tree, counters, cpu_pct

BLOCK_BYTES = 256 * 2**20
CHILD = "import time\nwhile time.process_time() < 0.4: pass"


def main() -> None:
    tree = Tree(os.getpid(), refresh_s=0.0)
    marks: dict[str, list[float]] = {}
    cpu: dict[str, list[float | None]] = {}

    def stage(name: str, start: Counters, truth_s: float) -> None:
        end = counters(tree)
        marks[name] = [start.t_s, end.t_s]
        cpu[name] = [cpu_pct(start, end).value, 100 * truth_s / (end.t_s - start.t_s)]

    sys.stdin.readline()
    begun_s = time.process_time()
    start = counters(tree)
    time.sleep(0.6)
    stage("sleep", start, 0.0)

    block = bytearray(BLOCK_BYTES)
    block[::4096] = b"\1" * len(block[::4096])
    start = counters(tree)
    time.sleep(0.8)
    stage("hold", start, 0.0)

    start, own = counters(tree), time.process_time()
    times: list[tuple[float, float]] = []
    while time.process_time() - own < 1.5:
        times.append((time.monotonic(), time.process_time()))
        sum(range(100_000))
    stage("burn", start, time.process_time() - own)

    start, own = counters(tree), time.process_time()
    before = os.times()
    subprocess.run([sys.executable, "-S", "-c", CHILD], check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    stage("child", start, time.process_time() - own + spent)

    sys.stdout.write(json.dumps({"marks": marks, "cpu": cpu, "times": times, "child_s": spent, "own_s": time.process_time() - begun_s}) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main()
