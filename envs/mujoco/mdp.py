"""What all MuJoCo robots share: control steps, resets, groups of threads and pictures."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import mujoco
import numpy as np
from gymnasium.spaces import Box

from maml_rl.envs.batched import Array, TaskMDP
from maml_rl.envs.mujoco.batch import NOT_NEEDED, BatchStepper
from maml_rl.envs.mujoco.model import control_ranges, load_model, sensing_model, sensor_columns
from maml_rl.envs.mujoco.tracking import SIDE_VIEW, TrackingRenderer
from maml_rl.envs.mujoco.variations import Variation, Variations

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


def direction_name(task: Any) -> str:
    """Name of the direction that a task of `Discrete(2)` stands for."""
    return "forward" if task else "backward"


class MujocoMDP(TaskMDP):
    """A MuJoCo robot that the actuators of its model move; subclasses define observations and rewards.

    A state holds MuJoCo's (time, qpos, qvel, activations), the quantities that `derived` computes from it, and what the
    task adds: delayed controls, and offsets of joints and sensors. If the model has sensors, they are read in each new
    state, by one more evaluation of the dynamics, or of the kinematics alone where that is enough for them.

    Args:
        model: The model, or the path of an MJCF file.
        qpos: Positions `[nq]` at the start of an episode, before noise; velocities are 0. Those of the model if None.
        noise: Noise of a reset.
        frame_skip: Physics steps in a control step.
        action_scale: Factor on an action before it is clipped to [-1, 1], which makes it the control. The action space
            contains exactly the actions that are not clipped. -1 and 1 are the bounds of an actuator's `ctrlrange`.
        threads: Number of threads that step a batch; all cores if None.
        varied: What a task changes, by the name of each part (`maml_rl.envs.mujoco.variations`). It makes `task_space`.
            If None, tasks leave the robot as it is, and a subclass defines them.

    Raises:
        ValueError: If the file cannot be read, an actuator has no `ctrlrange`, there are no actuators, `qpos` has
            another shape than `[nq]`, or a variation does not fit the model.
    """

    action_space: Box
    camera = SIDE_VIEW

    def __init__(
        self,
        model: mujoco.MjModel | str | Path,
        qpos: Array | None = None,
        noise: Noise = small_uniform_noise,
        frame_skip: int = 1,
        action_scale: float = 1.0,
        *,
        threads: int | None = None,
        varied: Mapping[str, Variation] | None = None,
    ) -> None:
        self.model = model = model if isinstance(model, mujoco.MjModel) else load_model(model)
        self._middle, self._reach = control_ranges(model)
        model.opt.disableflags |= NOT_NEEDED
        self.frame_skip = frame_skip
        self.dt = model.opt.timestep * frame_skip  # s
        self.render_fps = round(1 / self.dt)
        self.action_space = Box(-1.0 / action_scale, 1.0 / action_scale, (model.nu,), np.float32)
        self._qpos = np.asarray(model.qpos0 if qpos is None else qpos, np.float64)
        if self._qpos.shape != (model.nq,):
            raise ValueError(f"expected qpos of shape ({model.nq},), the model's positions, got {self._qpos.shape}")
        self._noise, self._action_scale = noise, action_scale
        self._stepper = BatchStepper(model, frame_skip, threads)
        self._sensing = BatchStepper(sensing_model(model), 1, threads) if model.nsensor else None
        self._variations = self._sensing_variations = None
        if varied is not None:
            self._variations = Variations(model, varied)
            self._sensing_variations = Variations(self._sensing.model, varied) if self._sensing else None
            self.task_space, self.task_quantity = self._variations.space, self._variations.description
        # Columns at the end of a state: controls that are late, then an offset for each joint and sensor.
        self._late = self._variations.longest_delay * model.nu if self._variations else 0
        self._offsets = model.njnt + model.nsensor if self._variations and self._variations.have_offsets else 0
        self._renderer: TrackingRenderer | None = None

    def derived(self, physics: Array, controls: Array, tasks: Array | None = None) -> Array:
        """What observation and reward need beyond positions and velocities, `[n, D]`. By default, the sensors.

        Args:
            physics: MuJoCo's states `[n, 1 + nq + nv + na]`.
            controls: Controls `[n, nu]` that led there; 0 at a reset.
            tasks: Tasks `[n, ...]`; None for the robot as its model has it.
        """
        if self._sensing is None:
            return np.empty((len(physics), 0))
        varied = None if self._sensing_variations is None or tasks is None else self._sensing_variations.models(tasks)
        return self._sensing.sensors(physics, self.inputs(controls), varied)

    def models(self, tasks: Array) -> mujoco.MjModel | list[mujoco.MjModel]:
        """The model, or one for each task where tasks differ in their dynamics."""
        return self.model if self._variations is None else self._variations.models(tasks)

    def qpos(self, states: Array) -> Array:
        """Positions `[n, nq]`."""
        return states[:, 1 : 1 + self.model.nq]

    def qvel(self, states: Array) -> Array:
        """Velocities `[n, nv]`."""
        return states[:, 1 + self.model.nq : 1 + self.model.nq + self.model.nv]

    def extra(self, states: Array) -> Array:
        """What `derived` computed from the states, `[n, D]`."""
        return states[:, self._stepper.state_size : states.shape[1] - self._late - self._offsets]

    def reading(self, states: Array, *sensors: str) -> Array:
        """What these sensors of the model read, one after the other, `[n, their readings]`, without their offsets.

        Raises:
            ValueError: If the model has no such sensor.
        """
        return self.extra(states)[:, sensor_columns(self.model, sensors)]

    def measured(self, states: Array, *sensors: str) -> Array:
        """What these sensors report, `[n, their readings]`: the readings and the offsets of the task."""
        if not self._offsets:
            return self.reading(states, *sensors)
        offsets = np.repeat(states[:, states.shape[1] - self.model.nsensor :], self.model.sensor_dim, axis=1)
        measured: Array = self.reading(states, *sensors) + offsets[:, sensor_columns(self.model, sensors)]
        return measured

    def measured_qpos(self, states: Array) -> Array:
        """Positions `[n, nq]` as the joints report them: with the offsets of the task."""
        if not self._offsets:
            return self.qpos(states)
        qpos, first = self.qpos(states).copy(), states.shape[1] - self._offsets
        qpos[:, self.model.jnt_qposadr] += states[:, first : first + self.model.njnt]
        return qpos

    def controls(self, actions: Array) -> Array:
        """Controls `[n, nu]` for actions `[n, nu]`: scaled, then clipped to [-1, 1]."""
        return np.clip(self._action_scale * actions, -1.0, 1.0)

    def inputs(self, controls: Array) -> Array:
        """Controls `[n, nu]` in the units of the actuators: -1 and 1 become the bounds of each `ctrlrange`."""
        inputs: Array = self._middle + self._reach * controls
        return inputs

    def states(self, qpos: Array, qvel: Array, tasks: Array | None = None) -> Array:
        """States at time 0 with positions `[n, nq]` and velocities `[n, nv]`; no control has been given yet.

        Args:
            qpos: Positions.
            qvel: Velocities.
            tasks: Tasks `[n, ...]`; None for the robot as its model has it, without offsets.
        """
        physics, none = self._stepper.states(qpos, qvel), np.zeros((len(qpos), self.model.nu))
        late, offsets = np.zeros((len(qpos), self._late)), np.zeros((len(qpos), self._offsets))
        if self._variations is not None and self._offsets and tasks is not None:
            offsets = self._variations.offsets(tasks)
        return np.concatenate([physics, self.derived(physics, none, tasks), late, offsets], axis=1)

    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        """The starting pose, with noise, of the robot as its model has it."""
        return self.states(*self._starting(generators))

    def initial_for(self, generators: Sequence[np.random.Generator], tasks: Array) -> Array:
        """The starting pose, with noise, of the robots of these tasks."""
        if self._variations is None:
            return self.initial(generators)
        return self.states(*self._starting(generators), tasks)

    def _starting(self, generators: Sequence[np.random.Generator]) -> tuple[Array, Array]:
        nq, nv = self.model.nq, self.model.nv
        noise = np.stack([self._noise(generator, nq, nv) for generator in generators])
        return self._qpos + noise[:, :nq], noise[:, nq:]

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        """One control step of physics."""
        late, offsets = np.split(states[:, states.shape[1] - self._late - self._offsets :], [self._late], axis=1)
        controls, late = self._in_time(self.controls(actions), late, tasks)
        models = self.models(tasks)
        physics = self._stepper.step(states[:, : self._stepper.state_size], self.inputs(controls), models)
        return np.concatenate([physics, self.derived(physics, controls, tasks), late, offsets], axis=1)

    def _in_time(self, controls: Array, late: Array, tasks: Array) -> tuple[Array, Array]:
        """The controls that take effect now, and those still to come, the latest first."""
        if self._variations is None or not self._late:
            return controls, late
        given = np.concatenate([controls, late], axis=1)
        chosen = given.reshape(len(given), -1, self.model.nu)[np.arange(len(given)), self._variations.delays(tasks)]
        return chosen, given[:, : self._late]

    def task_name(self, task: Any) -> str | None:
        """What the task changes, with units; None if tasks leave the robot as it is."""
        return None if self._variations is None else self._variations.name(task)

    def groups(self) -> Sequence[Self]:
        """Two MDPs with half of the threads each, if there is more than one thread."""
        mdps = []
        steppers = self._stepper.halves()
        sensors = self._sensing.halves() if self._sensing else [None] * len(steppers)
        for stepper, sensing in zip(steppers, sensors, strict=True):
            mdps.append(copy(self))
            mdps[-1]._stepper, mdps[-1]._sensing, mdps[-1]._renderer = stepper, sensing, None
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
        """A renderer of poses, in pictures of this size.

        Raises:
            RuntimeError: If this machine has no OpenGL, with the packages to install.
        """
        return TrackingRenderer(self.model, 1, width, height, self.camera)

    def render(self, pose: Array, task: Any) -> Array:
        """The robot, seen by a camera that follows it."""
        if self._renderer is None:
            self._renderer = self.renderer(480, 320)
        picture: Array = self._renderer.render(pose)
        return picture
