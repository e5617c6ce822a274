"""The ant with a goal velocity, a direction or a goal position as its task (Finn, Abbeel, Levine 2017, section 5.3)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import mujoco
import numpy as np
from gymnasium.spaces import Box, Discrete

from maml_rl.envs.batched import Array
from maml_rl.envs.mujoco.mdp import (
    DIRECTION,
    GOAL_VELOCITY,
    MujocoMDP,
    Noise,
    direction_name,
    normal_noise,
    uniform_and_normal_noise,
)
from maml_rl.envs.mujoco.model import gymnasium_xml
from maml_rl.envs.mujoco.sensors import BodySensors
from maml_rl.envs.mujoco.tracking import Camera

_FINN_POSE = (0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1)
_CONTACT_COST = 0.0005


class AntDefinition(NamedTuple):
    """What differs between papers."""

    time_step: float  # s
    frame_skip: int
    impedance: tuple[float, float, float]  # of all contacts: MuJoCo's solimp
    pose: tuple[float, ...] | None  # positions at the start, before noise; those of the model if None
    noise: Noise
    action_scale: float
    control_cost: float
    alive: float  # reward of a step
    heights: tuple[float, float]  # of the torso in m; outside, the episode ends
    whole_body: bool  # velocity and position are those of the whole body's centre of mass, and observed; or the torso's


_FINN_IMPEDANCE = (0.8, 0.8, 0.01)
_MUJOCO_IMPEDANCE = (0.9, 0.95, 0.001)  # the default, which Gymnasium's model has

ANT_DEFINITIONS = {
    "finn2017": AntDefinition(0.02, 1, _FINN_IMPEDANCE, _FINN_POSE, normal_noise, 1.0, 0.005, 0.05, (0.2, 1.0), True),
    "rothfuss2019": AntDefinition(
        0.01, 5, _MUJOCO_IMPEDANCE, None, uniform_and_normal_noise, 0.1, 0.5, 1.0, (0.0, 1.0), False
    ),
}


class Ant(MujocoMDP):
    """A robot on four legs that moves at a goal velocity, forward or backward, or to a goal, as the task says.

    ## Description

    The robot is Gymnasium's `ant.xml` (14 degrees of freedom, 13 bodies). The definition `finn2017` is that of the code
    behind the figures of Finn, Abbeel, Levine 2017: a control step is one physics step (RK4) of 0.02 s, contacts are
    softer (`solimp` 0.8, 0.8, 0.01), and position and velocity are those of the centre of mass of the whole body.
    `rothfuss2019` is that of Rothfuss et al. 2019 (ProMP): five physics steps of 0.01 s, position and velocity of the
    torso, and an action is divided by 10 before it is clipped.

    ## Action space

    `Box(-1, 1, (8,), float32)` (`rothfuss2019`: -10 to 10), clipped; at control 1 the torque at a joint is 150 N m. In
    this order: hip and ankle of the legs 4 (back right), 1 (front left), 2 (front right), 3 (back left).

    ## Observation space

    `Box(-inf, inf, (125,), float64)`, for `rothfuss2019` `(111,)`.

    | finn2017 | rothfuss2019 | quantity                                                                | unit     |
    |----------|--------------|-------------------------------------------------------------------------|----------|
    | 0-1      |              | position of the torso in x and y                                        | m        |
    | 2        | 0            | height of the torso                                                     | m        |
    | 3-6      | 1-4          | quaternion of the torso                                                 |          |
    | 7-14     | 5-12         | angles of hip and ankle of the legs 1 to 4                              | rad      |
    | 15-17    | 13-15        | velocity of the torso                                                   | m/s      |
    | 18-20    | 16-18        | angular velocity of the torso, in its own frame                         | rad/s    |
    | 21-28    | 19-26        | angular velocities of the joints                                        | rad/s    |
    | 29-112   | 27-110       | contact torque (3) and force (3) on the world, the torso, and hip, leg  | N m, N   |
    |          |              | and foot of the legs 1 to 4, clipped to [-1, 1]; 0 of the world         |          |
    | 113-121  |              | rotation matrix of the torso, row by row                                |          |
    | 122-124  |              | centre of mass of the whole body                                        | m        |

    Contact forces are MuJoCo's `cfrc_ext` at the new state, to rounding (`maml_rl.envs.mujoco.sensors`). They need
    MuJoCo 3.3.5 or newer.

    ## Task

    - goal `"velocity"`: `Box(0, 3, (1,), float32)`, the velocity g to reach in x, in m/s;
    - goal `"direction"`: `Discrete(2)`, 0 to move backward (d = -1) and 1 to move forward (d = +1) in x;
    - goal `"position"`: `Box(-3, 3, (2,), float32)`, the place g to reach, in m.

    ## Rewards

    With v the velocity in x and p the position after the step (`rothfuss2019`: v the change in x over the control step
    by its duration), a the control, f the clipped contact forces and torques:

    - `reward_velocity` = 1 - |v - g|, or `reward_direction` = d v,
      or `reward_position` = 4 - |p_x - g_x| - |p_y - g_y|;
    - `reward_alive` = 0.05 (`rothfuss2019`: 1);
    - `reward_control` = -0.005 |a|^2 (`rothfuss2019`: -0.5 |a|^2);
    - `reward_contact` = -0.0005 |f|^2.

    `info` holds all terms.

    ## Starting state

    `finn2017`: the torso at a height of 0.55 m, hips at 0 and ankles at 1, -1, -1, 1 rad, with noise 0.01 N(0, 1) on
    each position and velocities 0.1 N(0, 1). `rothfuss2019`: the model's pose (0.75 m, all joints 0), with noise
    U(-0.1, 0.1) on each position and velocities 0.1 N(0, 1).

    ## Episode end

    Terminates when the torso's height is not between 0.2 and 1 m (`rothfuss2019`: 0 and 1 m) or a number is not finite;
    truncated after 200 steps (`rothfuss2019`: 100).

    ## Arguments

    - `goal`: `"velocity"`, `"direction"` or `"position"`.
    - `definition`: `"finn2017"` or `"rothfuss2019"`.
    - `threads`: number of threads that step a batch; all cores if None. It does not change any result.

    ## Version history

    - v0: as published.
    """

    camera = Camera(distance=3.6, elevation=-20.0)

    def __init__(
        self,
        goal: Literal["velocity", "direction", "position"],
        definition: str = "finn2017",
        threads: int | None = None,
    ) -> None:
        if goal not in ("velocity", "direction", "position"):
            raise ValueError(f"goal must be 'velocity', 'direction' or 'position', got {goal!r}")
        if definition not in ANT_DEFINITIONS:
            raise ValueError(f"definition must be one of {', '.join(ANT_DEFINITIONS)}, got {definition!r}")
        self.goal, self.definition = goal, ANT_DEFINITIONS[definition]
        spec = mujoco.MjSpec.from_string(gymnasium_xml("ant.xml"))
        define_ant(spec, self.definition)
        model = spec.compile()
        pose = model.qpos0 if self.definition.pose is None else np.array(self.definition.pose)
        frame_skip, scale = self.definition.frame_skip, self.definition.action_scale
        super().__init__(model, pose, self.definition.noise, frame_skip, scale, threads=threads)
        self._sensors = BodySensors(spec, "torso", threads)
        size = model.nq + model.nv + 6 * model.nbody
        size += 9 + 3 if self.definition.whole_body else -2
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)
        self.task_space = {
            "velocity": Box(0.0, 3.0, (1,), np.float32),
            "direction": Discrete(2),
            "position": Box(-3.0, 3.0, (2,), np.float32),
        }[goal]
        self.task_quantity = {"velocity": GOAL_VELOCITY, "direction": DIRECTION, "position": "goal (m)"}[goal]

    def derived(self, physics: Array, controls: Array, tasks: Array | None = None) -> Array:
        """The torso's rotation matrix (9), centre of mass (3), its velocity in x (1), clipped contact forces (84)."""
        body = self._sensors.read(physics, controls)
        forces = np.clip(body.contact_forces, -1.0, 1.0)
        n = len(physics)
        parts = [body.rotation.reshape(n, 9), body.centre_of_mass, body.velocity[:, :1]]
        return np.concatenate([*parts, forces.reshape(n, 6 * self.model.nbody)], axis=1)

    def observation(self, states: Array) -> Array:
        """Positions, velocities and contact forces; for the whole body also the torso's rotation and the position."""
        qpos, qvel, extra = self.qpos(states), self.qvel(states), self.extra(states)
        rotation_and_centre, forces = extra[:, :12], extra[:, 13:]
        if self.definition.whole_body:
            return np.concatenate([qpos, qvel, forces, rotation_and_centre], axis=1)
        return np.concatenate([qpos[:, 2:], qvel, forces], axis=1)

    def task_name(self, task: Any) -> str:
        """The goal velocity, the direction or the goal."""
        if self.goal == "direction":
            return direction_name(task)
        if self.goal == "velocity":
            return f"goal velocity {task[0]:.2f} m/s"
        return f"goal ({task[0]:.2f}, {task[1]:.2f}) m"

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """The task's term, the reward for being alive, and the costs of control and contact."""
        extra = self.extra(next_states)
        if self.definition.whole_body:
            position, velocity = extra[:, 9:11], extra[:, 12]
        else:
            position = self.qpos(next_states)[:, :2]
            velocity = (position[:, 0] - self.qpos(states)[:, 0]) / self.dt
        if self.goal == "velocity":
            reached = 1.0 - np.abs(velocity - tasks[:, 0])
        elif self.goal == "direction":
            reached = (2 * tasks - 1) * velocity
        else:
            reached = 4.0 - np.abs(position - tasks).sum(axis=1)
        return {
            f"reward_{self.goal}": reached,
            "reward_alive": np.full(len(states), self.definition.alive),
            "reward_control": -self.definition.control_cost * np.square(self.controls(actions)).sum(axis=1),
            "reward_contact": -_CONTACT_COST * np.square(extra[:, 13:]).sum(axis=1),
        }

    def terminated(self, states: Array, tasks: Array) -> Array:
        """Whether the torso is too low or too high, or a number is not finite."""
        height = self.qpos(states)[:, 2]
        lowest, highest = self.definition.heights
        fine = np.isfinite(states).all(axis=1) & (height >= lowest) & (height <= highest)
        return ~fine

    def groups(self) -> Sequence[Self]:
        """Two MDPs with half of the threads each, if there is more than one thread."""
        groups = super().groups()
        for group, sensors in zip(groups, self._sensors.halves(), strict=True):
            group._sensors = sensors
        return groups


def define_ant(spec: mujoco.MjSpec, definition: AntDefinition) -> None:
    """Gives Gymnasium's model the time step and the contacts of a definition."""
    spec.option.timestep = definition.time_step
    for geom in spec.geoms:
        geom.solimp[:3] = definition.impedance
