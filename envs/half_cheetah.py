"""The half-cheetah with a goal velocity or a direction as its task (Finn, Abbeel, Levine 2017, section 5.3)."""

from collections.abc import Mapping, Sequence
from copy import copy
from importlib.resources import files
from typing import Any, Literal

import mujoco
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from envs.batched import Array, TaskMDP
from envs.mujoco_batch import BatchStepper
from envs.mujoco_render import TrackingRenderer

_MASS = 14.0  # kg


class HalfCheetah(TaskMDP):
    """A planar two-legged robot that runs at a goal velocity, or forward or backward, as the task says.

    ## Description

    The robot is Gymnasium's `half_cheetah.xml` (9 degrees of freedom, 14 kg). Definition and constants are those of
    the code behind the figures of Finn, Abbeel, Levine 2017: one control step is one physics step of 0.01 s, and
    velocity is that of the centre of mass of the whole body, not of the torso.

    ## Action space

    `Box(-1, 1, (6,), float32)`, clipped; multiplied by the gear it is the torque at a joint.

    | index | joint  | torque at action 1 (N m) |
    |-------|--------|--------------------------|
    | 0     | bthigh | 120                      |
    | 1     | bshin  | 90                       |
    | 2     | bfoot  | 60                       |
    | 3     | fthigh | 120                      |
    | 4     | fshin  | 60                       |
    | 5     | ffoot  | 30                       |

    ## Observation space

    `Box(-inf, inf, (20,), float64)`.

    | index | quantity                                                    | unit      |
    |-------|-------------------------------------------------------------|-----------|
    | 0     | height of the torso above its rest height                   | m         |
    | 1     | pitch of the torso                                          | rad       |
    | 2-7   | angles of bthigh, bshin, bfoot, fthigh, fshin, ffoot        | rad       |
    | 8-9   | velocity of the torso in x and z                            | m/s       |
    | 10    | angular velocity of the torso                               | rad/s     |
    | 11-16 | angular velocities of the six joints                        | rad/s     |
    | 17-19 | centre of mass of the whole body in x, y, z                 | m         |

    ## Task

    - goal `"velocity"`: `Box(0, 2, (1,), float32)`, the velocity g to reach, in m/s;
    - goal `"direction"`: `Discrete(2)`, 0 to run backward (d = -1) and 1 to run forward (d = +1).

    ## Rewards

    With v the velocity of the centre of mass in x after the step and a the clipped action:

    - `reward_velocity` = -|v - g|, or `reward_direction` = d v;
    - `reward_control` = -0.05 |a|^2.

    `info` holds both terms.

    ## Starting state

    The rest pose with noise 0.01 N(0, 1) on each position and velocities 0.1 N(0, 1).

    ## Episode end

    Never terminates; truncated after 200 steps (2 s).

    ## Arguments

    - `goal`: `"velocity"` or `"direction"`.
    - `threads`: number of threads that step a batch; all cores if None. It does not change any result.

    ## Version history

    - v0: as published in 2017.
    """

    frame_skip = 1
    control_cost_weight = 0.05
    max_goal_velocity = 2.0  # m/s

    def __init__(self, goal: Literal["velocity", "direction"], threads: int | None = None) -> None:
        if goal not in ("velocity", "direction"):
            raise ValueError(f"goal must be 'velocity' or 'direction', got {goal!r}")
        model = _model()
        self.goal = goal
        self.model = model
        self.render_fps = round(1 / (model.opt.timestep * self.frame_skip))
        self.action_space = Box(-1.0, 1.0, (model.nu,), np.float32)
        self.observation_space = Box(-np.inf, np.inf, (model.nq - 1 + model.nv + 3,), np.float64)
        self.task_space = Discrete(2) if goal == "direction" else Box(0.0, self.max_goal_velocity, (1,), np.float32)
        self._stepper = BatchStepper(model, self.frame_skip, threads)
        self._centre_of_mass = PlanarCentreOfMass(model)
        self._renderer: TrackingRenderer | None = None

    # A state is MuJoCo's (time, qpos, qvel) with what observation and reward both need of it: the position of the
    # centre of mass (3) and its velocity in x (1).

    def _split(self, states: Array) -> tuple[Array, Array, Array, Array]:
        nq, nv, size = self.model.nq, self.model.nv, self._stepper.state_size
        return states[:, 1 : 1 + nq], states[:, 1 + nq : 1 + nq + nv], states[:, size : size + 3], states[:, size + 3]

    def _completed(self, physics: Array) -> Array:
        nq, nv = self.model.nq, self.model.nv
        position, velocity = self._centre_of_mass.motion(physics[:, 1 : 1 + nq], physics[:, 1 + nq : 1 + nq + nv])
        return np.concatenate([physics, position, velocity[:, :1]], axis=1)

    def states(self, qpos: Array, qvel: Array) -> Array:
        """States at time 0 with positions `[n, 9]` and velocities `[n, 9]`."""
        return self._completed(self._stepper.states(qpos, qvel))

    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        """The rest pose with noise."""
        nq, nv = self.model.nq, self.model.nv
        noise = np.stack([generator.standard_normal(nq + nv) for generator in generators])
        return self.states(self.model.qpos0 + 0.01 * noise[:, :nq], 0.1 * noise[:, nq:])

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        """One control step of physics under the clipped action."""
        physics = states[:, : self._stepper.state_size]
        return self._completed(self._stepper.step(physics, np.clip(actions, -1.0, 1.0)))

    def observation(self, states: Array) -> Array:
        """Positions without the torso's x, velocities, and the centre of mass of the whole body."""
        qpos, qvel, position, _ = self._split(states)
        return np.concatenate([qpos[:, 1:], qvel, position], axis=1)

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """The task's term and the cost of control."""
        *_, velocity = self._split(next_states)
        cost = self.control_cost_weight * np.square(np.clip(actions, -1.0, 1.0)).sum(axis=1)
        if self.goal == "direction":
            return {"reward_direction": (2 * tasks - 1) * velocity, "reward_control": -cost}
        return {"reward_velocity": -np.abs(velocity - tasks[:, 0]), "reward_control": -cost}

    def groups(self) -> Sequence["HalfCheetah"]:
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

    def render(self, state: Array, task: Any) -> Array:
        """The robot, seen by a camera that follows it."""
        if self._renderer is None:
            self._renderer = TrackingRenderer(self.model, body="torso")
        picture: Array = self._renderer.render(state[1 : 1 + self.model.nq])
        return picture


