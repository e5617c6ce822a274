"""The page of `maml-rl view`: a robot or other agent for each number of gradient steps, and a panel next to them.

Dear ImGui builds the panel again in every frame; MuJoCo's Studio draws both in the browser.
"""

import time
from typing import Any, Protocol

import mujoco
import numpy as np
from gymnasium import spaces
from mujoco.studio import messages, plugin, ux, viewer_protocol
from mujoco.studio.dear_imgui import dear_imgui as imgui
from mujoco.studio.implot import implot
from numpy.typing import NDArray

from maml_rl.envs.mujoco.lanes import Colour
from maml_rl.errors import InputError
from maml_rl.experiments.live.session import Adapting, Session, ShownAdaptation
from maml_rl.experiments.runs.task_input import read_task
from maml_rl.task_parts import plain_text
from maml_rl.tasks import Task, sample_tasks

# The colours that plots give their curves in turn, which cannot be set.
_COLOURS: list[Colour] = [
    (red / 255, green / 255, blue / 255)
    for red, green, blue in [
        (76, 114, 176), (221, 132, 82), (85, 168, 104), (196, 78, 82), (129, 114, 179),
        (147, 120, 96), (218, 139, 195), (140, 140, 140), (204, 185, 116), (100, 181, 205),
    ]
]  # fmt: skip
_WIDTH, _MARGIN = 380, 12  # pixels, of the panel and around it
_LABEL = 150  # pixels, of the name of a part of a task
_WINDOW = sum(int(flag) for flag in (imgui.WindowFlags.AlwaysAutoResize, imgui.WindowFlags.NoTitleBar))
_PLOT = sum(int(flag) for flag in (implot.Flags.NoLegend, implot.Flags.NoMenus, implot.Flags.NoMouseText))
_SPEEDS = (0.25, 0.5, 1.0)
_MOST_SLIDERS, _MOST_BUTTONS = 12, 8


