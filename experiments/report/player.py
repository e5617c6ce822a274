"""The player of recorded episodes: before and after adaptation side by side, with rewards and a cursor."""

import base64
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.envs.mujoco.mdp import MujocoMDP
from maml_rl.errors import InputError
from maml_rl.experiments.media.charts import Axis, Chart, Series
from maml_rl.experiments.media.labels import counted, steps_label
from maml_rl.experiments.media.recording import Recording, in_the_plane
from maml_rl.experiments.media.rendering import Drawing, frame_times, mdp_of
from maml_rl.experiments.media.sheets import COLUMNS, to_sheet
from maml_rl.experiments.report.page import Section, asset, text
from maml_rl.experiments.report.svg import svg_figure

_SIZE = (384, 256)  # pixels of a picture
_BUDGET = 3_300_000  # bytes of all pictures; in the page they take a third more
_LADDER = ((75, 1), (60, 1), (45, 1), (45, 2), (30, 3), (20, 5))  # quality, and which of the pictures stay
_SECONDS = 5.0  # that an episode takes to show where simulated time has no seconds
_SHORT = 4.0  # seconds; an episode that takes less is shown at half speed
_SAMPLE = 3  # episodes that show how large all of them will be
_MOST_LINES = 5  # components of an observation that are drawn
_ICONS = (
    '<svg class="icon-play" viewBox="0 0 20 20" aria-hidden="true"><path d="M5 2.5v15l12-7.5z"/></svg>'
    '<svg class="icon-pause" viewBox="0 0 20 20" aria-hidden="true"><path d="M4 2h4v16H4zM12 2h4v16h-4z"/></svg>'
)


class _ContactSheets(NamedTuple):
    """Contact sheets of all episodes."""

    sheets: list[list[str]]  # [S][M]   data URIs
    counts: list[list[int]]  # [S][M]   pictures
    stride: int  # time steps from one picture to the next


def player(recording: Recording, progress: Callable[[int], object] = lambda _: None) -> tuple[Section, str | None]:
    """The player, and why it has no moving pictures, if it has none.

    Args:
        recording: The recording.
        progress: Called with the number of each episode that was drawn.
    """
    mdp = mdp_of(recording)
    seconds, unit = _SECONDS / max(1, recording.rewards.shape[-1]), "step"
    if isinstance(mdp, MujocoMDP):
        seconds, unit = recording.seconds_per_step, "s"
    data, reason = _shared(recording) | {"seconds": seconds, "unit": unit}, None
    if isinstance(mdp, MujocoMDP):
        data["travelled"] = _travelled(recording)
    if in_the_plane(recording):
        data |= _paths(recording)
    else:
        try:
            drawing = Drawing(recording, *_SIZE)
        except InputError as error:
            reason = str(error)
            data |= _lines(recording, mdp)
        else:
            with drawing:
                data |= {"kind": "clips", "size": _SIZE, "columns": COLUMNS, **_clips(drawing, progress)._asdict()}
    body = _body(recording, data, reason)
    return Section("Watch it adapt", body, asset("player.js"), (("rollouts-data", data),)), reason


def paths(recording: Recording) -> list[Section]:
    """Paths in the plane of all recorded tasks, by gradient step; empty if tasks are not goals in the plane."""
    if not in_the_plane(recording):
        return []
    charts = []
    for step in range(recording.gradient_steps + 1):
        series = []
        for m, name in enumerate(recording.task_names):
            x, y = recording.episode(m, step).T.tolist()
            goal, colour = recording.tasks[m], f"task-{m % 4 + 1}"
            series.append(Series("", colour, x, y))
            series.append(Series(name, colour, goal[:1], goal[1:], line=False, marks="goal", titles=[name]))
        label = steps_label(step)
        charts.append(Chart(label[:1].upper() + label[1:], "", Axis("x"), Axis("y"), series, is_square=True))
    explanation = "<p>The path of one episode of each recorded task, with its goal, by gradient step.</p>"
    body = f'{explanation}<div class="grid">{"".join(map(svg_figure, charts))}</div>'
    return [Section("Paths to the goals", body)]


