"""Verbs: run (the default), plan, report, import, merge, export, compare, recommend, watch, doctor, completion. The work is elsewhere.

Imports are late: `--help`, `plan` and `report` answer without torch, Ray or diffusers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wansweep import __version__
from wansweep.errors import ConfigError, WansweepError

if TYPE_CHECKING:
    from wansweep.config import Request
    from wansweep.tables.results import Results

OK, FAILED_CASES, WRONG, REGRESSION, NOTHING_COMPARABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130

USAGE = """\
wansweep [run] +sweep=NAME [overrides]     run a sweep; the last line on stdout is its run folder
wansweep run +sweep=NAME resume=RUN_DIR    go on with a run folder: only what has no finished record (resume.force=true: although things differ)
wansweep plan +sweep=NAME [overrides]      print what would run and what it reserves (format=json for scripts; resume=RUN_DIR: what is left)
wansweep report RUN_DIR                    render a run folder's report again (--format md|html|terminal|seed|svg)
wansweep recommend RUN_DIR                 which case to use: [--max-vram 24GB] [--max-time 120s] [--max-gpus N] [--objective gpu_seconds]
wansweep compare BASE HEAD                 what became faster, slower, smaller or larger; exit code 3 for a regression
wansweep merge RUN_DIR RUN_DIR... [-o]     one run folder of several that ran under one environment
wansweep export RUN_DIR... -o FOLDER       a data set to publish: Parquet, JSON schema, card
wansweep import OLD_REPORT.md              make a run folder of a report in the seed format
wansweep watch RUN_DIR                     follow a sweep that runs, from another shell; the summary of one that is over
wansweep doctor                            what this machine can run and measure, what it cannot, and how to mend it
wansweep -sc install=bash                  tab completion: eval "$(wansweep -sc install=bash)"

