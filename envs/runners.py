"""Half-cheetah, ant, walker and hopper that run forward; the task sets their dynamics.

The table `families` defines the tasks: a row has a name and the quantities of the robot that a task changes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import mujoco
import numpy as np
from gymnasium.spaces import Box

from maml_rl.envs.batched import Array
from maml_rl.envs.mujoco.mdp import (
    MujocoMDP,
    Noise,
    small_uniform_noise,
    uniform_and_normal_noise,
)
from maml_rl.envs.mujoco.model import gymnasium_model
from maml_rl.envs.mujoco.tracking import SIDE_VIEW, Camera
from maml_rl.envs.mujoco.variations import Variation


class RunnerDefinition(NamedTuple):
    """One of the robots, as in Gymnasium's environments of version 5."""

    xml: str
    frame_skip: int
    noise: Noise  # of a reset
    control_cost: float
    alive: float  # reward of a step after which it has not fallen
    hidden: int  # how many positions are not observed: the first ones, x of all robots and y of the ant
    speed_limit: float  # of observed velocities
    height: int  # which position is the height of the torso
    heights: tuple[float, float]  # of the torso in m; outside, the episode ends
    max_pitch: float  # rad, of the planar robots, whose third position it is
    max_state: float  # of all but the torso's place
    payload: float  # kg, the largest
    place: tuple[str, float]  # along which axis of the torso it may be attached, and how far from the torso's middle, m
    above: float  # height of the payload over the torso's middle in m, where it is not along that axis
    camera: Camera = SIDE_VIEW


_ANYWHERE = (-np.inf, np.inf)
RUNNERS = {
    "half-cheetah": RunnerDefinition(
        "half_cheetah.xml", 5, uniform_and_normal_noise, 0.1, 0.0, 1, np.inf, 1, _ANYWHERE, np.inf, np.inf,
        payload=7.0, place=("x", 0.5), above=0.1,
    ),
    "ant": RunnerDefinition(
        "ant.xml", 5, uniform_and_normal_noise, 0.5, 1.0, 2, np.inf, 2, (0.2, 1.0), np.inf, np.inf,
        payload=0.45, place=("x", 0.25), above=0.25, camera=Camera(distance=3.6, elevation=-20.0),
    ),
    "walker": RunnerDefinition(
        "walker2d_v5.xml", 4, small_uniform_noise, 0.001, 1.0, 1, 10.0, 1, (0.8, 2.0), 1.0, np.inf,
        payload=12.0, place=("z", 0.2), above=0.0,
    ),
    "hopper": RunnerDefinition(
        "hopper.xml", 4, small_uniform_noise, 0.001, 1.0, 1, 10.0, 1, (0.7, np.inf), 0.2, 100.0,
        payload=8.0, place=("z", 0.2), above=0.0,
    ),
}  # fmt: skip


def families(robot: RunnerDefinition) -> dict[str, dict[str, Variation]]:
    """What tasks change in a robot, by the name of the family; numbers are uniform between the two given bounds."""
    axis, reach = robot.place
    payload = Variation("mass", 0.0, robot.payload, of="payload")
    friction = Variation("friction", 0.25, 1.5, by="factor")
    slope = Variation("slope", -0.2, 0.2)
    delay = Variation("delay", 0, 3)
    return {
        "payload": {"payload": payload, "place": Variation(f"position {axis}", -reach, reach, of="payload")},
        "friction": {"friction": friction},
        "slope": {"slope": slope},
        "motor strength": {"motor strength": Variation("gear", 0.4, 1.2, by="factor", numbers="each")},
        "motor gain": {"motor gain": Variation("gear", -1.0, 1.0, by="factor")},
        "disabled joint": {"disabled joint": Variation("gear", 0.0, 0.0, by="factor", numbers="one")},
        "reversed motor": {"reversed motor": Variation("gear", -1.0, -1.0, by="factor", numbers="one")},
        "weak joint": {"weak joint": Variation("gear", 0.0, 1.0, by="factor", numbers="one")},
        "action delay": {"action delay": delay},
        "sensor offset": {"sensor offset": Variation("joint offset", -0.2, 0.2, numbers="each")},
        "mixture": {
            "payload": payload,
            "friction": friction,
            "slope": slope,
            "motor strength": Variation("gear", 0.4, 1.2, by="factor"),
            "action delay": delay,
        },
    }


