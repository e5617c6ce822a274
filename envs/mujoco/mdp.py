"""What all robots in MuJoCo share: control steps, resets, groups of threads and pictures."""

from collections.abc import Callable, Sequence
from copy import copy
from importlib.resources import files
from typing import Any, Self

import mujoco
import numpy as np
from gymnasium.spaces import Box

from maml_rl.envs.batched import Array, TaskMDP
from maml_rl.envs.mujoco.batch import NOT_NEEDED, BatchStepper
from maml_rl.envs.mujoco.tracking import SIDE_VIEW, TrackingRenderer

GOAL_VELOCITY, DIRECTION = "goal velocity (m/s)", "direction (0 backward, 1 forward)"  # quantities of tasks
Noise = Callable[[np.random.Generator, int, int], Array]


def normal_noise(generator: np.random.Generator, nq: int, nv: int) -> Array:
    """Noise of a reset `[nq + nv]`: 0.01 N(0, 1) on positions and 0.1 N(0, 1) on velocities (rllab)."""
    return np.repeat([0.01, 0.1], [nq, nv]) * generator.standard_normal(nq + nv)


def uniform_and_normal_noise(generator: np.random.Generator, nq: int, nv: int) -> Array:
    """Noise of a reset `[nq + nv]`: U(-0.1, 0.1) on positions and 0.1 N(0, 1) on velocities (Gymnasium)."""
    return np.concatenate([generator.uniform(-0.1, 0.1, nq), 0.1 * generator.standard_normal(nv)])


def small_uniform_noise(generator: np.random.Generator, nq: int, nv: int) -> Array:
    """Noise of a reset `[nq + nv]`: U(-0.005, 0.005) on positions and velocities (Gymnasium's walker and hopper)."""
    return generator.uniform(-0.005, 0.005, nq + nv)


def gymnasium_xml(name: str) -> str:
    """Text of one of Gymnasium's MuJoCo models."""
    return (files("gymnasium") / "envs/mujoco/assets" / name).read_text()


def direction_name(task: Any) -> str:
    """Name of the direction that a task of `Discrete(2)` stands for."""
    return "forward" if task else "backward"


class MujocoMDP(TaskMDP):
    """A robot in MuJoCo. A state is MuJoCo's (time, qpos, qvel), followed by what `derived` makes of it.

    Args:
        model: The model.
        qpos: Positions `[nq]` at the start of an episode, before noise; velocities are 0.
        noise: Noise of a reset.
        frame_skip: Physics steps in a control step.
        action_scale: Factor on an action before it is clipped to [-1, 1], which makes it the control. The action space
            contains the actions that are not clipped.
        threads: Number of threads that step a batch; all cores if None.
    """

    action_space: Box
    camera = SIDE_VIEW

    def __init__(
        self,
        model: mujoco.MjModel,
        qpos: Array,
        noise: Noise,
        frame_skip: int = 1,
        action_scale: float = 1.0,
        threads: int | None = None,
    ) -> None:
        model.opt.disableflags |= NOT_NEEDED
        self.model = model
        self.frame_skip = frame_skip
        self.dt = model.opt.timestep * frame_skip  # s
        self.render_fps = round(1 / self.dt)
        self.action_space = Box(-1.0 / action_scale, 1.0 / action_scale, (model.nu,), np.float32)
        self._qpos, self._noise, self._action_scale = np.asarray(qpos, np.float64), noise, action_scale
        self._stepper = BatchStepper(model, frame_skip, threads)
        self._renderer: TrackingRenderer | None = None

    def derived(self, physics: Array, controls: Array) -> Array:
        """What observation and reward need beyond positions and velocities, `[n, D]`; nothing, unless overridden.

        Args:
            physics: MuJoCo's states `[n, 1 + nq + nv]`.
            controls: Controls `[n, nu]` that led there; 0 at a reset.
        """
        return np.empty((len(physics), 0))

    def models(self, tasks: Array) -> mujoco.MjModel | list[mujoco.MjModel]:
        """The model, or one for each task where tasks differ in their dynamics."""
        return self.model

    def qpos(self, states: Array) -> Array:
        """Positions `[n, nq]`."""
        return states[:, 1 : 1 + self.model.nq]

    def qvel(self, states: Array) -> Array:
        """Velocities `[n, nv]`."""
        return states[:, 1 + self.model.nq : self._stepper.state_size]

    def extra(self, states: Array) -> Array:
        """What `derived` made of the states, `[n, D]`."""
        return states[:, self._stepper.state_size :]

    def controls(self, actions: Array) -> Array:
        """Controls `[n, nu]` for actions `[n, nu]`: scaled, then clipped to [-1, 1]."""
        return np.clip(self._action_scale * actions, -1.0, 1.0)

    def states(self, qpos: Array, qvel: Array) -> Array:
        """States at time 0 with positions `[n, nq]` and velocities `[n, nv]`."""
        physics = self._stepper.states(qpos, qvel)
        return np.concatenate([physics, self.derived(physics, np.zeros((len(qpos), self.model.nu)))], axis=1)

    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        """The starting pose, with noise."""
        nq, nv = self.model.nq, self.model.nv
        noise = np.stack([self._noise(generator, nq, nv) for generator in generators])
        return self.states(self._qpos + noise[:, :nq], noise[:, nq:])

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        """One control step of physics."""
        controls = self.controls(actions)
        physics = self._stepper.step(states[:, : self._stepper.state_size], controls, self.models(tasks))
        return np.concatenate([physics, self.derived(physics, controls)], axis=1)

    def groups(self) -> Sequence[Self]:
        """Two with half of the threads each, if it has more than one."""
        mdps = []
        for stepper in self._stepper.halves():
            mdps.append(copy(self))
            mdps[-1]._stepper, mdps[-1]._renderer = stepper, None
        return mdps

    def close(self) -> None:
        """Frees the picture's OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def poses(self, states: Array) -> Array:
        """Positions `[n, nq]`."""
        return self.qpos(states)

    def renderer(self, width: int, height: int) -> TrackingRenderer:
        """Draws poses in pictures of this size.

        Raises:
            RuntimeError: If this machine has no OpenGL, with the packages to install.
        """
        return TrackingRenderer(self.model, "torso", width, height, self.camera)

    def render(self, pose: Array, task: Any) -> Array:
        """The robot, seen by a camera that follows it."""
        if self._renderer is None:
            self._renderer = self.renderer(480, 320)
        picture: Array = self._renderer.render(pose)
        return picture
