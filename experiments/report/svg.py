"""Small charts as SVG. They take their colours from the page, so they suit both a light and a dark one."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from maml_rl.experiments.media.charts import Axis, Chart, Series
from maml_rl.experiments.media.labels import minus
from maml_rl.experiments.report.page import text

_WIDTH = 460
_LETTERS = 52  # that fit under a chart
_FEW_POWERS = 3  # of ten on a logarithmic axis, which then has ticks between them
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 44
_AXIS_WIDTH, _LETTER = 32, 7.2  # pixels left of the plot: for the axis and its gap, and for each letter of its ticks


def svg_figure(chart: Chart) -> str:
    """A chart as a figure in HTML."""
    height = 400 if chart.is_square else 300
    shown = _with_logarithms(chart) if chart.y.is_log and chart.series else chart
    x_scale, y_scale = _scales(shown, height)
    drawn = "".join(_drawn(one, x_scale, y_scale) for one in shown.series)
    labelled = [one for one in chart.series if one.label]
    legend = "".join(
        f'<li class="{_legend_class(one)}" style="--colour: var(--{one.colour})">{text(one.label)}</li>'
        for one in labelled
    )
    small = f"<small>{text(chart.subtitle)}</small>" if chart.subtitle else ""
    described = text(f"{chart.title}: {', '.join(one.label for one in labelled)}")
    return f"""<figure>
<figcaption>{text(chart.title)}{small}</figcaption>
<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{described}">
{_axes(x_scale, y_scale, shown.x, shown.y)}{drawn}
</svg>
<ul class="legend">{legend}</ul>
</figure>
"""


def _with_logarithms(chart: Chart) -> Chart:
    """The same chart with logarithms of its values, and ticks at powers of ten, or also at 2 and 5 times those."""
    values = [value for one in chart.series for value in one.y if value > 0] or [1.0]
    low, high = min(values), max(values)

    def log(numbers: Sequence[float] | None) -> list[float] | None:  # a bound of an interval may be below 0
        return None if numbers is None else np.log10(np.maximum(numbers, low / 2)).tolist()

    series = [
        one._replace(y=log(one.y) or [], low=log(one.low), high=log(one.high), titles=one.titles or _titles(one))
        for one in chart.series
    ]
    powers = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    between = [power * factor for power in powers for factor in (1, 2, 5)] if len(powers) <= _FEW_POWERS else powers
    within = [tick for tick in between if low <= tick <= high]
    ticks = within if len(within) > 1 else _ticks(low, high)
    return chart._replace(series=series, y=Axis(chart.y.label, log(ticks), [f"{tick:g}" for tick in ticks]))


class _Scale(NamedTuple):
    """From a quantity to pixels."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _scales(chart: Chart, height: int) -> tuple[_Scale, _Scale]:
    series, x_axis, y_axis = chart.series, chart.x, chart.y
    x = [value for one in series for value in one.x]
    y = [value for one in series for values in (one.y, one.low or (), one.high or ()) for value in values]
    (x_low, x_high), (y_low, y_high) = _span(x), _span(y)
    bottom, left = height - _BOTTOM, _LEFT
    if not chart.is_square:  # whose limits, and so whose ticks, depend on the width
        names = y_axis.names or list(map(_short, y_axis.ticks or _ticks(y_low, y_high)))
        left = max(_LEFT, round(_AXIS_WIDTH + _LETTER * max(map(len, names), default=0)))
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


def _axes(x_scale: _Scale, y_scale: _Scale, x_axis: Axis, y_axis: Axis) -> str:
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
    """Names of the ticks of a horizontal axis, shortened if they would run into each other."""
    room = max(3, _LETTERS // len(names))
    return [name if len(name) <= room else f"{name[: room - 1]}…" for name in names]


def _short(tick: float) -> str:
    return minus(f"{tick:.6g}")


def _drawn(one: Series, x_scale: _Scale, y_scale: _Scale) -> str:
    points = [(x_scale(x), y_scale(y)) for x, y in zip(one.x, one.y, strict=True)]
    parts = []
    if one.low is not None and one.high is not None:
        outline = [*zip(one.x, one.high, strict=True), *reversed(list(zip(one.x, one.low, strict=True)))]
        parts.append(f'<polygon class="band" points="{_joined([(x_scale(x), y_scale(y)) for x, y in outline])}"/>')
    if one.line:
        kind = f"line{' dashed' if one.dashed else ''}{' faint' if one.faint else ''}"
        parts.append(f'<polyline class="{kind}" points="{_joined(points)}"/>')
    if one.marks:
        for (x, y), title in zip(points, one.titles or _titles(one), strict=True):
            radius = 7 if one.marks == "goal" else 4
            mark = f'<circle class="{one.marks}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
            parts.append(f"{mark}<title>{text(title)}</title></circle>")
    step = "" if one.step is None else f' data-step="{one.step}"'
    return f'<g{step} style="--colour: var(--{one.colour})">{"".join(parts)}</g>'


def _titles(one: Series) -> list[str]:
    return [f"{one.label}: {y:.4g}" for y in one.y]


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _legend_class(one: Series) -> str:
    if one.line:
        return "dashed" if one.dashed else "solid"
    return "points" if one.marks != "hollow" else "hollow"
