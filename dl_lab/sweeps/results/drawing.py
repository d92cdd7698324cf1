"""Draw the curves and points of a report as SVG, without scripts or image files, with words for screen readers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from dl_lab.show import tables

Point = tuple[float, float]
# Colours that people with colour-blindness can tell apart (after Okabe and Ito). Their contrast is at least 3:1 on
# white and on near-black. Lines differ in their dashes too.
COLOURS = ("#0072b2", "#c75000", "#00855f", "#a8518a", "#8a7000", "#5b7fa6", "#b3402e", "#6b6b6b")
DASHES = ("", "7 3", "2 3", "9 3 2 3")
WIDTH = 480  # of a figure, in pixels, as all sizes here
HEIGHT = 240  # of a figure with curves
LEFT = 56  # margins of a figure with curves
RIGHT = 12
TOP = 10
BOTTOM = 34
ROW = 34  # height of a row of points
LONGEST_NAME = 60  # characters of a setting's name in a row of points
LOG_FROM = 30.0  # an axis is logarithmic from this ratio of the largest to the smallest value on
MOST_ABOVE = 20.0  # a diverged curve stretches the axis to at most this multiple of where the others end


@dataclass(frozen=True)
class Curve:
    """The mean of a metric over the epochs, and its least and greatest value over the seeds.

    Attributes:
        name: What the curve is of.
        points: The mean at each epoch: (epoch, value).
        low: The least value at each epoch.
        high: The greatest value at each epoch.
    """

    name: str
    points: Sequence[Point]
    low: Sequence[Point]
    high: Sequence[Point]


@dataclass(frozen=True)
class Dots:
    """The final values of one setting.

    Attributes:
        name: The setting.
        values: One value for each seed.
        mean: Their mean; nan where no value is finite.
        low: The lower end of its 95 % interval; None for a single value.
        high: The upper end.
    """

    name: str
    values: Sequence[float]
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Axis:
    """Places values between two ends. A value beyond an end stands at the end.

    Attributes:
        low: The value at the first end.
        high: The value at the other end.
        start: The pixel of `low`.
        end: The pixel of `high`.
        is_log: The scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        value = min(max(value, self.low), self.high)
        share = (self._scale(value) - self._scale(self.low)) / (self._scale(self.high) - self._scale(self.low))
        return self.start + share * (self.end - self.start)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    def ticks(self) -> list[float]:
        """Return the values that the axis names: round numbers, or powers of ten."""
        if not self.is_log:
            return round_numbers(self.low, self.high)
        first = math.ceil(math.log10(self.low) - 1e-9)
        last = math.floor(math.log10(self.high) + 1e-9)
        powers = range(first, last + 1)
        step = max(1, math.ceil(len(powers) / 5))
        found = [10.0**power for power in powers[::step]]
        return found if len(found) > 1 else [self.low, self.high]


def legend(names: Sequence[str]) -> str:
    """Write the legend: the stroke of each curve and its name, once for all figures."""
    items = []
    for i, name in enumerate(names):
        line = f"<line x1='1' x2='33' y1='5' y2='5' {_stroke(i)}/>"
        items.append(f"<span><svg width='34' height='10' aria-hidden='true'>{line}</svg> {breakable(name)}</span>")
    return f"<div class='legend'>{''.join(items)}</div>"


def breakable(text: str) -> str:
    """Escape a text, and let a long name break after = _ / and after a dot or comma before a letter."""
    return re.sub(r"([=_/]|[.,](?=[A-Za-z]))(?=\S)", r"\1<wbr/>", escape(text, quote=False))


# -- curves -------------------------------------------------------------------------------------------------------


def curves_figure(metric: str, curves: Sequence[Curve]) -> str:
    """Draw one metric over the epochs. The k-th curve has the k-th stroke of the legend.

    Args:
        metric: Its full name.
        curves: One curve for each setting.
    """
    ends = "; ".join(f"{curve.name}: {tables.number(curve.points[-1][1])}" for curve in curves if curve.points)
    words = f"{metric} over the epochs. After the last epoch: {ends}."
    drawn, note = _draw_curves(curves)
    return (
        f"<figure><figcaption>{breakable(metric)}{note}</figcaption><svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' "
        f"aria-label='{escape(words)}'>{''.join(drawn)}</svg></figure>"
    )


