"""The half-cheetah with a goal velocity or a direction as its task (Finn, Abbeel, Levine 2017, section 5.3)."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import mujoco
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

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
from maml_rl.envs.mujoco.model import gymnasium_model

_CONTROL_COST = 0.05


class CheetahDefinition(NamedTuple):
    """What differs between papers."""

    frame_skip: int
    noise: Noise
    action_scale: float
    max_goal_velocity: float  # m/s
    velocity: Literal["whole body", "torso"]  # of the centre of mass; or the torso's mean over a control step
    position: Literal["whole body", "torso", "none"]  # at the end of the observation


CHEETAH_DEFINITIONS = {
    "finn2017": CheetahDefinition(1, normal_noise, 1.0, 2.0, "whole body", "whole body"),
    "rothfuss2019": CheetahDefinition(5, uniform_and_normal_noise, 0.1, 3.0, "torso", "none"),
    "zintgraf2019": CheetahDefinition(5, uniform_and_normal_noise, 1.0, 2.0, "torso", "torso"),
}


class HalfCheetah(MujocoMDP):
    """A planar two-legged robot that runs at a goal velocity, or forward or backward, as the task says.

    ## Description

    The robot is Gymnasium's `half_cheetah.xml` (9 degrees of freedom, 14 kg). Three definitions differ:

    |                                 | finn2017          | rothfuss2019 | zintgraf2019 |
    |---------------------------------|-------------------|--------------|--------------|
    | physics steps in a control step | 1 (0.01 s)        | 5 (0.05 s)   | 5 (0.05 s)   |
    | factor on an action             | 1                 | 0.1          | 1            |
    | velocity of                     | the whole body    | the torso    | the torso    |
    | position observed               | of the whole body | none         | of the torso |
    | goal velocities                 | 0 to 2 m/s        | 0 to 3 m/s   | 0 to 2 m/s   |
    | noise on positions at the start | 0.01 N(0, 1)      | U(-0.1, 0.1) | U(-0.1, 0.1) |
    | time limit                      | 200 steps         | 100 steps    | 200 steps    |

    `finn2017` is that of the code behind the figures of Finn, Abbeel, Levine 2017, `rothfuss2019` that of Rothfuss et
    al. 2019 (ProMP), `zintgraf2019` that of Zintgraf et al. 2019 (CAVIA).

    ## Action space

    `Box(-1, 1, (6,), float32)` (`rothfuss2019`: -10 to 10). Multiplied by the definition's factor and clipped to ±1 it
    is the control; multiplied by the gear that is the torque at a joint.

    | index | joint  | torque at control 1 (N m) |
    |-------|--------|---------------------------|
    | 0     | bthigh | 120                       |
    | 1     | bshin  | 90                        |
    | 2     | bfoot  | 60                        |
    | 3     | fthigh | 120                       |
    | 4     | fshin  | 60                        |
    | 5     | ffoot  | 30                        |

    ## Observation space

    `Box(-inf, inf, (20,), float64)`, for `rothfuss2019` `(17,)`.

    | index | quantity                                                    | unit      |
    |-------|-------------------------------------------------------------|-----------|
    | 0     | height of the torso above its rest height                   | m         |
    | 1     | pitch of the torso                                          | rad       |
    | 2-7   | angles of bthigh, bshin, bfoot, fthigh, fshin, ffoot        | rad       |
    | 8-9   | velocity of the torso in x and z                            | m/s       |
    | 10    | angular velocity of the torso                               | rad/s     |
    | 11-16 | angular velocities of the six joints                        | rad/s     |
    | 17-19 | position as the definition says, x, y, z                    | m         |

    ## Task

    - goal `"velocity"`: `Box(0, 2, (1,), float32)` (`rothfuss2019`: up to 3), the velocity g to reach, in m/s;
    - goal `"direction"`: `Discrete(2)`, 0 to run backward (d = -1) and 1 to run forward (d = +1).

    ## Rewards

    With v the velocity in x, of the whole body's centre of mass after the step or the change of the torso's x over the
    control step by its duration, and a the control:

    - `reward_velocity` = -|v - g|, or `reward_direction` = d v;
    - `reward_control` = -0.05 |a|^2.

    `info` holds both terms.

    ## Starting state

    The rest pose with noise on each position, and velocities 0.1 N(0, 1).

    ## Episode end

    Never terminates; truncated at the time limit.

    ## Arguments

    - `goal`: `"velocity"` or `"direction"`.
    - `definition`: `"finn2017"`, `"rothfuss2019"` or `"zintgraf2019"`.
    - `threads`: number of threads that step a batch; all cores if None. It does not change any result.

    ## Version history

    - v0: as published.
    """

    def __init__(
        self, goal: Literal["velocity", "direction"], definition: str = "finn2017", threads: int | None = None
    ) -> None:
        if goal not in ("velocity", "direction"):
            raise ValueError(f"goal must be 'velocity' or 'direction', got {goal!r}")
        if definition not in CHEETAH_DEFINITIONS:
            raise ValueError(f"definition must be one of {', '.join(CHEETAH_DEFINITIONS)}, got {definition!r}")
        self.goal, self.definition = goal, CHEETAH_DEFINITIONS[definition]
        model = gymnasium_model("half_cheetah.xml")
        super().__init__(
            model,
            model.qpos0,
            self.definition.noise,
            self.definition.frame_skip,
            self.definition.action_scale,
            threads=threads,
        )
        size = model.nq - 1 + model.nv + (0 if self.definition.position == "none" else 3)
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)
        velocities = Box(0.0, self.definition.max_goal_velocity, (1,), np.float32)
        self.task_space = Discrete(2) if goal == "direction" else velocities
        self.task_quantity = DIRECTION if goal == "direction" else GOAL_VELOCITY
        self._centre_of_mass = PlanarCentreOfMass(model)

    def derived(self, physics: Array, controls: Array, tasks: Array | None = None) -> Array:
        """The centre of mass (3) in m and its velocity in x (1) in m/s."""
        position, velocity = self._centre_of_mass.motion(self.qpos(physics), self.qvel(physics))
        return np.concatenate([position, velocity[:, :1]], axis=1)

    def observation(self, states: Array) -> Array:
        """Positions without the torso's x, velocities, and a position, as the definition says."""
        qpos = self.qpos(states)
        parts = [qpos[:, 1:], self.qvel(states)]
        if self.definition.position == "whole body":
            parts.append(self.extra(states)[:, :3])
        elif self.definition.position == "torso":
            parts.append(self.model.body_pos[1] + np.stack([qpos[:, 0], np.zeros(len(qpos)), qpos[:, 1]], axis=1))
        return np.concatenate(parts, axis=1)

    def task_name(self, task: Any) -> str:
        """The goal velocity or the direction."""
        return direction_name(task) if self.goal == "direction" else f"goal velocity {task[0]:.2f} m/s"

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """The task's term and the cost of control."""
        if self.definition.velocity == "whole body":
            velocity = self.extra(next_states)[:, 3]
        else:
            velocity = (self.qpos(next_states)[:, 0] - self.qpos(states)[:, 0]) / self.dt
        cost = _CONTROL_COST * np.square(self.controls(actions)).sum(axis=1)
        if self.goal == "direction":
            return {"reward_direction": (2 * tasks - 1) * velocity, "reward_control": -cost}
        return {"reward_velocity": -np.abs(velocity - tasks[:, 0]), "reward_control": -cost}