def _shared(recording: Recording) -> dict[str, Any]:
    """What every kind of picture needs."""
    lengths = recording.lengths.tolist()
    return {
        "tasks": recording.task_names,
        "steps": recording.gradient_steps + 1,
        "horizon": int(recording.lengths.max()),
        "lengths": lengths,
        "episodes": recording.episodes,
        "stride": 1,
        "returns": _rounded(recording.returns),
        "mean_returns": _rounded(recording.mean_returns),
        "rewards": [
            [_rounded(rewards[:n]) for rewards, n in zip(stage, of_stage, strict=True)]
            for stage, of_stage in zip(recording.rewards, lengths, strict=True)
        ],
    }


def _rounded(values: NDArray[Any]) -> Any:
    return np.round(values.astype(np.float64), 4).tolist()


def _motion(recording: Recording, components: list[int]) -> list[list[Any]]:
    steps, tasks = recording.lengths.shape
    return [[_rounded(recording.episode(m, s)[:, components]) for m in range(tasks)] for s in range(steps)]


def _travelled(recording: Recording) -> list[list[Any]]:
    """Metres in x since the start of each episode, to the centimetre: the first number of a robot's pose is its x."""
    steps, tasks = recording.lengths.shape
    x = recording.motion[..., 0].astype(np.float64)
    moved = np.round(x - x[:, :, :1], 2)
    return [[moved[s, m, : recording.lengths[s, m] + 1].tolist() for m in range(tasks)] for s in range(steps)]


def _paths(recording: Recording) -> dict[str, Any]:
    """Paths in the plane, with the goals."""
    points = np.concatenate([recording.motion.reshape(-1, 2), np.reshape(recording.tasks, (-1, 2)), [[0.55, 0.55]]])
    reach = float(min(1.5, np.quantile(np.abs(points), 0.995) + 0.05))
    extent = [-reach, reach, -reach, reach]
    return {"kind": "paths", "motion": _motion(recording, [0, 1]), "goals": recording.tasks, "extent": extent}


def _lines(recording: Recording, mdp: object) -> dict[str, Any]:
    """Plots of the motion against time, where there are no pictures."""
    size = recording.motion.shape[-1]
    moving = np.flatnonzero(np.ptp(recording.motion.reshape(-1, size), axis=0) > 0)
    chosen = (moving if len(moving) else np.arange(size))[:_MOST_LINES].tolist()
    names = [f"{'position' if isinstance(mdp, MujocoMDP) else 'observation'} {i}" for i in chosen]
    if isinstance(mdp, MujocoMDP):
        named = dict(zip(range(size), _coordinates(mdp), strict=True))
        names = [named[i] for i in chosen]
    values = recording.motion[..., chosen].reshape(-1, len(chosen))
    ranges = _rounded(np.stack([values.min(0), values.max(0)], axis=1))
    return {"kind": "lines", "motion": _motion(recording, chosen), "names": names, "ranges": ranges}


def _coordinates(mdp: MujocoMDP) -> list[str]:
    """A name for each number of a robot's pose."""
    names: list[str] = []
    ends = [*mdp.model.jnt_qposadr[1:], mdp.model.nq]
    for joint, (start, end) in enumerate(zip(mdp.model.jnt_qposadr, ends, strict=True)):
        name = mdp.model.joint(joint).name
        free = ["x", "y", "z", "quaternion w", "quaternion x", "quaternion y", "quaternion z"]
        names += [name] if end - start == 1 else free[: end - start]
    return names


def _clips(drawing: Drawing, progress: Callable[[int], object]) -> _ContactSheets:
    """Contact sheets that stay within the budget, at the best quality that does."""
    for quality, every in _LADDER[:-1]:
        clips = _drawn(drawing, quality, every, _BUDGET, progress)
        if clips is not None:
            return clips
    clips = _drawn(drawing, *_LADDER[-1], np.inf, progress)
    assert clips is not None
    return clips


