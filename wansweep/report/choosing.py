"""The answer that a report begins with: of each video the cases worth running, what failed, and what to be careful with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from wansweep.levers import Weights
from wansweep.metrics import METRIC
from wansweep.report.cells import cell, known, table
from wansweep.tables.choices import Choice, Choices, choices, not_ok
from wansweep.tables.recommendation import OBJECTIVE_METRICS, Objective
from wansweep.tables.results import Results
from wansweep.tables.stability import MIN_TRIALS, Verdict
from wansweep.tables.tradeoffs import HOST, LEAST_SAVED_BYTES
from wansweep.units import GIB, NOT_MEASURED

MEMORY = {
    "peak_device_bytes": "GPU memory in use",
    "peak_reserved_bytes": "GPU memory reserved",
    "peak_allocated_bytes": "GPU memory allocated",
    "peak_host_bytes": "host memory",
}
WORDS = {
    Objective.TIME: "Fastest",
    Objective.VRAM: "Least VRAM",
    Objective.GPU_SECONDS: "Fewest GPU-seconds",
    Objective.ENERGY: "Least energy",
}
READING = (
    "Cases of one video that no other beats in time, memory, GPUs and drift at once; all others cost more of something and bring nothing. "
    "`wansweep recommend RUN_DIR --max-vram 24GB` holds them against your limits."
)
# Of a sweep over hundreds of videos, or of cases that hardly differ, the page's first screen shows the beginning.
MOST_VIDEOS, MOST_CHOICES, MOST_NAMED = 12, 12, 6
OPEN_VIDEOS = 2


def _sorted_out(results: Results) -> tuple[list[Choices], list[Choices]]:
    """The videos with something to choose between, and those that were made in one way."""
    made = choices(results)
    return [one for one in made if one.measured > 1], [one for one in made if one.measured == 1]


def section(results: Results) -> str:
    """What report.md says; empty for a run without a video that was made in two ways."""
    several, single = _sorted_out(results)
    if not several:
        return ""
    parts = ["# Choosing", READING]
    for one in several[:MOST_VIDEOS]:
        rows = [_cells(choice, one) for choice in one.choices[:MOST_CHOICES]]
        parts += [f"**{cell(one.title)}**: {cell(_count(one))}", table(_headings(one), rows, numeric_from=1)]
    left = len(single) + max(0, len(several) - MOST_VIDEOS)
    return "\n\n".join([*parts, *([f"{left} more video{'s are' if left > 1 else ' is'} in the table above only."] if left else [])])


def lines(results: Results) -> list[str]:
    """What the terminal says: a line a video that was made in two ways."""
    several, _ = _sorted_out(results)
    return [f"{one.title}: {', '.join(_best(one))}" for one in several[:MOST_VIDEOS]]


def cautions(results: Results) -> Iterator[str]:
    """What a reader has to know before believing any figure: miniatures, single trials, trials that lie far apart."""
    tiny = sum(case.weights == Weights.TINY for case in results.sweep.cases)
    if tiny:
        told = "Every case" if tiny == len(results.sweep.cases) else f"{tiny} of {len(results.sweep.cases)} cases"
        yield f"{told} ran as a miniature (weights=tiny): its seconds and bytes say nothing of the real model's."
    measured = results.summary.filter(results.summary["n"] > 0)
    few = measured.filter(measured["n"] < MIN_TRIALS)
    if few.height and not results.environment.imported:
        told = "Every figure is" if few.height == measured.height else f"The figures of {few.height} case(s) are"
        trials = "one trial" if few["n"].max() == 1 else "one or two trials"
        yield f"{told} of {trials}, so no spread is known; procedure.repeats={MIN_TRIALS} gives one."
    far = results.summary.filter(results.summary["stable"] == str(Verdict.NOISY)).iter_rows(named=True)
    noisy = [f"{row['label']} (±{METRIC['half_width_pct'].show(row['half_width_pct'])} %)" for row in far]
    if noisy:
        more = f" and {len(noisy) - MOST_NAMED} more" if len(noisy) > MOST_NAMED else ""
        yield f"Noisy, repeat before believing a small difference: {', '.join(noisy[:MOST_NAMED])}{more}."


def page(results: Results) -> str:
    """What report.html begins with."""
    several, single = _sorted_out(results)
    told = "".join(_article(one, whole=place < OPEN_VIDEOS) for place, one in enumerate(several[:MOST_VIDEOS])) + _one_way(single)
    told = told or '<p class="empty">No case of this run ended ok.</p>'
    left = max(0, len(several) - MOST_VIDEOS) + max(0, len(single) - MOST_VIDEOS)
    rest = (
        f'<p class="reading">{left} more video{"s are" if left > 1 else " is"} in the <a href="#all">table below</a> only.</p>' if left else ""
    )
    beside = _beside(results)
    aside = f"<aside>{beside}</aside>" if beside else ""
    return f'<section id="answer" class="first{"" if beside else " alone"}"><div>{told}{rest}</div>{aside}</section>'


def _one_way(single: Sequence[Choices]) -> str:
    """A table of the videos with nothing to choose between, a row each."""
    if not single:
        return ""
    first = single[0]
    headings = ("Video", "Case", *_headings(first)[1:-1])
    names = "".join(f'<th scope="col"{_kind(place - 1)}>{escape(name)}</th>' for place, name in enumerate(headings))
    rows = []
    for one in single[:MOST_VIDEOS]:
        choice = next(iter(one.choices), None)
        if choice is None:
            rows.append(f'<tr><th scope="row">{escape(one.title)}</th><td colspan="{len(headings) - 1}">{escape(_count(one))}</td></tr>')
            continue
        cells = "".join(f"<td{_kind(place)}>{escape(text)}</td>" for place, text in enumerate(_cells(choice, first)[1:-1], start=1))
        rows.append(f'<tr><th scope="row">{escape(one.title)}</th><td>{_link(choice)}{_lossy_note(choice)}</td>{cells}</tr>')
    body = f'<div class="inner"><table><thead><tr>{names}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    return f'<article class="video"><h2>Made in one way</h2><p class="reading">Nothing to choose between.</p>{body}</article>'


def _article(one: Choices, *, whole: bool) -> str:
    """Tiles and table of a video; behind a line to open it where there are many."""
    tiles = "".join(_tile(of, one) for of in WORDS if of in one.best and (of is not Objective.GPU_SECONDS or _several_gpus(one)))
    body = f'<p class="reading">{escape(_count(one))}</p><ul class="answers">{tiles}</ul>'
    if len(one.choices) > 1:
        names = "".join(f'<th scope="col"{_kind(place)}>{escape(name)}</th>' for place, name in enumerate(_headings(one)))
        rows = "".join(_row(choice, one) for choice in one.choices[:MOST_CHOICES])
        body += f'<div class="inner"><table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>'
    if whole:
        return f'<article class="video"><h2>{escape(one.title)}</h2>{body}</article>'
    told = f"<strong>{escape(one.title)}</strong> {escape(', '.join(_best(one)))}"
    return f'<details class="video"><summary>{told}</summary>{body}</details>'


def _row(choice: Choice, one: Choices) -> str:
    _, *figures = _cells(choice, one)
    cells = "".join(f"<td{_kind(place)}>{escape(text)}</td>" for place, text in enumerate(figures, start=1))
    return f'<tr><th scope="row">{_link(choice)}{_lossy_note(choice)}</th>{cells}</tr>'


def _lossy_note(choice: Choice) -> str:
    return f"<small>{escape(_lossy(choice))}</small>" if choice.candidate.lossy else ""


def _kind(place: int) -> str:
    """GPUs, time and memory are numbers, and have no heading on a phone; case, card and price are words."""
    units = {1: "GPU", 2: "s", 3: "GiB"}
    return f' class="number" data-unit="{units[place]}"' if place in units else ""


def _tile(of: Objective, one: Choices) -> str:
    choice = one.best[of]
    row = choice.candidate.row
    beside = [f"{METRIC['total_s'].show(row['total_s'])} s"] if of is not Objective.TIME else []
    beside += [_memory(choice)] if of is not Objective.VRAM and choice.memory_bytes is not None else []
    beside += [f"{row['gpus']} GPUs"] if (row["gpus"] or 1) > 1 else []
    beside += [f"n={row['n']}", *(["lossy"] if choice.candidate.lossy else [])]
    return f"<li><span>{WORDS[of]}</span><strong>{_figure(of, choice)}</strong>{_link(choice)}<small>{escape(', '.join(beside))}</small></li>"


def _link(choice: Choice) -> str:
    row = choice.candidate.row
    return f'<a href="#case-{escape(row["case_id"], quote=True)}">{escape(row["label"])}</a>'


def _beside(results: Results) -> str:
    failed, careful = not_ok(results), list(cautions(results))
    parts = []
    if failed:
        named = "".join(_failure(row) for row in failed[:MOST_NAMED])
        more = f'<p class="reading"><a href="#all">{len(failed) - MOST_NAMED} more</a> in the table</p>' if len(failed) > MOST_NAMED else ""
        parts.append(f'<h2>{len(failed)} did not end ok</h2><ul class="failures">{named}</ul>{more}')
    if careful:
        parts.append(f"<h2>Be careful</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in careful)}</ul>")
    return "".join(parts)


def _failure(row: dict[str, str]) -> str:
    link = f'<a href="#case-{escape(row["case_id"], quote=True)}">{escape(row["label"])}</a>'
    return f'<li><span class="outcome {row["outcome"]}">{row["outcome"]}</span> {link}<small>{escape(row["reason"] or "")}</small></li>'


def _headings(one: Choices) -> Sequence[str]:
    memory = MEMORY[one.memory] if one.memory else "memory"
    cards = ("Smallest card",) if _has_cards(one) else ()
    against = "Against the fastest lossless" if any(choice.candidate.lossy for choice in one.choices) else "Against the fastest"
    return ("Case", "GPUs", "Time (s)", f"{memory[0].upper()}{memory[1:]} (GiB)", *cards, against)


def _cells(choice: Choice, one: Choices) -> list[str]:
    row = choice.candidate.row
    memory = NOT_MEASURED if choice.memory_bytes is None else f"{choice.memory_bytes / GIB:.2f}"
    cards = [choice.card or "none known"] if _has_cards(one) else []
    return [f"{row['label']}{_lossy(choice)}", known(row["gpus"]), METRIC["total_s"].show(row["total_s"]), memory, *cards, _against(choice)]


def _lossy(choice: Choice) -> str:
    """What it pays for with the video, which is not in the table's figures."""
    ssim = METRIC["ssim"].show(choice.candidate.ssim)
    return f" (lossy: {', '.join(choice.candidate.lossy)}; SSIM {ssim})" if choice.candidate.lossy else ""