def _model() -> mujoco.MjModel:
    """Gymnasium's model, with its whole mass set after compilation: MuJoCo 4 warns of the attribute that sets it."""
    xml = (files("gymnasium") / "envs/mujoco/assets/half_cheetah.xml").read_text()
    model = mujoco.MjModel.from_xml_string(xml.replace(f'settotalmass="{_MASS:g}"', ""))
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET.value  # a diverged state shows, and is not replaced
    mujoco.mj_setTotalmass(model, _MASS)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


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

        Each row alike whatever their number, which a BLAS product would not give.
        """
        pitch, rate = np.einsum("ij,jb->ib", qpos, self._hinges), np.einsum("ij,jb->ib", qvel, self._hinges)
        cos, sin = np.cos(pitch), np.sin(pitch)
        x, y, z = self._offsets.T
        turned_x, turned_z = cos * x + sin * z, cos * z - sin * x  # R(phi_b) c_b
        position, velocity = np.empty((len(qpos), 3)), np.zeros((len(qpos), 3))
        position[:, 0] = qpos[:, 0] + turned_x.sum(axis=1)
        position[:, 1] = y.sum()
        position[:, 2] = qpos[:, 1] + turned_z.sum(axis=1)
        velocity[:, 0] = qvel[:, 0] + (rate * turned_z).sum(axis=1)
        velocity[:, 2] = qvel[:, 1] - (rate * turned_x).sum(axis=1)
        return self._origin + position, velocity
