"""Text in the seed format to a SeedReport. Every line has one form; what departs from it is one error with its line number."""

from __future__ import annotations

import re
from collections.abc import Iterable

from wansweep.errors import SeedError
from wansweep.record import StageKind
from wansweep.seed import render
from wansweep.seed.arithmetic import BOTTLENECKS, HEALTHY
from wansweep.seed.document import Overall, Section, SeedReport, SeedStage, SummaryRow

_TWO, _ONE, _WHOLE = r"(\d{1,12}\.\d\d)", r"(\d{1,12}\.\d)", r"(\d{1,15})"
_NAME = r"([^|\s](?:[^|]*[^|\s])?)"
_SUMMARY = re.compile(rf"\| {_NAME} *\| (\d{{1,6}})\*(\d{{1,6}}) *\| (True|False) *\| *{_TWO} \| *{_TWO} \| *{_TWO} \| *{_ONE} \| *{_WHOLE} \|")
_STAGE = re.compile(rf"\| (\w+) \| {_TWO} \| {_TWO} \| {_ONE} \| {_TWO} \| {_ONE} \| {_WHOLE} \|")
_CASE = re.compile(rf"## Case: {_NAME}")
_TOTALS = (rf"- \*\*Total Duration\*\*: {_TWO} s", rf"- \*\*Peak GPU Memory\*\*: {_TWO} GB", rf"- \*\*Total Compute Load\*\*: {_WHOLE}")
_STATISTICS = (
    rf"- \*\*Avg Time per Step\*\*: {_TWO} s",
    rf"- \*\*Avg SM Activity\*\*: {_ONE} %",
    rf"- \*\*Avg CPU Utilization\*\*: {_ONE} %",
    rf"- \*\*Total Inference Load\*\*: {_WHOLE}",
)
PREPROCESSES = ("TI2V_Preprocess", "T2V_Preprocess", "I2V_Preprocess")
_STEP = re.compile(r"Step_(0|[1-9]\d*)_(Loading|Inference)")
_ONCE = {
    *PREPROCESSES,
    *(str(kind) for kind in StageKind if kind not in (StageKind.PREPROCESS, StageKind.STEP_LOADING, StageKind.STEP_INFERENCE)),
}


def parse(text: str, *, path: str) -> SeedReport:
    """What the report says.

    Args:
        text: Of the whole file.
        path: What error messages call the file.

    Raises:
        SeedError: A line is not what the format has in its place; the message names it, the rule and the way out.
    """
    lines = _Lines(text, path=path)
    _plain(lines, text)
    summary = _summary(lines)
    sections = []
    while not lines.at_end():
        sections.append(_section(lines))
    for what, items in (("summary row", summary), ("section", sections)):
        _unique(lines, what, items)
    report = SeedReport(summary=tuple(summary), sections=tuple(sections))
    _held_to(lines, render.render(report))
    return report


def _plain(lines: _Lines, text: str) -> None:
    """What an editor or a checkout does to the file's bytes and nobody sees on the screen."""
    if text.startswith("\ufeff"):
        raise lines.error("no byte order mark", line=1, way_out="take it out (sed -i '1s/^\\xEF\\xBB\\xBF//' FILE)")
    ends = next((place for place, line in enumerate(lines.lines, start=1) if line.endswith("\r")), None)
    if ends is not None:
        raise lines.error("a line that ends in LF alone", line=ends, way_out="take the carriage returns out (sed -i 's/\\r$//' FILE)")


class _Lines:
    """The lines of a file, read one after the other."""

    def __init__(self, text: str, *, path: str) -> None:
        self.path = path
        self.lines = text.split("\n")
        self.next = 0

    def at_end(self) -> bool:
        """Whether nothing but the last line break is left."""
        return self.next >= len(self.lines) or (self.next == len(self.lines) - 1 and not self.lines[-1])

    def peek(self) -> str | None:
        """The next line; null behind the last."""
        return self.lines[self.next] if self.next < len(self.lines) else None

    def take(self, *expected: str) -> None:
        """Step over lines that stand there word for word."""
        for line in expected:
            if self.peek() != line:
                raise self.error("a blank line" if not line else repr(line))
            self.next += 1

    def match(self, pattern: str | re.Pattern[str], rule: str) -> re.Match[str]:
        """The next line, of a form."""
        line = self.peek()
        found = None if line is None else re.fullmatch(pattern, line)
        if found is None:
            raise self.error(rule)
        self.next += 1
        return found

    def error(self, rule: str, *, line: int | None = None, way_out: str | None = None) -> SeedError:
        """The complaint about a line, by default the next."""
        at = self.next if line is None else line - 1
        here = "the file ends" if at >= len(self.lines) - (not self.lines[-1]) else f"found {_short(self.lines[at])}"
        way_out = way_out or "mend the line, or import the report as its tool wrote it"
        return SeedError(f"{self.path}, line {at + 1}: the seed format has {rule} here, {here}; {way_out}; nothing was written")


def _short(line: str) -> str:
    return repr(line if len(line) <= 100 else f"{line[:97]}...")


def _summary(lines: _Lines) -> list[SummaryRow]:
    lines.take(render.TITLE, "", *render.SUMMARY_HEAD)
    rows = []
    while (lines.peek() or "").startswith("|"):
        line = lines.next + 1
        name, width, height, offload, *figures = lines.match(
            _SUMMARY, "a summary row (| name | WIDTH*HEIGHT | True or False | 0.00 | 0.00 | 0.00 | 0.0 | 0 |)"
        ).groups()
        duration_s, step_s, peak_gib, sm_pct, load = map(float, figures)
        overall = Overall(duration_s=duration_s, step_s=step_s, peak_gib=peak_gib, sm_pct=sm_pct, load=load)
        rows.append(SummaryRow(line=line, name=name, width=int(width), height=int(height), offload=offload == "True", overall=overall))
    lines.take("", render.DETAILS, "")
    return rows


