"""The published values, and the tasks that returns were measured on."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from maml_rl.config import RLConfig
from maml_rl.errors import InputError
from maml_rl.experiments.paper.published import PublishedValue, paper_task, paper_tasks, published
from maml_rl.experiments.presets import PRESETS
from maml_rl.tasks import task_space, vectorize

NAVIGATION, DIRECTION, VELOCITY = (
    PRESETS[name].config for name in ("navigation", "half-cheetah-dir", "half-cheetah-vel")
)


@pytest.mark.parametrize(
    ("env_id", "method", "expected"),
    [
        (NAVIGATION.env_id, "maml", {0: -40.41, 1: -11.68, 2: -3.33, 3: -3.23, 4: -3.35}),
        (NAVIGATION.env_id, "random", {0: -82.66, 1: -57.96, 2: -53.84, 3: -46.81, 4: -42.91}),
        (DIRECTION.env_id, "maml", {0: -50.69, 1: 293.19, 2: 313.48, 3: 315.65}),
        (VELOCITY.env_id, "maml", {0: -129.53, 1: -78.57, 2: -66.62, 3: -60.78}),
        (VELOCITY.env_id, "random", {0: -254.83, 1: -254.33, 2: -246.79, 3: -230.83}),
        ("finn2017/HalfCheetahDir-v0", "oracle", {0: 442.69}),
        ("maml_rl.envs:finn2017/AntDir-v0", "pretrained", {0: 3.16, 1: 1.27, 2: 6.51, 3: 6.86}),
        ("maml_rl.envs:finn2017/AntVel-v0", "maml", {0: 30.58, 1: 96.74, 2: 100.06, 3: 101.41}),
    ],
)
def test_the_papers_returns_are_known(env_id, method, expected):
    found = published(RLConfig(env_id=env_id), method=method)
    assert {step: value.value for step, value in found.items()} == expected


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "maml_rl.envs:rothfuss2019/HalfCheetahVel-v0", "HalfCheetahVel-v0", ""]
)
def test_the_papers_returns_belong_to_its_own_environments_only(env_id):
    assert published(RLConfig(env_id=env_id)) == {}


def test_what_the_paper_does_not_report_has_no_values():
    assert published(NAVIGATION, method="nothing") == {}
    assert published(NAVIGATION, "5-shot") == {}
    assert published(PRESETS["sinusoid"].config, "10-shot") == {}


def test_a_value_comes_with_its_error_if_one_is_published():
    assert published(NAVIGATION, method="oracle") == {0: PublishedValue(-2.29, 0.07)}
    assert published(PRESETS["sinusoid"].config, "5-shot")[1] == PublishedValue(0.67, None)
    omniglot = PRESETS["omniglot-20way-5shot"].config
    assert published(omniglot, "5-shot, transductive BN") == {5: PublishedValue(0.989, 0.002)}
    assert published(omniglot, "5-shot, support BN") == {}


def test_the_method_is_that_of_the_settings():
    assert published(PRESETS["sinusoid-pretrained"].config, "5-shot")[10].value == 2.19
    mini, condition = PRESETS["mini-imagenet-5way-1shot"].config, "1-shot, transductive BN"
    assert published(mini, condition)[10].value == 0.4870
    assert published(replace(mini, meta=replace(mini.meta, first_order=True)), condition)[10].value == 0.4807


def test_the_papers_fully_connected_network_has_its_own_values():
    omniglot, condition = PRESETS["omniglot-5way-1shot"].config, "1-shot, transductive BN"
    network = replace(omniglot.network, architecture="fully-connected")
    assert published(omniglot, condition)[3].value == 0.987
    assert published(replace(omniglot, network=network), condition)[3].value == 0.897
    assert published(replace(omniglot, network=replace(network, hidden_sizes=(8,))), condition) == {}


def test_every_environment_of_the_paper_has_four_methods():
    for name in ("navigation", "half-cheetah-dir", "half-cheetah-vel", "ant-dir", "ant-vel"):
        config = PRESETS[name].config
        assert paper_task(config.env_id) == name
        for method in ("maml", "pretrained", "random"):
            assert len(published(config, method=method)) == (5 if name == "navigation" else 4)
        assert published(config, method="oracle").keys() == {0}


# Tasks

NAMES = ("navigation", "half-cheetah-dir", "half-cheetah-vel", "ant-dir", "ant-vel")


@pytest.mark.parametrize("name", NAMES)
def test_there_are_40_tasks_of_the_environments_own_space(name):
    env_id = PRESETS[name].config.env_id
    tasks = paper_tasks(env_id)
    with closing(vectorize(env_id, 1)) as envs:
        space = task_space(envs)
    assert len(tasks) == 40
    assert all(space.contains(task) for task in tasks)


def test_the_papers_tasks_have_the_known_properties():
    navigation, cheetah_dir, cheetah_vel, ant_dir, ant_vel = (
        paper_tasks(PRESETS[name].config.env_id) for name in NAMES
    )
    # A point that stays at the origin for 100 steps scores -40.1 on the paper's goals.
    assert -100 * np.linalg.norm(navigation, axis=1).mean() == pytest.approx(-40.1, abs=0.05)
    assert np.mean(cheetah_vel) == pytest.approx(0.92, abs=0.005)  # m/s
    assert sum(cheetah_dir) == 18  # forward
    assert sum(ant_dir) == 20
    # One stream of uniform numbers: the same goals up to the scale, and forward from 1 m/s on.
    np.testing.assert_allclose(np.array(ant_vel) / 3, np.array(cheetah_vel) / 2, rtol=1e-6)
    np.testing.assert_array_equal(cheetah_dir, np.ravel(cheetah_vel) >= 1.0)


def test_the_global_generator_is_not_touched():
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.RandomState(5).uniform()
    paper_tasks(NAVIGATION.env_id)
    assert np.random.uniform() == expected  # noqa: NPY002


@pytest.mark.parametrize(
    "env_id", ["maml_rl.envs:rothfuss2019/HalfCheetahVel-v0", "maml_rl.envs:finn2017/AntGoal-v0", "My-v0"]
)
def test_the_paper_has_no_tasks_of_another_environment(env_id):
    with pytest.raises(InputError, match=f"the paper has no tasks of {env_id}, only of .*leave out --tasks paper") as e:
        paper_tasks(env_id)
    assert "\n" not in str(e.value)
