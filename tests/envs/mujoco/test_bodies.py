"""Copies of any MuJoCo environment side by side, each with its bodies and surroundings in place."""

import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from maml_rl.envs.mujoco.bodies import Bodies
from maml_rl.process_worker import WorkerEnv

pytest.importorskip("mujoco.studio", reason="the live view, which they are for, needs MuJoCo 4")

COLOURS = [(0.3, 0.4, 0.7), (0.9, 0.5, 0.3), (0.3, 0.7, 0.4)]
TORSO, HAND, FLAG = 1, 3, 4  # bodies of the crawler
ARM = """
<mujoco>
  <worldbody>
    <geom type="plane" pos="0 0 -0.4" size="1 1 0.1"/>
    <body name="table"><geom type="box" size="0.3 0.7 0.02" rgba="0.5 0.5 0.5 1"/></body>
    <body name="arm" pos="0 0 0.05">
      <joint name="turn" axis="0 0 1"/>
      <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.02"/>
    </body>
    <body name="puck" pos="0.3 0 0.05"><freejoint/><geom type="cylinder" size="0.03 0.02"/></body>
    <site name="goal" pos="0.2 0.2 0.05" size="0.02"/>
  </worldbody>
  <actuator><motor joint="turn"/></actuator>
</mujoco>
"""


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch) -> WorkerEnv:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "environments")
    env = WorkerEnv(gymnasium.make("mujoco_environments:Crawler-v0", disable_env_checker=True))
    assert "maml_rl" not in vars(sys.modules["mujoco_environments"])
    return env


def shown(scene: Bodies, poses: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(scene.model)
    scene.show(data, poses, None)
    mujoco.mj_forward(scene.model, data)
    return data


def place(scene: Bodies, data: mujoco.MjData, copy: int, body: int) -> np.ndarray:
    return data.xpos[scene.model.body(f"copy_{copy}_{body}").id]


def test_bodies_are_where_the_environment_has_them_whatever_a_task_changes(crawler: WorkerEnv) -> None:
    model, data = crawler.unwrapped.model, crawler.unwrapped.data
    scene, poses, places, turned = Bodies(model, COLOURS), [], [], []
    for length in (0.1, 0.3, 0.5):
        crawler.task = {"arm": np.array([length], np.float32), "flag": np.array([length, -1.0], np.float32), "way": 1}
        crawler.reset(seed=0)
        for _ in range(8):
            crawler.step(np.ones(1))
        poses.append(crawler.body_poses)
        places.append(data.xpos[1:].copy())
        turned.append(data.xmat[1:].copy())
    found = shown(scene, np.stack(poses).astype(np.float32))
    for i, (expected, rotation) in enumerate(zip(places, turned, strict=True)):
        bodies = [scene.model.body(f"copy_{i}_{body}").id for body in range(1, model.nbody)]
        offset = [-expected[0, 0], scene.spacing * (1 - i) - expected[0, 1], 0.0]  # the torso stays at its origin
        np.testing.assert_allclose(found.xpos[bodies], expected + offset, atol=1e-5)
        np.testing.assert_allclose(found.xmat[bodies], rotation, atol=1e-5)
        np.testing.assert_allclose(place(scene, found, i, 0), offset, atol=1e-5)  # the world, with its post
    np.testing.assert_allclose(scene.measure(np.stack(poses), None), [expected[0, 0] for expected in places])


def test_a_robot_stays_in_place_and_the_stripes_of_its_ground_move(crawler: WorkerEnv) -> None:
    crawler.reset(seed=0)
    pose = crawler.body_poses.reshape(-1, 7)
    far = pose + np.array([52.25, 0, 0, 0, 0, 0, 0])
    scene = Bodies(crawler.unwrapped.model, COLOURS[:2])
    assert scene.measure_name == "x"
    data = shown(scene, np.stack([pose.ravel(), far.ravel()]))
    for body in (TORSO, HAND, FLAG):
        moved = place(scene, data, 0, body) - place(scene, data, 1, body)
        np.testing.assert_allclose(moved, [0, scene.spacing, 0], atol=1e-6)
    stripes = [data.xpos[scene.model.body(f"ground_{i}").id, 0] for i in range(2)]
    np.testing.assert_allclose(stripes, [-pose[0, 0] % -1.0, -(pose[0, 0] + 0.25) % -1.0], atol=1e-6)


def test_actuated_bodies_have_the_colour_of_their_copy_and_all_others_keep_theirs(crawler: WorkerEnv) -> None:
    scene = Bodies(crawler.unwrapped.model, COLOURS)
    for i, colour in enumerate(COLOURS):
        ids = [scene.model.body(f"copy_{i}_{body}").id for body in (0, TORSO, HAND, FLAG)]
        (post, torso, hand, flag) = (scene.model.geom_rgba[scene.model.body_geomadr[body], :3] for body in ids)
        np.testing.assert_allclose([torso, hand], [colour, colour], atol=1e-6)
        np.testing.assert_allclose([post, flag], [[0.6, 0.4, 0.2], [0.9, 0.1, 0.1]], atol=1e-6)


def test_a_fixed_arm_is_shown_in_place_with_its_puck_and_its_goal() -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    scene = Bodies(model, COLOURS)
    assert scene.measure_name == ""
    assert scene.spacing > 2 * 0.7  # the table
    data.xpos[3, 0] = 5.0  # the puck, far away: nothing follows it
    pose = np.concatenate([data.xpos[1:], data.xquat[1:]], axis=1).ravel()
    found = shown(scene, np.stack([pose] * 3))
    for i in range(3):
        origin = np.array([0.0, scene.spacing * (1 - i), 0.0])
        np.testing.assert_allclose(place(scene, found, i, 2), origin + np.array([0, 0, 0.05]), atol=1e-9)
        np.testing.assert_allclose(place(scene, found, i, 3), origin + np.array([5.0, 0, 0.05]), atol=1e-9)
        np.testing.assert_allclose(found.site_xpos[i], origin + np.array([0.2, 0.2, 0.05]), atol=1e-9)
        assert found.xpos[scene.model.body(f"ground_{i}").id, 2] == pytest.approx(-0.4)
    np.testing.assert_array_equal(scene.measure(np.stack([pose] * 3), None), np.zeros(3))