class PlanarCentreOfMass:
    """Centre of mass of a planar robot and its velocity, for a batch of states, in closed form.

    The robot moves in the x-z plane: its root body slides in x and z, and every hinge turns about y. Then body b has
    pitch phi_b, the sum of the hinge angles from the root to b, and the centre of mass is

        com = root + sum_b R(phi_b) c_b,   c_b = (m_b ipos_b + sum over children k of M_k pos_k) / M

    with m_b a body's mass, M_k the mass of a subtree and M the whole mass. This equals MuJoCo's `subtree_com` and
    `subtree_linvel` of the root body at that state, which a batched rollout would only give for the state before.

    Args:
        model: A model of such a robot, whose first three joints are the slides in x and z and the pitch.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        bodies = range(1, model.nbody)
        hinges = np.zeros((model.nbody, model.nv))  # hinges[b, j] = 1 where joint j turns body b
        offsets = model.body_mass[:, None] * model.body_ipos
        for body in bodies:
            parent = model.body_parentid[body]
            hinges[body] = hinges[parent]
            for joint in range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]):
                if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE.value:
                    hinges[body, joint] = 1.0
            offsets[parent] += model.body_subtreemass[body] * model.body_pos[body]
        self._hinges: NDArray[np.float64] = hinges[1:].T  # [nv, bodies]
        self._offsets: NDArray[np.float64] = offsets[1:] / model.body_subtreemass[1]  # [bodies, 3]
        self._origin: NDArray[np.float64] = model.body_pos[1].copy()

    def motion(self, qpos: Array, qvel: Array) -> tuple[Array, Array]:
        """Centre of mass in m and its velocity in m/s, `[n, 3]` each, of positions `[n, nq]` and velocities `[n, nv]`.

        By einsum, because how BLAS rounds a row depends on the number of rows.
        """
        pitch, rate = np.einsum("ij,jb->ib", qpos, self._hinges), np.einsum("ij,jb->ib", qvel, self._hinges)
        cos, sin = np.cos(pitch), np.sin(pitch)
        x, y, z = self._offsets.T
        # The time derivative of (turned_x, turned_z) is the pitch rate times (turned_z, -turned_x).
        turned_x, turned_z = cos * x + sin * z, cos * z - sin * x  # R(phi_b) c_b
        position, velocity = np.empty((len(qpos), 3)), np.zeros((len(qpos), 3))
        position[:, 0] = qpos[:, 0] + turned_x.sum(axis=1)
        position[:, 1] = y.sum()
        position[:, 2] = qpos[:, 1] + turned_z.sum(axis=1)
        velocity[:, 0] = qvel[:, 0] + (rate * turned_z).sum(axis=1)
        velocity[:, 2] = qvel[:, 1] - (rate * turned_x).sum(axis=1)
        return self._origin + position, velocity