def _drawn(
    drawing: Drawing, quality: int, every: int, budget: float, progress: Callable[[int], object]
) -> _ContactSheets | None:
    """Contact sheets, or None as soon as it is clear that they will exceed the budget."""
    lengths = drawing.recording.lengths
    times = frame_times(drawing.recording)[0][::every]
    places = [(step, task) for task in range(lengths.shape[1]) for step in range(lengths.shape[0])]
    counts = np.searchsorted(times, lengths, side="right")
    sheets: list[Future[bytes]] = []
    with ThreadPoolExecutor(1) as pool:  # encodes one episode while the next is drawn
        for step, task in places:
            pictures = drawing.frames(task, step, times[: counts[step, task]])
            sheets.append(pool.submit(to_sheet, list(pictures), quality))
            progress(len(sheets))
            sizes = [len(sheet.result()) for sheet in sheets[:-1]]
            if len(sizes) >= _SAMPLE and np.mean(sizes) * len(places) > 1.2 * budget:
                return None
    if sum(len(sheet.result()) for sheet in sheets) > budget:
        return None
    uris: list[list[str]] = [[] for _ in lengths]
    for (step, _), sheet in zip(places, sheets, strict=True):
        uris[step].append(f"data:image/webp;base64,{base64.b64encode(sheet.result()).decode()}")
    return _ContactSheets(uris, counts.tolist(), int(times[1]) if len(times) > 1 else 1)


def _body(recording: Recording, data: dict[str, Any], reason: str | None) -> str:
    """The controls and what they move."""
    chips = "".join(
        f'<label><input type="radio" name="task" value="{i}"{" checked" if i == 0 else ""}>'
        f"<span>{text(name)}</span></label>"
        for i, name in enumerate(recording.task_names)
    )
    aspect = {"clips": "{} / {}".format(*_SIZE), "paths": "1", "lines": "4 / 3"}[data["kind"]]
    panels = "".join(
        f"""<div class="panel" style="--colour: var(--{name})">
<b><span id="caption-{name}">{text(label)}</span><output id="travelled-{name}"></output></b>
<canvas id="panel-{name}" role="img" style="aspect-ratio: {aspect}"></canvas>
<small id="return-{name}"></small></div>
"""
        for name, label in (("before", "Before adaptation"), ("after", "After adaptation"))
    )
    last, horizon = recording.gradient_steps, data["horizon"]
    slow = horizon * data["seconds"] < _SHORT
    speeds = "".join(
        f'<option value="{value}"{" selected" if value == (0.5 if slow else 1) else ""}>{name}&times;</option>'
        for value, name in ((0.25, "¼"), (0.5, "½"), (1, "1"), (2, "2"))
    )
    note = f'<p class="note">There are no moving pictures, so the recorded motion is drawn instead: {text(reason)}.</p>'
    return f"""{note if reason else ""}<p>{_explanation(recording, data["kind"])}</p>
<div id="player" tabindex="0" role="group" aria-label="Recorded episodes">
<fieldset class="tasks"><legend>Task</legend>{chips}</fieldset>
<div class="panels">{panels}</div>
<div class="controls">
<button id="play" type="button" aria-label="Play" aria-pressed="false" title="Play">{_ICONS}</button>
<label class="grow"><span>Time</span><input id="time" type="range" min="0" max="{horizon}" value="0" step="1">
<output id="time-value" for="time"></output></label>
<label class="steps"><span>Gradient steps</span>
<input id="step" type="range" min="0" max="{last}" value="{min(1, last)}" step="1">
<output id="step-value" for="step">{min(1, last)}</output></label>
<label><span>Speed</span><select id="speed">{speeds}</select></label>
</div>
<canvas id="rewards" role="img" aria-label="Reward of each time step, before and after adaptation"></canvas>
<p class="hint">Reward of each time step; drag to move through time. Keys: <kbd>space</kbd> plays and pauses,
<kbd>←</kbd> <kbd>→</kbd> move through time, <kbd>0</kbd> to <kbd>{min(9, last)}</kbd> choose the gradient steps.</p>
</div>
"""


def _explanation(recording: Recording, kind: str) -> str:
    said = (
        "One episode of a task before adaptation, next to one after the number of gradient steps that the slider "
        f"shows, each on {counted(recording.episodes, 'episode')}. Both have the same start and the same noise: they "
        "differ only in the policy."
    )
    return f"{said} The goal is green; the policy does not see it." if kind == "paths" else said
