"""Robots side by side: each in its own pose, in its own place, with the ground moving beneath it."""

import gymnasium
import mujoco
import numpy as np
import pytest

from maml_rl.envs.mujoco.arenas import Arenas
from maml_rl.envs.mujoco.lanes import Lanes
from maml_rl.envs.mujoco.mdp import MujocoMDP

pytest.importorskip("mujoco.studio", reason="the live view, which they are for, needs MuJoCo 4")

COLOURS = [(0.3, 0.4, 0.7), (0.9, 0.5, 0.3), (0.3, 0.7, 0.4)]
ROBOTS = {
    "half-cheetah": "maml_rl.envs:finn2017/HalfCheetahVel-v0",
    "ant": "maml_rl.envs:finn2017/AntVel-v0",
    "walker": "maml_rl.envs:rothfuss2019/WalkerRandomParameters-v0",
    "hopper": "maml_rl.envs:rothfuss2019/HopperRandomParameters-v0",
}


def mdp_of(env_id: str) -> MujocoMDP:
    mdp = gymnasium.make(env_id, disable_env_checker=True).unwrapped.mdp
    assert isinstance(mdp, MujocoMDP)
    return mdp


def random_poses(mdp: MujocoMDP, count: int) -> np.ndarray:
    generators = [np.random.default_rng(seed) for seed in range(count)]
    states, tasks = mdp.initial(generators), np.stack([mdp.task_space.sample() for _ in range(count)])
    for step in range(20):
        actions = np.stack([generator.uniform(-1, 1, mdp.model.nu) for generator in generators])
        states = mdp.transition(states, actions * (step + 1), tasks)
    return mdp.qpos(states)


def shown(scene: Lanes | Arenas, poses: np.ndarray, task: object = None) -> mujoco.MjData:
    data = mujoco.MjData(scene.model)
    scene.show(data, poses, task)
    mujoco.mj_forward(scene.model, data)
    return data


@pytest.mark.parametrize("robot", ROBOTS)
def test_each_robot_has_its_own_pose_and_differs_from_the_real_one_by_its_place_only(robot: str) -> None:
    mdp = mdp_of(ROBOTS[robot])
    lanes, poses = Lanes(mdp.model, COLOURS), random_poses(mdp, 3)
    data, real = shown(lanes, poses), mujoco.MjData(mdp.model)
    for i, pose in enumerate(poses):
        real.qpos[:] = pose
        mujoco.mj_forward(mdp.model, real)
        bodies = [lanes.model.body(f"robot_{i}_{body}").id for body in range(1, mdp.model.nbody)]
        offsets = data.xpos[bodies] - real.xpos[1:]
        np.testing.assert_allclose(offsets, np.broadcast_to(offsets[0], offsets.shape), atol=1e-9)
        np.testing.assert_allclose(data.xmat[bodies], real.xmat[1:], atol=1e-9)
        place = lanes.spacing * (1 - i)  # the first of three at the back
        assert offsets[0, 2] == pytest.approx(0, abs=1e-9)  # as high above the ground as it is
        assert offsets[0, 1] == pytest.approx(place - (pose[1] if robot == "ant" else 0.0), abs=1e-9)


@pytest.mark.parametrize("robot", ROBOTS)
def test_robots_do_not_reach_into_each_others_lanes(robot: str) -> None:
    mdp = mdp_of(ROBOTS[robot])
    lanes = Lanes(mdp.model, COLOURS)
    data = shown(lanes, np.tile(mdp.model.qpos0, (3, 1)))
    reach = [
        np.abs(data.geom_xpos[geom, 1] - lanes.spacing * (1 - i)) + lanes.model.geom_size[geom, 0]
        for i in range(3)
        for geom in np.flatnonzero(np.isin(lanes.model.geom_bodyid, robot_bodies(lanes, i, mdp.model.nbody)))
    ]
    assert max(reach) < lanes.spacing / 2


def robot_bodies(lanes: Lanes, i: int, count: int) -> list[int]:
    return [lanes.model.body(f"robot_{i}_{body}").id for body in range(1, count)]


def test_a_robot_that_has_run_far_stays_and_the_stripes_have_moved() -> None:
    mdp = mdp_of(ROBOTS["half-cheetah"])
    lanes = Lanes(mdp.model, COLOURS)
    poses = np.tile(mdp.model.qpos0, (3, 1))
    poses[:, 0] = (0.0, 52.25, -3.5)
    data = shown(lanes, poses)
    torsos = data.xpos[[lanes.model.body(f"robot_{i}_1").id for i in range(3)], 0]
    np.testing.assert_allclose(torsos, torsos[0])
    # Stripes stand at every metre: 52.25 m forward leaves them 0.25 m behind, 3.5 m backward 0.5 m.
    grounds = data.xpos[[lanes.model.body(f"ground_{i}").id for i in range(3)], 0]
    np.testing.assert_allclose(grounds, [0.0, -0.25, -0.5])
    np.testing.assert_allclose(lanes.measure(poses, None), [0.0, 52.25, -3.5])


def test_robots_have_their_colours() -> None:
    lanes = Lanes(mdp_of(ROBOTS["ant"]).model, COLOURS)
    for i, colour in enumerate(COLOURS):
        geoms = np.flatnonzero(np.isin(lanes.model.geom_bodyid, robot_bodies(lanes, i, 14)))
        assert len(geoms) > 0
        np.testing.assert_allclose(lanes.model.geom_rgba[geoms, :3], np.tile(colour, (len(geoms), 1)), atol=1e-6)


def test_points_and_goals_of_navigation_stand_in_their_squares() -> None:
    arenas = Arenas(COLOURS)
    poses, task = np.array([[0.0, 0.0], [0.3, 0.4], [-0.5, 0.1]]), np.array([0.3, 0.0], np.float32)
    data = shown(arenas, poses, task)
    places = np.array([arenas.spacing, 0.0, -arenas.spacing])
    goals, points = data.mocap_pos[::2], data.mocap_pos[1::2]
    np.testing.assert_allclose(goals[:, :2], np.stack([np.full(3, 0.3), places], axis=1), atol=1e-6)
    np.testing.assert_allclose(points[:, :2] - np.stack([np.zeros(3), places], axis=1), poses, atol=1e-9)
    np.testing.assert_allclose(arenas.measure(poses, task), [0.3, 0.4, np.hypot(0.8, 0.1)], atol=1e-6)