overrides:  model=ti2v_5b  weights=tiny|random|hub|/folder  base.steps=10  'sweep.axes.offload=[none,model]'  procedure=careful  cluster=auto
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-sc"], ["--shell-completion"]):
        given[:1] = ["completion"]
    verb, rest = (given[0], given[1:]) if given and given[0] in VERBS else ("run", given)
    try:
        return VERBS[verb](rest)
    except WansweepError as error:
        for line in str(error).splitlines():
            print(f"wansweep: {line}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:  # before there was anything to finish
        return INTERRUPTED


def run(arguments: Sequence[str]) -> int:
    """Compose the sweep, run what has no record yet, and leave a folder that answers."""
    from wansweep.report import terminal
    from wansweep.running import run_sweep

    ran = run_sweep(_request(arguments), lambda line: print(line, file=sys.stderr))
    print(_for_terminal(terminal.render, ran.results))
    print(f"report: {ran.folder.report}")
    print(ran.folder.path)
    if ran.interrupted:
        return INTERRUPTED
    return OK if all(record.outcome.is_answer for record in ran.results.records) else FAILED_CASES


def plan(arguments: Sequence[str]) -> int:
    """Print every case with its verdict and what it reserves; run nothing."""
    from wansweep import forecast, twins
    from wansweep.plan.outlook import outlook
    from wansweep.plan.planner import overdue
    from wansweep.plan.planner import plan as planned
    from wansweep.plan.stack import STACKS
    from wansweep.report import plan_table

    request = _request(arguments)
    trials, left = twins.repeats(request.sweep), None
    if request.resume:
        from wansweep.running import remaining

        trials = left = remaining(request)
    cases = tuple(case for case in request.sweep.cases if case.id in trials)
    hardware, unpredicted = forecast.here(request.sweep.hardware)
    calibration, learnt = forecast.calibrated(request.calibrate, hardware)
    procedure = request.sweep.procedure
    rows = overdue(planned(cases, hardware, stack=STACKS[request.stack], calibration=calibration), procedure)
    # Of miniatures nothing is predicted on any card.
    real = any(row.predicted_flop is not None for row in rows)
    told = [*learnt, *([unpredicted] if unpredicted and real else [])]
    if request.format == "json":
        print(*told, sep="\n", end="\n" if told else "", file=sys.stderr)
        print(json.dumps([row.as_row() for row in rows], ensure_ascii=False))
        return OK
    whole = outlook(rows, hardware, procedure=procedure, more=trials, exclusive=request.sweep.cluster.exclusive)
    print(plan_table.render(replace(request.sweep, hardware=hardware), rows, whole, told, left=left), end="")
    return OK


def report(arguments: Sequence[str]) -> int:
    """Render a run folder again, from the folder alone."""
    from wansweep.files import write_out
    from wansweep.publish import evidence, read_results
    from wansweep.store import open_folder

    parser = argparse.ArgumentParser(prog="wansweep report", description=report.__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--format", choices=("md", "html", "terminal", "seed", "svg"), default="md")
    parser.add_argument("-o", "--output", type=Path, help="write to this file instead of stdout")
    parser.add_argument("--case", metavar="LABEL", help="this case's breakdown alone, as Markdown")
    options = parser.parse_args(arguments)
    folder = open_folder(options.run_dir)
    results = read_results(folder, measure=lambda line: print(line, file=sys.stderr))
    match options.format:
        case _ if options.case is not None:
            text = _breakdown(results, options.case)
        case "md":
            from wansweep.report import markdown

            text = markdown.render(results)
        case "html":
            from wansweep.report import html

            text = html.render(results, evidence(folder))
        case "svg":
            from wansweep.report import svg

            text = svg.render(results)
        case "seed":
            from wansweep.seed import exporting, render

            text = render.render(exporting.seed_report(results))
            for line in exporting.left_out(results):
                print(f"wansweep: {line}", file=sys.stderr)
        case _:
            from wansweep.report import terminal

            text = _for_terminal(terminal.render, results)
    if options.output:
        write_out(options.output, text.encode())
    else:
        print(text, end="")
    return OK


def _breakdown(results: Results, label: str) -> str:
    """One case's section of the report.

    Raises:
        ConfigError: No case is called so.
    """
    from wansweep.errors import did_you_mean
    from wansweep.report import breakdown

    rows = {row["label"]: row for row in results.summary.iter_rows(named=True)}
    if label not in rows:
        raise ConfigError([f"--case {label}: no such case; {did_you_mean(label, tuple(rows))}"])
    return next(iter(breakdown.sections(results, [rows[label]]).values())) + "\n"


def watch(arguments: Sequence[str]) -> int:
    """Follow a running sweep from another shell, and print the summary when it is over."""
    from wansweep.publish import read_results
    from wansweep.report import terminal
    from wansweep.schedule.watching import Sight, follow, silent_s
    from wansweep.store import open_folder

    parser = argparse.ArgumentParser(prog="wansweep watch", description=watch.__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--once", action="store_true", help="look once, also on a terminal")
    options = parser.parse_args(arguments)
    folder = open_folder(options.run_dir)
    sight, board = follow(folder.live, stream=sys.stdout, once=options.once)
    if sight is Sight.LOOKED:
        return OK
    results = read_results(folder)
    print(_for_terminal(terminal.render, results))
    if sight is Sight.SILENT and board is not None:
        silent = f"its driver (pid {board.pid}) has said nothing for {silent_s(board):.0f} s"
        print(f"{silent}; go on with: {results.sweep.command} resume={folder.path}")
    return OK


def doctor(arguments: Sequence[str]) -> int:
    """Say what this machine can run and measure, what it cannot and how to mend it. Exit code 1 when sweeps would fail here."""
    from wansweep.doctor.examine import examine
    from wansweep.doctor.show import as_json, as_terminal

    parser = argparse.ArgumentParser(prog="wansweep doctor", description=doctor.__doc__)
    parser.add_argument("--format", choices=("terminal", "json"), default="terminal")
    parser.add_argument(
        "--cluster", default="local", metavar="ADDRESS", help="the Ray cluster to try, as cluster.address: local, auto or host:port"
    )
    options = parser.parse_args(arguments)
    findings = []
    for finding in examine(address=options.cluster):
        findings.append(finding)
        if options.format == "terminal" and sys.stderr.isatty():
            print(f"\rlooking at {finding.area} ...\033[K", end="", file=sys.stderr, flush=True)
    if options.format == "terminal" and sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    colour = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if colour else None
    print(as_json(findings) if options.format == "json" else as_terminal(findings, width=width, colour=colour))
    return FAILED_CASES if any(finding.state.stops_sweeps for finding in findings) else OK


def import_(arguments: Sequence[str]) -> int:
    """Read a report in the seed format into a run folder; the last line on stdout is that folder."""
    from wansweep.publish import import_report

    parser = argparse.ArgumentParser(prog="wansweep import", description=import_.__doc__)
    parser.add_argument("old_report", type=Path)
    parser.add_argument("-o", "--output", type=Path, metavar="RUN_DIR", help="the folder to make; else reports/<name>/<UTC stamp>")
    options = parser.parse_args(arguments)
    print(import_report(options.old_report, options.output).path)
    return OK


def merge(arguments: Sequence[str]) -> int:
    """Make one run folder of several that ran under one environment; the last line on stdout is that folder."""
    from wansweep.merging import merge as merged
    from wansweep.store import stamp

    parser = argparse.ArgumentParser(prog="wansweep merge", description=merge.__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN_DIR", help="the folder to make; else reports/merged/<UTC stamp>")
    options = parser.parse_args(arguments)
    print(merged(options.run_dirs, options.output or Path("reports") / "merged" / stamp()).path)
    return OK


def export(arguments: Sequence[str]) -> int:
    """Write run folders as a data set that `datasets`, the Hub and DuckDB open; the last line on stdout is its folder."""
    from wansweep.bundle import export as exported

    parser = argparse.ArgumentParser(prog="wansweep export", description=export.__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", required=True, help="the folder to make")
    options = parser.parse_args(arguments)
    print(exported(options.run_dirs, options.output))
    return OK


def compare(arguments: Sequence[str]) -> int:
    """Hold run folder HEAD against BASE. Exit code 3 for a regression, 4 when nothing could be compared."""
    from wansweep.errors import did_you_mean
    from wansweep.publish import read_results
    from wansweep.report import comparison as rendered
    from wansweep.store import open_folder
    from wansweep.tables import comparison
    from wansweep.tables.surroundings import MUST_BE_EQUAL

    parser = argparse.ArgumentParser(prog="wansweep compare", description=compare.__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("head", type=Path)
    parser.add_argument("--format", choices=("md", "json", "terminal"), default="terminal")
    parser.add_argument("--across", default="", metavar="NAME,...", help=f"what may differ, since it is compared: {', '.join(MUST_BE_EQUAL)}")
    options = parser.parse_args(arguments)
    across = [name for name in options.across.split(",") if name]
    if unknown := [name for name in across if name not in MUST_BE_EQUAL]:
        raise ConfigError([f"--across {name}: not compared between environments; {did_you_mean(name, MUST_BE_EQUAL)}" for name in unknown])
    base, head = (read_results(open_folder(path)) for path in (options.base, options.head))
    found = comparison.compare(base, head, across=across)
    code = REGRESSION if found.has_regression else NOTHING_COMPARABLE if found.is_empty else OK
    match options.format:
        case "md":
            text = rendered.markdown(found, base=str(options.base), head=str(options.head))
        case "json":
            text = rendered.as_json(found, base=str(options.base), head=str(options.head), exit_code=code)
        case _:
            text = _for_terminal(rendered.terminal, found)
    print(text, end="")
    return code


def recommend(arguments: Sequence[str]) -> int:
    """Say which case of a run folder to use, and what it would take to have another."""
    from wansweep import quantities
    from wansweep.publish import read_results
    from wansweep.report import recommendation as rendered
    from wansweep.store import open_folder
    from wansweep.tables.constraints import Limits
    from wansweep.tables.recommendation import Objective
    from wansweep.tables.recommendation import recommend as recommended

    parser = argparse.ArgumentParser(prog="wansweep recommend", description=recommend.__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--max-vram", metavar="24GB", help="on the fullest GPU")
    parser.add_argument("--max-time", metavar="120s", help="of a whole run")
    parser.add_argument("--max-gpus", metavar="N", help="that a case may take")
    parser.add_argument("--min-ssim", metavar="0.95", help="of the frames, against the lossless twin")
    parser.add_argument("--objective", choices=tuple(map(str, Objective)), default="time")
    parser.add_argument("--allow-lossy", action="store_true", help="count lossy cases whose drift was not measured")
    options = parser.parse_args(arguments)
    limits = Limits(
        vram_bytes=quantities.byte_count(options.max_vram, option="--max-vram") if options.max_vram is not None else None,
        total_s=quantities.seconds(options.max_time, option="--max-time") if options.max_time is not None else None,
        gpus=quantities.count(options.max_gpus, option="--max-gpus") if options.max_gpus is not None else None,
        ssim=quantities.share(options.min_ssim, option="--min-ssim") if options.min_ssim is not None else None,
        allow_lossy=options.allow_lossy,
    )
    results = read_results(open_folder(options.run_dir))
    found = recommended(results, limits, Objective(options.objective))
    print(_for_terminal(rendered.render, found, results, limits), end="")
    return OK


def completion(arguments: Sequence[str]) -> int:
    """Answer a shell: ``-sc install=bash`` prints what it evaluates once, ``-sc query=bash`` the words that may follow what is typed."""
    from wansweep.completion import answer

    parser = argparse.ArgumentParser(prog="wansweep -sc", description=completion.__doc__)
    parser.add_argument("request", help="install=bash, install=fish, uninstall=bash ...")
    print(answer(parser.parse_args(arguments).request, verbs=list(VERBS)), end="")
    return OK


def _for_terminal(render: Callable[..., str], *shown: object) -> str:
    """Rendered in colour and to the terminal's width, or plain and wide for a file or pipe."""
    if not sys.stdout.isatty():
        return render(*shown)
    return render(*shown, width=shutil.get_terminal_size().columns, colour=True)


def _request(arguments: Sequence[str]) -> Request:
    """What the overrides ask for; ``--help`` and ``--version`` answer and exit."""
    from wansweep.config import read_request

    parser = argparse.ArgumentParser(prog="wansweep", usage=USAGE, add_help=True)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--config-dir", help="a folder of your own configs, searched beside the shipped ones")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides")
    options = parser.parse_intermixed_args(arguments)
    config_dir = None if options.config_dir is None else Path(options.config_dir).expanduser()
    if config_dir is not None and not (options.config_dir and config_dir.is_dir()):
        raise ConfigError([f"--config-dir '{options.config_dir}': no such folder"])
    return read_request(options.overrides, config_dir=config_dir)


VERBS = {
    "run": run,
    "plan": plan,
    "report": report,
    "import": import_,
    "merge": merge,
    "export": export,
    "compare": compare,
    "recommend": recommend,
    "watch": watch,
    "doctor": doctor,
    "completion": completion,
}
