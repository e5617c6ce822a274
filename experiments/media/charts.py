"""Charts as data that both pictures and reports draw, and how pictures draw them."""

import io
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from maml_rl.checkpoint import write_atomically

FIGURES = (".png", ".pdf", ".svg")
"""Suffixes of the files that a figure can be written to."""

COLOURS = {
    **{"before": "#7b8794", "after": "#1668b8", "later": "#7fb2e5", "paper-result": "#c0392b"},
    **{"random": "#8a7a00", "goal": "#2a9d4a", "method-1": "#8e44ad", "method-2": "#c26a00", "method-3": "#0f8f86"},
    **{f"level-{i}": c for i, c in enumerate(("#440154", "#3b528b", "#21918c", "#5ec962", "#e3cf1e"), start=1)},
    **{f"task-{i}": c for i, c in enumerate(("#1668b8", "#c26a00", "#2a9d4a", "#8e44ad"), start=1)},
}
"""Colours on a light page, by what they stand for."""

OF_STEPS = ("before", "after", "later")
"""Colours for before adaptation, after one gradient step, and after the last."""

_POINTS = 200  # of a line
_MARKS = {"point": "o", "hollow": "o", "goal": "*", "": ""}
_FEW = 4  # entries of a legend that fit on a chart
_LETTERS = 36  # that fit next to each other under an axis


class Series(NamedTuple):
    """One line or cloud of points."""

    label: str
    colour: str  # a key of COLOURS
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None  # of a band around it
    high: Sequence[float] | None = None
    line: bool = True
    dashed: bool = False
    faint: bool = False
    marks: str = ""  # "point", "hollow" or the larger "goal"; none if empty
    titles: Sequence[str] | None = None  # shown where the pointer rests on a mark
    step: int | None = None  # gradient step that it belongs to, where a slider chooses one


class Axis(NamedTuple):
    """The label of an axis, and where its ticks are if not at round numbers."""

    label: str
    ticks: Sequence[float] | None = None
    names: Sequence[str] | None = None  # of the ticks
    is_log: bool = False


class Chart(NamedTuple):
    """A chart; the first series is at the bottom."""

    title: str
    subtitle: str  # what else to know; nothing if empty
    x: Axis
    y: Axis
    series: Sequence[Series]
    is_square: bool = False  # whether a unit is as long in x as in y


def with_band(label: str, colour: str, values: NDArray[np.float64]) -> Series:
    """A curve of mean, lower and upper bound after 0, 1, ... gradient steps, `[S + 1, 3]`, where they are finite."""
    there = np.isfinite(values).all(1)
    mean, low, high = values[there].T.tolist()
    return Series(label, colour, np.flatnonzero(there).tolist(), mean, low, high, marks="point")


def thinned(values: Sequence[float]) -> list[float]:
    """Means of consecutive values, as many as a line needs."""
    parts = np.array_split(np.asarray(values, np.float64), min(_POINTS, len(values))) if len(values) else []
    return [float(part.mean()) for part in parts]


def draw_charts(charts: Sequence[Chart], path: Path, title: str = "") -> None:
    """Draws charts into a file whose suffix is one of `FIGURES`, up to three in a row."""
    columns = 2 if len(charts) in (2, 4) else min(3, len(charts))
    rows = -(-len(charts) // columns)
    figure = Figure(figsize=(min(6.5 * columns, 13), 4.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, chart in zip_longest(figure.subplots(rows, columns, squeeze=False).ravel(), charts):
        if chart:
            draw_chart(axes, chart)
        else:
            axes.set_axis_off()
    figure.suptitle(title)
    save_figure(figure, path)


def draw_chart(axes: Axes, chart: Chart) -> None:
    """Draws a chart."""
    axes.set_title(chart.title + ("\n" if chart.subtitle else ""))
    axes.set_title(chart.subtitle, loc="left", fontsize="small")
    for one in chart.series:
        _draw_series(axes, one)
    axes.set(xlabel=chart.x.label, ylabel=chart.y.label, yscale="log" if chart.y.is_log else "linear")
    if chart.x.ticks is None:
        axes.locator_params(axis="x", nbins=5)
    else:
        rotation = 0 if sum(map(len, chart.x.names or ())) <= _LETTERS else 20
        axes.set_xticks(chart.x.ticks, chart.x.names, rotation=rotation)
    if chart.is_square:
        axes.set_aspect("equal", "datalim")
    labelled = len(axes.get_legend_handles_labels()[1])
    if labelled > _FEW:
        axes.legend(frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    elif labelled:
        axes.legend(frameon=False, fontsize="small")


def _draw_series(axes: Axes, one: Series) -> None:
    colour, width = COLOURS[one.colour], 0.8 if one.faint else 1.4
    style = ("--" if one.dashed else "-") if one.line else "none"
    (drawn,) = axes.plot(one.x, one.y, linestyle=style, color=colour, linewidth=width, alpha=0.4 if one.faint else 1.0)
    drawn.set(label=one.label or "_", marker=_MARKS[one.marks], markersize=12 if one.marks == "goal" else 5)
    drawn.set(fillstyle="none" if one.marks == "hollow" else "full")
    if one.marks == "goal":
        drawn.set_markeredgecolor("black")
    if one.low is not None and one.high is not None:
        axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.18, linewidth=0)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure into a file whose suffix is one of `FIGURES`; equal figures give equal files."""
    content = io.BytesIO()
    # Neither the date nor a random salt.
    metadata = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
    with rc_context({"svg.hashsalt": "maml-rl", "svg.fonttype": "none"}):
        figure.savefig(content, format=path.suffix[1:], dpi=120, metadata=metadata)
    write_atomically(path, content.getvalue())