class Scene(Protocol):
    """Robots or other agents side by side in one model, one for each number of gradient steps."""

    model: mujoco.MjModel
    spacing: float  # m, in y
    elevation: float  # degrees, from where it is best seen
    scale: float  # size, compared with a robot of about a metre
    measure_name: str  # nothing is measured if it is empty

    def show(self, data: mujoco.MjData, poses: NDArray[np.floating], task: Task) -> None:
        """Puts them into poses `[n, P]`."""

    def measure(self, poses: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
        """How far each has come, in m, `[n]`."""


def colours(count: int) -> list[Colour]:
    """Colours of gradient steps 0, 1, ..."""
    return [_COLOURS[step % len(_COLOURS)] for step in range(count)]


class LivePanel(plugin.ViewerPlugin):
    """What the page shows of an adaptation: the robots in motion, and a panel to choose the task and the time.

    Args:
        title: What is shown.
        session: Names the tasks, and has their space.
        scene: The robots, one for each number of gradient steps.
        adapting: Adapts to the tasks that are chosen.
    """

    def __init__(
        self,
        title: str,
        session: Session,
        scene: Scene,
        adapting: Adapting,
    ) -> None:
        self._title, self._session, self.scene, self._adapting = title, session, scene, adapting
        self._space, self._quantity = session.task_space, session.task_quantity
        self._shown: ShownAdaptation | None = None
        self._time = 0.0  # s, of the episodes
        self._clock = time.monotonic()
        self._playing, self._speed = True, 1.0
        self._typed, self._complaint, self._themed = "", "", False
        self._draws = 0
        self._edited = adapting.task
        self._curves: list[tuple[list[float], list[float]]] = []

    @messages.handler
    def _on_viewer_init(self, event: viewer_protocol.ViewerInitEvent) -> None:
        """Looks at all robots from the side, with the panel to their left."""
        camera, depth, scale = event.viewer.camera, self.scene.spacing * self._adapting.total, self.scene.scale
        camera.lookat[:] = [-0.7 * scale - 0.1 * depth, 0.0, 0.2 * scale]
        camera.distance, camera.azimuth, camera.elevation = 2.6 * scale + 0.9 * depth, 90.0, self.scene.elevation
        for flag in (mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            event.viewer.render_flags.flags[flag.value] = 0

    @messages.handler
    def _on_theme(self, _: viewer_protocol.ThemeEvent) -> None:
        """Keeps the theme that the user of the page chose."""
        self._themed = True

    @messages.handler
    def _on_update(self, _: messages.UpdateEvent) -> None:
        """Advances the robots."""
        now = time.monotonic()
        passed, self._clock = now - self._clock, now
        shown = self._adapting.shown
        if shown is None:
            return
        if shown is not self._shown:
            self._show(shown)
        recording = shown.recording
        end = int(recording.lengths.max()) * recording.seconds_per_step
        if self._playing:
            self._time = self._time + self._speed * passed if self._time < end else 0.0
        self._time = min(self._time, end)
        poses = poses_at(recording.motion[:, 0], recording.lengths[:, 0], self._step)
        self.scene.show(self.viewer.data, poses, shown.task)
        mujoco.mj_forward(self.viewer.model, self.viewer.data)

    @property
    def _step(self) -> float:
        """Control steps that have passed."""
        assert self._shown is not None
        return self._time / self._shown.recording.seconds_per_step

    def _show(self, shown: ShownAdaptation) -> None:
        self._shown, recording = shown, shown.recording
        self._curves = []
        for rewards, length in zip(recording.rewards[:, 0], recording.lengths[:, 0], strict=True):
            times = (np.arange(length) + 1) * recording.seconds_per_step
            self._curves.append((times.tolist(), rewards[:length].tolist()))

    @messages.handler
    def _on_gui(self, _: messages.BuildGuiEvent) -> None:
        """Builds the panel, as Dear ImGui needs it in every frame."""
        if not self._themed:
            self._themed = True
            ux.setup_theme(ux.GuiTheme.DARK)  # as the page is until its user chooses another
        highest = imgui.GetIO().DisplaySize.y - 2 * _MARGIN
        imgui.SetNextWindowPos(imgui.Vec2(_MARGIN, _MARGIN), int(imgui.Cond.Once))
        imgui.SetNextWindowSizeConstraints(imgui.Vec2(_WIDTH, 0), imgui.Vec2(_WIDTH, highest))
        imgui.Begin("maml-rl", None, _WINDOW)
        imgui.PushItemWidth(-60)
        imgui.TextDisabled(self._title)
        self._task_controls()
        self._progress()
        if self._shown is not None:
            self._time_controls(self._shown)
            self._table(self._shown)
            self._reward_plot(self._shown)
            self._return_plot(self._shown)
        imgui.PopItemWidth()
        imgui.End()

    def _task_controls(self) -> None:
        imgui.SeparatorText(f"Task: {self._quantity}")
        space = self._space
        if has_controls(space):
            imgui.PushItemWidth(-_LABEL if isinstance(space, spaces.Dict) else -60)
            self._edited, is_released = self._control(space, self._edited, "")
            imgui.PopItemWidth()
            if is_released:
                self._choose(self._edited)
        else:
            _, self._typed = imgui.InputText("##task", self._typed)
            imgui.SameLine()
            if imgui.Button("Adapt"):
                self._read()
        if imgui.Button("Another task"):
            self._draws += 1
            self._choose(sample_tasks(space, 1, self._draws)[0])
        if self._complaint:
            imgui.TextWrapped(self._complaint)

    def _control(self, space: spaces.Space[Any], value: Any, name: str) -> tuple[Any, bool]:
        """Builds the controls of a part of the task; returns its value, and whether a control has just been
        released."""
        if isinstance(space, spaces.Dict):
            pairs = {
                key: self._control(part, value[key], f"{name}.{key}" if name else key)
                for key, part in space.spaces.items()
            }
            return {key: edited for key, (edited, _) in pairs.items()}, any(released for _, released in pairs.values())
        if isinstance(space, spaces.Discrete):
            return self._choices(space, value, name)
        assert isinstance(space, spaces.Box)
        return self._sliders(space, value, name)

    def _choices(self, space: spaces.Discrete, value: Any, name: str) -> tuple[Any, bool]:
        if space.n > _MOST_BUTTONS:
            last = int(space.start + space.n - 1)
            _, chosen = imgui.SliderInt(name or "task", int(value), int(space.start), last)
            return np.int64(chosen), bool(imgui.IsItemDeactivatedAfterEdit())
        if name:
            imgui.TextUnformatted(name)
        is_released = False
        for choice in space.start + np.arange(space.n):
            text = str(choice) if name else self._session.task_name(choice)
            if name:
                imgui.SameLine()
            if imgui.RadioButton(f"{text}##{name}", bool(choice == value)):
                value, is_released = choice, True
        return value, is_released

    def _sliders(self, space: spaces.Box, value: Any, name: str) -> tuple[Any, bool]:
        values, is_released = np.array(value, np.float64), False
        for place in np.ndindex(space.shape):
            own = name or "task"
            label = own if values.size == 1 else f"{own} {', '.join(map(str, place))}"
            low, high = float(space.low[place]), float(space.high[place])
            _, values[place] = imgui.SliderFloat(label, float(values[place]), low, high, "%.2f")
            is_released |= bool(imgui.IsItemDeactivatedAfterEdit())
        return np.clip(values.astype(space.dtype), space.low, space.high), is_released

    def _read(self) -> None:
        try:
            self._choose(read_task(self._space, self._typed))
        except InputError as error:
            self._complaint = str(error)

    def _choose(self, task: Task) -> None:
        self._edited, self._complaint, self._typed = task, "", plain_text(task)
        self._adapting.ask(task)

    def _progress(self) -> None:
        adapting = self._adapting
        fill = imgui.Vec2(-1, 0)
        if adapting.done < adapting.total:
            imgui.ProgressBar(adapting.done / adapting.total, fill, f"adapting: {adapting.done} of {adapting.total}")
        elif adapting.problem:
            imgui.TextWrapped(adapting.problem)
        elif adapting.shown is not None:
            imgui.AlignTextToFramePadding()
            imgui.TextWrapped(f"{adapting.shown.recording.task_names[0]}: adapted in {adapting.shown.seconds:.1f} s")

    def _time_controls(self, shown: ShownAdaptation) -> None:
        imgui.SeparatorText("Episode")
        if imgui.Button("Pause" if self._playing else "Play", imgui.Vec2(60, 0)) or self._space_pressed():
            self._playing = not self._playing
        for speed in _SPEEDS:
            imgui.SameLine()
            if imgui.RadioButton(f"{speed:g} x", speed == self._speed):
                self._speed = speed
        end = float(shown.recording.lengths.max()) * shown.recording.seconds_per_step
        changed, moved = imgui.SliderFloat("time", self._time, 0.0, end, "%.2f s")
        if changed:
            self._time, self._playing = moved, False

    @staticmethod
    def _space_pressed() -> bool:
        return bool(imgui.IsKeyPressed(imgui.Key.Space, False)) and not imgui.IsAnyItemActive()

    def _table(self, shown: ShownAdaptation) -> None:
        recording = shown.recording
        titles = [*filter(None, ("gradient steps", "reward so far", "mean return", self.scene.measure_name))]
        if imgui.BeginTable("steps", len(titles)):
            for title in titles:
                imgui.TableSetupColumn(title)
            imgui.TableHeadersRow()
            t = int(self._step)
            poses = poses_at(recording.motion[:, 0], recording.lengths[:, 0], self._step)
            measured = self.scene.measure(poses, shown.task)
            for step, colour in enumerate(colours(len(recording.rewards))):
                cells = (f"{recording.rewards[step, 0, :t].sum():.1f}", f"{recording.mean_returns[step, 0]:.1f}")
                imgui.TableNextColumn()
                imgui.ColorButton(f"##{step}", imgui.Vec4(*colour, 1), 0, imgui.Vec2(14, 14))
                imgui.SameLine()
                imgui.TextUnformatted(str(step))
                for cell in (*cells, f"{measured[step]:.2f} m")[: len(titles) - 1]:
                    imgui.TableNextColumn()
                    imgui.TextUnformatted(cell)
            imgui.EndTable()

    def _reward_plot(self, shown: ShownAdaptation) -> None:
        if implot.BeginPlot("reward", imgui.Vec2(-1, 170), _PLOT):
            implot.SetupAxes("time (s)", "", 0, int(implot.AxisFlags.AutoFit))
            end = float(shown.recording.lengths.max()) * shown.recording.seconds_per_step
            implot.SetupAxisLimits(int(implot.Axis.X1), 0.0, end, int(implot.Cond.Always))
            for step, (times, rewards) in enumerate(self._curves):
                implot.PlotLine(str(step), times, rewards)
            implot.DragLineX(0, self._time, imgui.Vec4(0.2, 0.2, 0.2, 1.0), 1.0, int(implot.DragToolFlags.NoInputs))
            implot.EndPlot()

    def _return_plot(self, shown: ShownAdaptation) -> None:
        returns = shown.recording.mean_returns[:, 0].tolist()
        if implot.BeginPlot("mean return", imgui.Vec2(-1, 150), _PLOT):
            implot.SetupAxes("gradient steps", "", 0, 0)
            margin = 0.15 * (max(returns) - min(returns)) or 1.0
            limits = (min(returns) - margin, max(returns) + margin)
            implot.SetupAxisLimits(int(implot.Axis.Y1), *limits, int(implot.Cond.Always))
            steps = [float(step) for step in range(len(returns))]
            implot.SetupAxisLimits(int(implot.Axis.X1), -0.3, len(returns) - 0.7, int(implot.Cond.Always))
            implot.SetupAxisTicks(int(implot.Axis.X1), steps, [f"{step:.0f}" for step in steps])
            for step, value in zip(steps, returns, strict=True):
                implot.PlotScatter(f"##{step}", [step], [value])
            implot.PlotLine("##all", steps, returns)
            implot.EndPlot()


def has_controls(space: spaces.Space[Any]) -> bool:
    """Whether the page has controls for a task of this space: few numbers with bounds, choices, and dicts of them."""
    return 0 < (_controls(space) or 0) <= _MOST_SLIDERS


def _controls(space: spaces.Space[Any]) -> int | None:
    """Number of controls that a task of this space needs; None if it has a part that no control can set."""
    if isinstance(space, spaces.Dict):
        counts = [_controls(part) for part in space.spaces.values()]
        return None if None in counts else sum(count or 0 for count in counts)
    if isinstance(space, spaces.Discrete):
        return 1
    return int(np.prod(space.shape)) if isinstance(space, spaces.Box) and space.is_bounded() else None


def poses_at(motion: NDArray[Any], lengths: NDArray[Any], step: float) -> NDArray[Any]:
    """Poses `[S, P]` between two control steps, of episodes `[S, T + 1, P]`; the last one stays.

    Quaternions are interpolated like all else: MuJoCo normalises them, and between two steps they turn little.
    """
    rows = np.arange(len(motion))
    before = np.minimum(int(step), lengths)
    after = np.minimum(before + 1, lengths)
    part = step - int(step)
    blended: NDArray[Any] = (1 - part) * motion[rows, before] + part * motion[rows, after]
    return blended