class Runner(MujocoMDP):
    """A robot that runs forward under unknown dynamics: a payload, another floor, a weak motor.

    ## Description

    The robots, their observations, rewards and ends are those of Gymnasium's HalfCheetah-v5, Ant-v5 without contact
    forces (`include_cfrc_ext_in_observation=False, contact_cost_weight=0`), Walker2d-v5 and Hopper-v5. A task changes
    the robot, its motors, its sensors or the floor; the reward is the same in all tasks. These distributions over tasks
    are this package's own: no paper defines them.

    A payload is a point mass on the torso. Slopes are seen in the frame of the ground: gravity is tilted, heights and
    pitch are relative to the ground, and pictures show flat ground.

    ## Action space

    `Box(-1, 1, (k,), float32)`, clipped, with k = 6 for half-cheetah and walker, 8 for the ant, 3 for the hopper.
    Motors are in the order of Gymnasium's environments, with the torque of the model at control 1.

    ## Observation space

    `Box(-inf, inf, (n,), float64)`: positions without the torso's x (and y, for the ant), then all velocities, in m,
    rad, m/s and rad/s. n = 17 for half-cheetah and walker, 27 for the ant, 11 for the hopper. Velocities of walker and
    hopper are clipped to ±10.

    ## Task

    Every number is uniform between its bounds.

    | family           | space                                         | what it changes                              |
    |------------------|-----------------------------------------------|----------------------------------------------|
    | `payload`        | `Dict(payload=Box, place=Box)`                | mass in kg, and place on the torso in m      |
    | `friction`       | `Box(0.25, 1.5, (1,))`                        | factor on sliding friction, in all contacts  |
    | `slope`          | `Box(-0.2, 0.2, (1,))`                        | pitch of the ground in rad, positive uphill  |
    | `motor strength` | `Box(0.4, 1.2, (k,))`                         | factor on the torque of each motor           |
    | `motor gain`     | `Box(-1, 1, (1,))`                            | factor on the torque of all motors, negative |
    |                  |                                               | where they turn the wrong way                |
    | `disabled joint` | `Discrete(k)`                                 | the motor that gives no torque               |
    | `reversed motor` | `Discrete(k)`                                 | the motor that turns the wrong way           |
    | `weak joint`     | `Dict(actuator=Discrete(k), factor=Box(0,1))` | a motor, and the factor on its torque        |
    | `action delay`   | `Discrete(4)`                                 | delay of an action in control steps          |
    | `sensor offset`  | `Box(-0.2, 0.2, (k,))`                        | offset of each joint's sensor in rad         |
    | `mixture`        | `Dict` of the parts below                     | all of them at once                          |

    A mixture has `payload`, `friction`, `slope` and `action delay` as above, and one `motor strength` for all motors.

    The largest payload is 7 kg of 14 kg for the half-cheetah, 0.45 of 0.91 kg for the ant, 12 of 24 kg for the walker
    and 8 of 16 kg for the hopper. It is 0.1 m (ant: 0.25 m) above the middle of the torso, and up to 0.5 m (ant:
    0.25 m) in front of it or behind; for walker and hopper up to 0.2 m above or below the middle. In a mixture that
    distance is 0. Until the first action arrives, the control is 0.

    ## Rewards

    With v the change of the torso's x over the control step by its duration, and a the clipped action before the
    task changes it:

    - `reward_forward` = v;
    - `reward_alive` = 1 if the robot has not fallen, always 0 for the half-cheetah;
    - `reward_control` = -c |a|^2, with c = 0.1 for the half-cheetah, 0.5 for the ant, 0.001 for walker and hopper.

    `info` holds all terms.

    ## Starting state

    The model's pose with noise: U(-0.1, 0.1) on positions and 0.1 N(0, 1) on velocities of half-cheetah and ant,
    U(-0.005, 0.005) on both for walker and hopper.

    ## Episode end

    Terminates when a number is not finite, or the robot falls: the ant's torso is not between 0.2 and 1 m; the
    walker's not between 0.8 and 2 m, or its pitch beyond ±1 rad; the hopper's below 0.7 m, its pitch beyond ±0.2 rad,
    or another number of the state beyond ±100. Truncated after 200 steps: 10 s of half-cheetah and ant, 1.6 s of walker
    and hopper.

    ## Arguments

    - `robot`: `"half-cheetah"`, `"ant"`, `"walker"` or `"hopper"`.
    - `family`: what tasks change, a row of the table above.
    - `threads`: number of threads that step a batch; all cores if None. It does not change any result.

    ## Version history

    - v0: first version.
    """

    def __init__(self, robot: str, family: str, threads: int | None = None) -> None:
        if robot not in RUNNERS:
            raise ValueError(f"robot must be one of {', '.join(RUNNERS)}, got {robot!r}")
        self.robot = RUNNERS[robot]
        table = families(self.robot)
        if family not in table:
            raise ValueError(f"family must be one of {', '.join(table)}, got {family!r}")
        self.camera = self.robot.camera
        model = gymnasium_model(self.robot.xml, lambda spec: _with_payload(spec, self.robot.above))
        noise, frame_skip = self.robot.noise, self.robot.frame_skip
        super().__init__(model, noise=noise, frame_skip=frame_skip, threads=threads, varied=table[family])
        size = model.nq - self.robot.hidden + model.nv
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)

    def observation(self, states: Array) -> Array:
        """Positions as the joints report them, without the torso's place, and velocities, clipped for some robots."""
        velocities = np.clip(self.qvel(states), -self.robot.speed_limit, self.robot.speed_limit)
        return np.concatenate([self.measured_qpos(states)[:, self.robot.hidden :], velocities], axis=1)

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """Speed forward, the reward for not having fallen, and the cost of control."""
        return {
            "reward_forward": (self.qpos(next_states)[:, 0] - self.qpos(states)[:, 0]) / self.dt,
            "reward_alive": self.robot.alive * ~self.terminated(next_states, tasks),
            "reward_control": -self.robot.control_cost * np.square(self.controls(actions)).sum(axis=1),
        }

    def terminated(self, states: Array, tasks: Array) -> Array:
        """Whether the robot has fallen, or a number is not finite."""
        qpos, (lowest, highest) = self.qpos(states), self.robot.heights
        upright = (qpos[:, self.robot.height] >= lowest) & (qpos[:, self.robot.height] <= highest)
        upright &= np.abs(qpos[:, 2]) < self.robot.max_pitch
        others = np.abs(np.concatenate([qpos[:, 2:], self.qvel(states)], axis=1))
        fine: Array = upright & np.isfinite(states).all(axis=1) & (others < self.robot.max_state).all(axis=1)
        return ~fine


def _with_payload(spec: mujoco.MjSpec, above: float) -> None:
    """Adds a body without mass to the torso, which changes nothing until a task gives it a mass."""
    # Without ipos MuJoCo would put the mass as far above the body as the body is above the torso.
    spec.body("torso").add_body(name="payload", pos=[0, 0, above], ipos=[0, 0, 0], explicitinertial=True)
