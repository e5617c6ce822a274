"""Small charts as SVG, which take their colours from the page: so they are right on a light and on a dark one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from maml_rl.experiments.report.page import text

_WIDTH = 460
_LETTERS = 52  # that have room under a chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 44
_BESIDE, _LETTER = 32, 7.2  # pixels left of the plot: for the axis and its gap, and for each letter of its ticks


class Series(NamedTuple):
    """One line or cloud of points."""

    label: str
    colour: str  # name of a colour of the page
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None  # of a band around it
    high: Sequence[float] | None = None
    line: bool = True
    dashed: bool = False
    marks: str = ""  # "point", "hollow" or the larger "goal"; none if empty
    titles: Sequence[str] | None = None  # shown where the pointer rests on a mark
    step: int | None = None  # gradient step that it belongs to, where a slider chooses one


class Axes(NamedTuple):
    """What an axis says, and where its ticks are if not at round numbers."""

    label: str
    ticks: Sequence[float] | None = None
    names: Sequence[str] | None = None  # of the ticks


def chart(title: str, subtitle: str, x_axis: Axes, y_axis: Axes, series: Sequence[Series], square: bool = False) -> str:
    """A figure in HTML.

    Args:
        title: What it shows.
        subtitle: What else to know; nothing if empty.
        x_axis, y_axis: Axes.
        series: What is drawn, the first at the bottom.
        square: Whether a unit is as long in x as in y.
    """
    height = 400 if square else 300
    x_scale, y_scale = _scales(series, x_axis, y_axis, height, square)
    drawn = "".join(_drawn(one, x_scale, y_scale) for one in series)
    legend = "".join(
        f'<li class="{_legend_class(one)}" style="--colour: var(--{one.colour})">{text(one.label)}</li>'
        for one in series
        if one.label
    )
    small = f"<small>{text(subtitle)}</small>" if subtitle else ""
    described = text(f"{title}: {', '.join(one.label for one in series if one.label)}")
    return f"""<figure>
<figcaption>{text(title)}{small}</figcaption>
<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{described}">
{_axes(x_scale, y_scale, x_axis, y_axis)}{drawn}
</svg>
<ul class="legend">{legend}</ul>
</figure>
"""


class _Scale(NamedTuple):
    """From a quantity to pixels."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _scales(series: Sequence[Series], x_axis: Axes, y_axis: Axes, height: int, square: bool) -> tuple[_Scale, _Scale]:
    x = [value for one in series for value in one.x]
    y = [value for one in series for values in (one.y, one.low or (), one.high or ()) for value in values]
    (x_low, x_high), (y_low, y_high) = _span(x), _span(y)
    bottom, left = height - _BOTTOM, _LEFT
    if not square:  # whose limits, and so whose ticks, depend on the width
        names = y_axis.names or list(map(_short, y_axis.ticks or _ticks(y_low, y_high)))
        left = max(_LEFT, round(_BESIDE + _LETTER * max(map(len, names), default=0)))
    else:
        wide, tall = _WIDTH - _LEFT - _RIGHT, bottom - _TOP
        unit = max((x_high - x_low) / wide, (y_high - y_low) / tall)
        x_low, x_high = (x_low + x_high - unit * wide) / 2, (x_low + x_high + unit * wide) / 2
        y_low, y_high = (y_low + y_high - unit * tall) / 2, (y_low + y_high + unit * tall) / 2
    return (
        _Scale(x_low, x_high, left, _WIDTH - _RIGHT, x_axis.ticks or _ticks(x_low, x_high)),
        _Scale(y_low, y_high, bottom, _TOP, y_axis.ticks or _ticks(y_low, y_high)),
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def _axes(x_scale: _Scale, y_scale: _Scale, x_axis: Axes, y_axis: Axes) -> str:
    parts, bottom, left = [], y_scale.start, x_scale.start
    names = _fitted(x_axis.names) if x_axis.names else map(_short, x_scale.ticks)
    for tick, name in zip(x_scale.ticks, names, strict=True):
        x = f"{x_scale(tick):.1f}"
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{text(name)}</text>')
    for tick, name in zip(y_scale.ticks, y_axis.names or map(_short, y_scale.ticks), strict=True):
        y = f"{y_scale(tick):.1f}"
        parts.append(f'<line class="axis" x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 8}" y="{y}" dy="4" text-anchor="end">{text(name)}</text>')
    middle = (left + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{bottom + _BOTTOM - 8}" text-anchor="middle">{text(x_axis.label)}</text>')
    place = f"14,{(_TOP + bottom) / 2}"
    parts.append(f'<text transform="translate({place}) rotate(-90)" text-anchor="middle">{text(y_axis.label)}</text>')
    return "".join(parts)


def _fitted(names: Sequence[str]) -> list[str]:
    """Names of the ticks of a horizontal axis, cut where they would run into each other."""
    room = max(3, _LETTERS // len(names))
    return [name if len(name) <= room else f"{name[: room - 1]}…" for name in names]


def _short(tick: float) -> str:
    return f"{tick:.6g}".replace("-", "−")  # noqa: RUF001, a minus as wide as a plus


def _drawn(one: Series, x_scale: _Scale, y_scale: _Scale) -> str:
    points = [(x_scale(x), y_scale(y)) for x, y in zip(one.x, one.y, strict=True)]
    parts = []
    if one.low is not None and one.high is not None:
        outline = [*zip(one.x, one.high, strict=True), *reversed(list(zip(one.x, one.low, strict=True)))]
        parts.append(f'<polygon class="band" points="{_joined([(x_scale(x), y_scale(y)) for x, y in outline])}"/>')
    if one.line:
        parts.append(f'<polyline class="line{" dashed" if one.dashed else ""}" points="{_joined(points)}"/>')
    if one.marks:
        titles = one.titles or [f"{one.label}: {y:.4g}" for y in one.y]
        for (x, y), title in zip(points, titles, strict=True):
            radius = 7 if one.marks == "goal" else 4
            mark = f'<circle class="{one.marks}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
            parts.append(f"{mark}<title>{text(title)}</title></circle>")
    step = "" if one.step is None else f' data-step="{one.step}"'
    return f'<g{step} style="--colour: var(--{one.colour})">{"".join(parts)}</g>'


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _legend_class(one: Series) -> str:
    if one.line:
        return "dashed" if one.dashed else "solid"
    return "points" if one.marks != "hollow" else "hollow"


def thinned(values: Sequence[float], most: int = 200) -> list[float]:
    """Means of consecutive values, at most `most` of them."""
    parts = np.array_split(np.asarray(values, np.float64), min(most, len(values))) if len(values) else []
    return [float(part.mean()) for part in parts]