def _has_cards(one: Choices) -> bool:
    return one.memory not in (None, HOST)


def _against(choice: Choice) -> str:
    """``+10.8 s, -32.1 GiB: 0.34 s/GiB`` of the fastest lossless case on as many GPUs."""
    gpus = choice.candidate.gpus or 1
    if choice.candidate is choice.against:
        return "fastest" if gpus == 1 else f"fastest on {gpus} GPUs"
    seconds, saved = f"{choice.extra_s:+z.2f} s", choice.saved_bytes or 0.0
    if abs(saved) < LEAST_SAVED_BYTES:
        return seconds
    price = f": {choice.extra_s / (saved / GIB):.2f} s/GiB" if saved > 0 and choice.extra_s > 0 else ""
    return f"{seconds}, {-saved / GIB:+.1f} GiB{price}"


def _best(one: Choices) -> Iterator[str]:
    for of, word in WORDS.items():
        if of in one.best and (of is not Objective.GPU_SECONDS or _several_gpus(one)):
            choice = one.best[of]
            on = f" on {choice.candidate.gpus} GPUs" if (choice.candidate.gpus or 1) > 1 else ""
            lossy = " (lossy)" if choice.candidate.lossy else ""
            yield f"{word[0].lower()}{word[1:]} {choice.candidate.case.label} {_figure(of, choice)}{on}{lossy}"


def _figure(of: Objective, choice: Choice) -> str:
    metric = OBJECTIVE_METRICS[of]
    return f"{metric.show(choice.candidate.figures[of])} {metric.unit.symbol}"


def _memory(choice: Choice) -> str:
    return NOT_MEASURED if choice.memory_bytes is None else f"{choice.memory_bytes / GIB:.2f} GiB"


def _several_gpus(one: Choices) -> bool:
    return any((choice.candidate.gpus or 1) > 1 for choice in one.choices)


def _count(one: Choices) -> str:
    lossy = f"; {one.uncounted} lossy without a measured drift do not count" if one.uncounted else ""
    if one.measured == 1:
        return f"one case ended ok{lossy}"
    shown = min(len(one.choices), MOST_CHOICES)
    more = f", {shown} of them here" if shown < len(one.choices) else ""
    return f"{one.measured} cases ended ok, {len(one.choices)} that no other beats{more}{lossy}"