def _section(lines: _Lines) -> Section:
    line = lines.next + 1
    name = lines.match(_CASE, "a case's heading ('## Case: NAME')")[1]
    lines.take("")
    duration_s, peak_gib, load = _bullets(lines, _TOTALS)
    lines.take("", render.STAGES, "", *render.STAGE_HEAD)
    stages = _stages(lines)
    lines.take("", render.STATISTICS, "")
    step_s, sm_pct, cpu_pct, inference_load = _bullets(lines, _STATISTICS)
    lines.take("", render.ANALYSIS, "")
    analysis = _analysis(lines)
    lines.take("", render.OVERVIEW)
    overview = _text_bullets(lines)
    lines.take(render.END)
    return Section(
        line=line,
        name=name,
        overall=Overall(duration_s=duration_s, step_s=step_s, peak_gib=peak_gib, sm_pct=sm_pct, load=load),
        stages=tuple(stages),
        cpu_pct=cpu_pct,
        inference_load=inference_load,
        analysis=analysis,
        overview=overview,
        breaks_after=_breaks(lines),
    )


def _bullets(lines: _Lines, patterns: Iterable[str]) -> list[float]:
    values = []
    for pattern in patterns:
        shown = pattern.replace("\\", "").replace(_TWO.replace("\\", ""), "0.00").replace(_ONE.replace("\\", ""), "0.0")
        values.append(float(lines.match(pattern, repr(shown.replace(_WHOLE.replace("\\", ""), "0")))[1]))
    return values


def _stages(lines: _Lines) -> list[SeedStage]:
    """The rows of a stage table: each stage once, the steps from 0 on with Loading before Inference, Total_Execution last."""
    stages: list[SeedStage] = []
    expected = ((step, part) for step in range(10**6) for part in ("Loading", "Inference"))
    seen: set[str] = set()
    while (lines.peek() or "").startswith("|"):
        line = lines.next + 1
        name, *figures = lines.match(_STAGE, "a stage's row (| Stage | 0.00 | 0.00 | 0.0 | 0.00 | 0.0 | 0 |)").groups()
        if step := _STEP.fullmatch(name):
            wanted = "Step_{}_{}".format(*next(expected))
            if step[0] != wanted:
                raise lines.error(f"the row of {wanted}", line=line)
        elif name not in _ONCE or name in seen or (name in PREPROCESSES and seen.intersection(PREPROCESSES)):
            rule = "one of its stages, each once" if name not in seen else f"no second row of {name}"
            raise lines.error(f"{rule} ({', '.join(sorted(_ONCE))}, Step_<i>_Loading, Step_<i>_Inference)", line=line)
        seen.add(name)
        duration_s, gpu_gib, cpu_pct, host_gib, sm_pct, load = map(float, figures)
        stages.append(
            SeedStage(name=name, duration_s=duration_s, gpu_gib=gpu_gib, cpu_pct=cpu_pct, host_gib=host_gib, sm_pct=sm_pct, load=load)
        )
    if not stages or stages[-1].name != StageKind.TOTAL_EXECUTION:
        raise lines.error("the row of Total_Execution, which ends the table,")
    if not seen.intersection(PREPROCESSES):
        raise lines.error(f"a table with one of {', '.join(PREPROCESSES)}", line=lines.next, way_out="add the row: it says which model ran")
    if next(expected)[1] == "Inference":
        raise lines.error("an Inference row for the last step's Loading", line=lines.next)
    return stages


def _analysis(lines: _Lines) -> tuple[str, ...]:
    if lines.peek() == HEALTHY:
        lines.take(HEALTHY)
        return (HEALTHY,)
    lines.match(re.escape(BOTTLENECKS), f"{BOTTLENECKS!r} or {HEALTHY!r}")
    return (BOTTLENECKS, *_text_bullets(lines))


def _text_bullets(lines: _Lines) -> tuple[str, ...]:
    found = [lines.match(r"- \S.*", "a bullet ('- ...')")[0]]
    while (lines.peek() or "").startswith("- "):
        found.append(lines.match(r"- \S.*", "a bullet ('- ...')")[0])
    return tuple(found)


def _breaks(lines: _Lines) -> int:
    """How many line breaks stand behind a section's closing rule; the reader stands on the next section, or at the end."""
    rest = lines.lines[lines.next :]
    if all(not line for line in rest):
        lines.next = len(lines.lines)
        return len(rest)
    lines.take("")
    return 2


def _unique(lines: _Lines, what: str, items: Iterable[SummaryRow | Section]) -> None:
    first: dict[str, int] = {}
    for item in items:
        if item.name in first:
            rule = f"one {what} a case, and {item.name!r} has one at line {first[item.name]},"
            raise lines.error(rule, line=item.line, way_out="give the second another name")
        first[item.name] = item.line


def _held_to(lines: _Lines, again: str) -> None:
    """Held against the text that the format would have: padding and zeros in front that the forms above let pass."""
    for i, (there, wanted) in enumerate(zip(lines.lines, again.split("\n"), strict=False), start=1):
        if there != wanted:
            raise lines.error(repr(wanted), line=i)
    assert "\n".join(lines.lines) == again