def _draw_curves(curves: Sequence[Curve]) -> tuple[list[str], str]:
    """Return the parts of the drawing, and the note behind its title."""
    finite = [_keep_finite(curve.points) for curve in curves]
    xs = [x for points in finite for x, _ in points] or [0.0]
    first = min(xs)
    last = max(xs)
    across = Axis(first, last if last > first else first + 1, LEFT, WIDTH - RIGHT, is_log=False)
    up, is_cut = _choose_value_axis(curves, finite)
    drawn = [*_draw_value_ticks(up), *_draw_epochs(across, last)]

    def place(points: Sequence[Point]) -> str:
        return " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in _keep_finite(points))

    for i, (curve, points) in enumerate(zip(curves, finite, strict=True)):
        drawn += _draw_curve(i, curve, points, place)
    notes = []
    if up.is_log:
        notes.append("logarithmic axis")
    if is_cut:
        notes.append("values above the axis stand at its end")
    return drawn, f" <small>({', '.join(notes)})</small>" if notes else ""


def _keep_finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(y)]


def _draw_value_ticks(axis: Axis) -> list[str]:
    drawn = []
    for value in axis.ticks():
        y = axis.place(value)
        drawn.append(f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        drawn.append(f"<text x='{LEFT - 6}' y='{y:.1f}' text-anchor='end' dy='.35em'>{_write_tick(value)}</text>")
    return drawn


def _draw_epochs(axis: Axis, last: float) -> list[str]:
    """Draw the numbers and the title of the axis of epochs."""
    numbers = sorted({round(value) for value in round_numbers(axis.low, axis.high)})
    shown = [epoch for epoch in numbers if axis.low <= epoch <= last] or [round(axis.low)]
    drawn = []
    for epoch in shown:
        x = axis.place(epoch)
        drawn.append(f"<text x='{x:.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{epoch:g}</text>")
    drawn.append(f"<text x='{(WIDTH + LEFT) / 2:.0f}' y='{HEIGHT - 3}' text-anchor='middle'>epoch</text>")
    return drawn


def _draw_curve(i: int, curve: Curve, points: Sequence[Point], place: Callable[[Sequence[Point]], str]) -> list[str]:
    """Draw the mean of a curve as a line, and the range over the seeds as a band."""
    colour = COLOURS[i % len(COLOURS)]
    band = place([*curve.high, *reversed(curve.low)])
    drawn = [f"<polygon points='{band}' fill='{colour}' opacity='.15'/>"]
    if len(points) == 1:  # a line of one point cannot be seen
        x, y = place(points).split(",")
        drawn.append(f"<circle cx='{x}' cy='{y}' r='4' fill='{colour}'/>")
    drawn.append(f"<polyline points='{place(points)}' fill='none' {_stroke(i)}/>")
    return drawn


def _choose_value_axis(curves: Sequence[Curve], finite: Sequence[Sequence[Point]]) -> tuple[Axis, bool]:
    """Return the axis of the values, and whether it cuts off a diverged curve."""
    ys = [y for curve in curves for _, y in (*curve.low, *curve.high) if math.isfinite(y)] or [0.0, 1.0]
    low = min(ys)
    high = max(ys)
    usual = abs(high)
    firsts = sorted(points[0][1] for points in finite if points)
    lasts = sorted(points[-1][1] for points in finite if points)
    if lasts:
        usual = max(abs(lasts[len(lasts) // 2]), abs(firsts[len(firsts) // 2]))
    is_cut = usual > 0 and high > 1000 * MOST_ABOVE * usual
    if is_cut:
        high = MOST_ABOVE * usual
    is_log = low > 0 and high / low >= LOG_FROM
    if high <= low:
        margin = abs(low) * 0.05 or 0.5
        high = low + margin
        low -= margin
    return Axis(low, high, HEIGHT - BOTTOM, TOP, is_log), is_cut


# -- points -------------------------------------------------------------------------------------------------------


def dots_figure(metric: str, rows: Sequence[Dots]) -> str:
    """Draw final values: a small ring for each seed, the mean as a dot, its interval as a line.

    Args:
        metric: Its full name.
        rows: One row for each setting.
    """
    height = ROW * len(rows) + 40
    axis = _choose_dots_axis(rows)
    drawn = []
    for value in axis.ticks():
        x = axis.place(value)
        drawn.append(f"<line class='grid' x1='{x:.1f}' x2='{x:.1f}' y1='4' y2='{height - 34}'/>")
        drawn.append(f"<text x='{x:.1f}' y='{height - 20}' text-anchor='{_anchor(x)}'>{_write_tick(value)}</text>")
    for i, row in enumerate(rows):
        drawn += _draw_dots(row, i, axis)
    means = "; ".join(f"{row.name}: {tables.number(row.mean)}" for row in rows)
    return (
        f"<figure><figcaption>{breakable(metric)}: final values</figcaption>"
        f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape(f'{metric}, final: {means}.')}'>"
        f"{''.join(drawn)}</svg></figure>"
    )


def _choose_dots_axis(rows: Sequence[Dots]) -> Axis:
    numbers = []
    for row in rows:
        numbers += [value for value in (*row.values, row.low, row.high) if value is not None and math.isfinite(value)]
    low = min(numbers, default=0.0)
    high = max(numbers, default=1.0)
    if low > 0 and high / low >= LOG_FROM:
        return Axis(low, high, 10, WIDTH - 10, is_log=True)
    margin = (high - low) * 0.04 or abs(low) * 0.01 or 0.5
    return Axis(low - margin, high + margin, 10, WIDTH - 10, is_log=False)


def _anchor(x: float) -> str:
    """Keep the text of a tick inside the figure."""
    if x < 30:
        return "start"
    return "end" if x > WIDTH - 30 else "middle"


def _draw_dots(row: Dots, i: int, axis: Axis) -> list[str]:
    y = ROW * i + 24
    colour = COLOURS[i % len(COLOURS)]
    name = row.name if len(row.name) <= LONGEST_NAME else row.name[: LONGEST_NAME - 1] + "…"
    drawn = [f"<text class='name' x='10' y='{y - 9}'>{escape(name)}</text>"]
    if row.low is not None and row.high is not None and math.isfinite(row.low) and math.isfinite(row.high):
        ends = f"x1='{axis.place(row.low):.1f}' x2='{axis.place(row.high):.1f}'"
        drawn.append(f"<line {ends} y1='{y}' y2='{y}' stroke='{colour}' stroke-width='2'/>")
    for value in row.values:
        if math.isfinite(value):
            drawn.append(f"<circle cx='{axis.place(value):.1f}' cy='{y}' r='3' fill='none' stroke='{colour}'/>")
    if math.isfinite(row.mean):
        drawn.append(f"<circle cx='{axis.place(row.mean):.1f}' cy='{y}' r='4.5' fill='{colour}'/>")
    else:
        drawn.append(f"<text x='{WIDTH - 10}' y='{y + 4}' text-anchor='end'>no finite value</text>")
    return drawn


# -- what both share ----------------------------------------------------------------------------------------------


def _write_tick(value: float) -> str:
    is_plain = value == 0 or 1e-4 <= abs(value) < 1e6
    return f"{value:.6g}" if is_plain else f"{value:.0e}"


def _stroke(i: int) -> str:
    """Return the attributes of the i-th line: its colour and dashes."""
    dashes = DASHES[i % len(DASHES)]
    dash = f" stroke-dasharray='{dashes}'" if dashes else ""
    return f"stroke='{COLOURS[i % len(COLOURS)]}' stroke-width='2'{dash}"


def round_numbers(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers between two values.

    Args:
        low: The first value.
        high: The second value, above the first.
        about: The most steps between them.
    """
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
