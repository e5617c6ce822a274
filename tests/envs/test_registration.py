"""Properties of every registered environment, single and batched."""

import re
import subprocess
import sys
import textwrap
from functools import partial

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, flatdim
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_match import check_environments_match
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import maml_rl.envs
from maml_rl.envs.batched import BatchedTaskEnv, TaskEnv
from maml_rl.envs.drawn_tasks import same

# The dynamics share one class, so each robot and nearly each family is here once; tests/maml_rl/test_checks.py has all
# families.
SOME_DYNAMICS = (
    *("HalfCheetahPayload", "HalfCheetahMotorStrength", "HalfCheetahSensorOffset", "AntSlope", "AntDisabledJoint"),
    *("WalkerMixture", "WalkerWeakJoint", "HopperFriction", "HopperActionDelay"),
)
DYNAMICS = {f"maml_rl/{name}-v0": maml_rl.envs.DYNAMICS[f"maml_rl/{name}-v0"] for name in SOME_DYNAMICS}
REGISTERED = {**maml_rl.envs.DEFINITIONS, **DYNAMICS}
IDS = [f"maml_rl.envs:{name}" for name in REGISTERED]
LIMITS = {f"maml_rl.envs:{name}": limit for name, (_, _, limit) in REGISTERED.items()}
with_contact_sensors = pytest.mark.skipif(
    not hasattr(mujoco.mjtSensor, "mjSENS_CONTACT"), reason="the ant's contact forces need MuJoCo 3.3.5"
)


def each_of(env_ids: list[str]) -> pytest.MarkDecorator:
    """A case for each of these ids, skipped where MuJoCo is too old for it."""
    cases = [pytest.param(name, marks=with_contact_sensors if "Ant" in name else ()) for name in env_ids]
    return pytest.mark.parametrize("env_id", cases)


every_id = each_of(IDS)

# Positions and velocities have no bounds, and ProMP's actions go from -10 to 10; the checker warns of both.
wide_actions = pytest.mark.filterwarnings("ignore:.*recommend using a symmetric and normalized space:UserWarning")
unbounded_observations = pytest.mark.filterwarnings(
    "ignore:.*A Box observation space m(in|ax)imum value is -?infinity:UserWarning"
)


def sample_tasks(env_id: str, count: int, seed: int = 0) -> list:
    space = gymnasium.make(env_id).unwrapped.task_space
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def other_task(env_id: str, task: object) -> object:
    return next(t for t in sample_tasks(env_id, 20, seed=3) if not same(t, task))


def random_actions(space: gymnasium.Space, *shape: int, seed: int = 0) -> np.ndarray:
    """Actions of a wide normal distribution, so that many are outside a Box and have to be clipped."""
    if isinstance(space, Discrete):
        return space.start + np.random.default_rng(seed).integers(space.n, size=shape)
    return np.random.default_rng(seed).normal(0, 1.5, (*shape, *space.shape)).astype(np.float32)


class RowOfBatch(gymnasium.Env):
    """Row i of a batch as an environment: the other rows have other seeds, tasks and actions."""

    def __init__(self, env_id: str, num_envs: int, row: int, tasks: list) -> None:
        self.batch = gymnasium.make_vec(env_id, num_envs)
        self.batch.set_attr("task", tasks)
        self.row = row
        self.render_mode = None
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        self.batch.action_space.seed(1)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        seeds = [1000 + i for i in range(self.batch.num_envs)]
        seeds[self.row] = seed
        observations, _ = self.batch.reset(seed=seeds)
        return observations[self.row], {}

    def step(self, action: np.ndarray) -> tuple:
        actions = self.batch.action_space.sample()
        actions[self.row] = action
        observations, rewards, terminated, truncated, infos = self.batch.step(actions)
        i = self.row
        info = {name: float(values[i]) for name, values in infos.items() if not name.startswith("_")}
        return observations[i], float(rewards[i]), bool(terminated[i]), bool(truncated[i]), info


@pytest.fixture
def run_python(tmp_path):
    def run(code: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path, timeout=120
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"

    return run


@every_id
@unbounded_observations
@wide_actions
def test_gymnasiums_environment_checker_finds_no_fault(env_id):
    try:
        check_env(gymnasium.make(env_id).unwrapped)
    except RuntimeError as error:
        if "rendering needs OpenGL" not in str(error):
            raise
        check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)
        pytest.skip(f"no OpenGL for its pictures here: {error}")


@every_id
def test_make_accepts_the_render_mode_that_the_environment_offers(env_id):
    env = gymnasium.make(env_id, render_mode="rgb_array")  # Gymnasium warns of a mode that the class does not list
    assert env.render_mode == "rgb_array"
    assert env.metadata["render_modes"] == ["rgb_array"]
    assert env.metadata["render_fps"] == env.unwrapped.mdp.render_fps


@every_id
def test_make_returns_a_single_environment_and_make_vec_a_batch(env_id):
    env, batch = gymnasium.make(env_id).unwrapped, gymnasium.make_vec(env_id, 3)
    assert isinstance(env, TaskEnv)
    assert isinstance(batch, BatchedTaskEnv)
    assert batch.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert batch.spec.max_episode_steps == LIMITS[env_id]


@every_id
def test_single_and_batched_environments_have_the_same_spaces(env_id):
    env, batch = gymnasium.make(env_id), gymnasium.make_vec(env_id, 3)
    assert batch.single_observation_space == env.observation_space
    assert batch.single_action_space == env.action_space
    assert batch.task_space == env.unwrapped.task_space
    assert batch.get_attr("task_space") == (batch.task_space,) * 3
    assert batch.observation_space.shape == (3, *env.observation_space.shape)
    assert batch.action_space.shape == (3, *env.action_space.shape)


@pytest.mark.parametrize(
    ("env_id", "observation_size", "action_size", "task_space"),
    [
        ("maml_rl.envs:finn2017/Navigation2D-v0", 2, 2, Box(-0.5, 0.5, (2,), np.float32)),
        ("maml_rl.envs:finn2017/HalfCheetahVel-v0", 20, 6, Box(0.0, 2.0, (1,), np.float32)),
        ("maml_rl.envs:finn2017/HalfCheetahDir-v0", 20, 6, Discrete(2)),
    ],
)
def test_spaces_are_those_of_the_definition(env_id, observation_size, action_size, task_space):
    env = gymnasium.make(env_id).unwrapped
    assert env.observation_space == Box(-np.inf, np.inf, (observation_size,), np.float64)
    assert env.action_space == Box(-1.0, 1.0, (action_size,), np.float32)
    assert env.task_space == task_space
    assert flatdim(env.task_space) >= 1  # what an oracle appends to its observation


@every_id
def test_the_first_task_is_in_the_task_space(env_id):
    env, batch = gymnasium.make(env_id).unwrapped, gymnasium.make_vec(env_id, 5)
    assert env.task_space.contains(env.task)
    assert all(batch.task_space.contains(task) for task in batch.task)
    assert len(batch.get_attr("task")) == 5


@every_id
def test_the_first_tasks_are_the_same_in_every_process(env_id):
    batch, again = gymnasium.make_vec(env_id, 5), gymnasium.make_vec(env_id, 5)
    batch.task_space.sample()  # the space that is offered is not the one that the first tasks were drawn from
    np.testing.assert_equal(batch.task, again.task)
    np.testing.assert_equal(gymnasium.make(env_id).unwrapped.task, batch.task[0])


@each_of([env_id for env_id in IDS if "Walker" not in env_id and "Hopper" not in env_id])  # without torques they fall
def test_the_time_limit_truncates_and_does_not_terminate(env_id):
    env, batch = gymnasium.make(env_id), gymnasium.make_vec(env_id, 2)  # their first goals are not at the start
    env.reset(seed=0)
    batch.reset(seed=0)
    for t in range(1, LIMITS[env_id] + 1):
        _, _, terminated, truncated, _ = env.step(np.zeros(env.action_space.shape, np.float32))
        _, _, all_terminated, all_truncated, _ = batch.step(np.zeros(batch.action_space.shape, np.float32))
        assert not terminated
        assert not all_terminated.any()
        assert truncated == (t == LIMITS[env_id])
        assert (all_truncated == truncated).all()


@every_id
def test_the_reward_is_the_sum_of_the_terms_in_info(env_id):
    env, batch = gymnasium.make(env_id), gymnasium.make_vec(env_id, 3)
    env.reset(seed=0)
    batch.reset(seed=0)
    actions = random_actions(env.action_space, 10, 3)
    for t in range(10):
        _, reward, _, _, info = env.step(actions[t, 0])
        _, rewards, ended, _, infos = batch.step(actions[t])
        names = [name for name in infos if not name.startswith("_")]
        assert names
        assert all(name.startswith("reward_") for name in names)
        assert info.keys() == set(names)
        assert reward == pytest.approx(sum(info.values()), abs=1e-12)
        np.testing.assert_allclose(rewards, sum(infos[name] for name in names), rtol=0, atol=1e-12)
        assert all(infos[f"_{name}"].all() for name in names)  # every row ran
        if ended.any():
            break


@every_id
def test_single_environments_equal_their_rows_of_the_batch_exactly(env_id):
    tasks = sample_tasks(env_id, 3, seed=5)
    running, batch = {row: gymnasium.make(env_id) for row in (0, 2)}, gymnasium.make_vec(env_id, 3)
    batch.set_attr("task", tasks)
    observations, _ = batch.reset(seed=7)
    for row, env in running.items():
        env.unwrapped.task = tasks[row]
        np.testing.assert_array_equal(env.reset(seed=7 + row)[0], observations[row])
    for action in random_actions(batch.single_action_space, LIMITS[env_id], 3):
        observations, rewards, all_terminated, all_truncated, infos = batch.step(action)
        for row, env in list(running.items()):
            observation, reward, terminated, truncated, info = env.step(action[row])
            np.testing.assert_array_equal(observation, observations[row])
            assert observation.dtype == observations.dtype
            assert (reward, terminated, truncated) == (rewards[row], all_terminated[row], all_truncated[row])
            assert info == {name: infos[name][row] for name in info}
            if terminated or truncated:
                del running[row]
        if not running:
            break
    assert not running


@every_id
def test_gymnasium_finds_a_single_environment_equal_to_its_row_of_the_batch(env_id):
    tasks = sample_tasks(env_id, 4, seed=5)
    env = gymnasium.make(env_id)
    env.unwrapped.task = tasks[1]
    check_environments_match(env, RowOfBatch(env_id, 4, 1, tasks), num_steps=LIMITS[env_id] + 5, seed=11)


def shown_by_steps(env: gymnasium.Env) -> list[tuple[float, float]]:
    """Sum of the observation by place, and reward, of five steps under half of the largest action."""
    space = env.action_space
    action = (space.high / 2).astype(np.float32) if isinstance(space, Box) else np.zeros(space.shape, np.int64)
    steps = [env.step(action) for _ in range(5)]
    return [
        (float(np.ravel(seen) @ np.arange(1, np.size(seen) + 1)), float(np.ravel(reward)[0]))
        for seen, reward, *_ in steps
    ]


@every_id
def test_a_task_that_is_assigned_takes_effect_at_the_next_reset(env_id):
    old = sample_tasks(env_id, 1)[0]
    new = other_task(env_id, old)

    def shown(task: object) -> list[list[tuple[float, float]]]:
        """What an episode of `task` shows, without any assignment after the reset."""
        env = gymnasium.make(env_id)
        env.unwrapped.task = task
        env.reset(seed=0)
        return [shown_by_steps(env), shown_by_steps(env)]

    assert shown(old) != shown(new)
    for env in (gymnasium.make(env_id), gymnasium.make_vec(env_id, 1)):
        base = env.unwrapped

        def assign(task: object, base: object = base) -> None:
            base.set_attr("task", [task]) if isinstance(base, BatchedTaskEnv) else setattr(base, "task", task)

        assign(old)
        env.reset(seed=0)
        before = shown_by_steps(env)
        assign(new)
        assert [before, shown_by_steps(env)] == shown(old)
        np.testing.assert_array_equal(np.ravel(base.task), np.ravel(new))
        env.reset(seed=0)
        assert [shown_by_steps(env), shown_by_steps(env)] == shown(new)


@every_id
def test_an_assigned_task_can_be_read_back(env_id):
    tasks = sample_tasks(env_id, 3, seed=9)
    env, batch = gymnasium.make(env_id).unwrapped, gymnasium.make_vec(env_id, 3)
    env.task = tasks[2]
    batch.set_attr("task", tasks)
    np.testing.assert_equal(env.task, tasks[2])
    np.testing.assert_equal(batch.get_attr("task"), tuple(tasks))
    batch.set_attr("task", tasks[1])  # one for all
    np.testing.assert_equal(batch.task, [tasks[1]] * 3)
    assert all(batch.task_space.contains(task) for task in batch.task)


@pytest.mark.parametrize("env_id", ["maml_rl.envs:finn2017/Navigation2D-v0", "maml_rl.envs:finn2017/HalfCheetahVel-v0"])
def test_a_task_is_copied_when_it_is_assigned_and_when_it_is_read(env_id):
    batch = gymnasium.make_vec(env_id, 2)
    given = [task.copy() for task in sample_tasks(env_id, 2)]
    expected = np.array(given)
    batch.set_attr("task", given)
    given[0] += 9
    batch.task[0][:] = 9
    np.testing.assert_array_equal(batch.task, expected)


@pytest.mark.parametrize(
    ("env_id", "task"),
    [
        ("maml_rl.envs:finn2017/Navigation2D-v0", np.array([0.6, 0.0], np.float32)),
        ("maml_rl.envs:finn2017/Navigation2D-v0", np.zeros(3, np.float32)),
        ("maml_rl.envs:finn2017/HalfCheetahVel-v0", np.array([-0.1], np.float32)),
        ("maml_rl.envs:finn2017/HalfCheetahVel-v0", np.array([np.nan], np.float32)),
        ("maml_rl.envs:finn2017/HalfCheetahDir-v0", -1),
        ("maml_rl.envs:finn2017/HalfCheetahDir-v0", 2),
        ("maml_rl.envs:finn2017/HalfCheetahDir-v0", "forward"),
    ],
)
def test_a_task_outside_the_task_space_is_refused_in_one_line(env_id, task):
    env, batch = gymnasium.make(env_id).unwrapped, gymnasium.make_vec(env_id, 2)
    good = batch.task
    for assign in (
        lambda: setattr(env, "task", task),
        lambda: batch.set_attr("task", task),
        lambda: batch.set_attr("task", [good[0], task]),
    ):
        with pytest.raises(ValueError, match="not in the task space") as raised:
            assign()
        assert "\n" not in str(raised.value)
        assert str(batch.task_space) in str(raised.value)
    np.testing.assert_array_equal(batch.task, good)  # a refused assignment changes nothing


@every_id
def test_a_wrong_number_of_tasks_is_refused(env_id):
    batch = gymnasium.make_vec(env_id, 3)
    for count in (0, 2, 4):
        with pytest.raises(ValueError, match=f"3 of them, got {count}"):
            batch.set_attr("task", sample_tasks(env_id, count))


@every_id
def test_a_wrong_number_of_seeds_is_refused(env_id):
    batch = gymnasium.make_vec(env_id, 3)
    for count in (0, 2, 4):
        with pytest.raises(ValueError, match=f"3 of them, got {count}"):
            batch.reset(seed=list(range(count)))


@every_id
def test_only_the_task_can_be_set(env_id):
    batch = gymnasium.make_vec(env_id, 2)
    for name in ("goal", "tasks", "task_space"):
        with pytest.raises(AttributeError, match=name):
            batch.set_attr(name, [0, 0])


@every_id
def test_stepping_before_the_first_reset_is_refused(env_id):
    batch = gymnasium.make_vec(env_id, 2)
    with pytest.raises(RuntimeError, match="reset"):
        batch.step(np.zeros(batch.action_space.shape, np.float32))
    with pytest.raises(RuntimeError, match="reset"):
        gymnasium.make(env_id).unwrapped.step(np.zeros(batch.single_action_space.shape, np.float32))


@each_of([env_id for env_id in IDS if "duan2016" not in env_id and "Grid" not in env_id])  # whose actions are Discrete
def test_actions_are_clipped_to_the_action_space(env_id):
    env = gymnasium.make(env_id)
    low, high = env.action_space.low, env.action_space.high
    wide = random_actions(env.action_space, 20) * high
    results = []
    for actions in (wide, np.clip(wide, low, high)):
        env.reset(seed=0)
        results.append([env.step(action) for action in actions])
    for (observation, reward, *_), (clipped_observation, clipped_reward, *_) in zip(*results, strict=True):
        np.testing.assert_array_equal(observation, clipped_observation)
        assert reward == clipped_reward


@every_id
def test_an_action_array_is_not_changed_by_a_step(env_id):
    batch = gymnasium.make_vec(env_id, 3)
    batch.reset(seed=0)
    actions = random_actions(batch.single_action_space, 3)
    before = actions.copy()
    batch.step(actions)
    np.testing.assert_array_equal(actions, before)


@every_id
def test_without_a_render_mode_nothing_is_drawn(env_id):
    env, batch = gymnasium.make(env_id).unwrapped, gymnasium.make_vec(env_id, 2)
    env.reset(seed=0)
    batch.reset(seed=0)
    assert env.render() is None
    assert batch.render() is None


def test_finished_batches_can_be_stepped(run_python):
    # In a separate process: stepping no rows at all must not crash the interpreter.
    ids = [env_id for env_id in IDS if "Ant" not in env_id or hasattr(mujoco.mjtSensor, "mjSENS_CONTACT")]
    run_python(
        f"""
        import sys, gymnasium, numpy as np
        for env_id in {ids!r}:
            print(env_id, file=sys.stderr, flush=True)
            batch = gymnasium.make_vec(env_id, 2, max_episode_steps=1)
            batch.reset(seed=0)
            actions = np.zeros(batch.action_space.shape, np.float32)
            last, _, _, truncated, _ = batch.step(actions)
            assert truncated.all()
            observations, rewards, _, truncated, _ = batch.step(actions)
            assert truncated.all() and (rewards == 0).all() and (observations == last).all()
        """
    )


def check_tasks_of_gymnasiums_vector_environment(vector_env: gymnasium.vector.VectorEnv, env_id: str) -> None:
    """Checks that tasks assigned by `set_attr` decide the rewards, as in our batch with the same tasks."""
    tasks = sample_tasks(env_id, 2, seed=4)
    batch = gymnasium.make_vec(env_id, 2)
    actions = random_actions(batch.single_action_space, 5, 2)
    for env in (vector_env, batch):
        env.set_attr("task", tasks)
    np.testing.assert_equal(vector_env.get_attr("task"), batch.get_attr("task"))
    np.testing.assert_array_equal(vector_env.reset(seed=[3, 4])[0], batch.reset(seed=[3, 4])[0])
    for action in actions:
        observations, rewards, *_ = vector_env.step(action)
        expected_observations, expected_rewards, *_ = batch.step(action)
        np.testing.assert_array_equal(observations, expected_observations)
        np.testing.assert_array_equal(rewards, expected_rewards)


@every_id
def test_tasks_can_be_assigned_through_a_sync_vector_environment(env_id):
    vector_env = SyncVectorEnv([partial(gymnasium.make, env_id)] * 2)
    check_tasks_of_gymnasiums_vector_environment(vector_env, env_id)
    vector_env.close()


def test_tasks_can_be_assigned_through_an_async_vector_environment():
    env_id = "maml_rl.envs:finn2017/Navigation2D-v0"
    # spawn: a fork of a process that has threads can deadlock, and later Pythons warn of it
    vector_env = AsyncVectorEnv([partial(gymnasium.make, env_id)] * 2, context="spawn")
    try:
        check_tasks_of_gymnasiums_vector_environment(vector_env, env_id)
    finally:
        vector_env.close()
    assert not any(process.is_alive() for process in vector_env.processes)


# Names of tasks that a seed of 7 draws, where they are not plain numbers.
NAMES = {
    "nagabandi2019/HalfCheetah": r"b?f?(shin|foot|thigh) disabled",
    "nagabandi2019/Ant": r"(front left|front right|back left) leg crippled",
    "Navigation2D": r"goal \(-?0\.\d\d, -?0\.\d\d\)",
    "Vel": r"goal velocity \d\.\d\d m/s",
    "Dir": r"backward|forward",
    "AntGoal": r"goal \(-?\d\.\d\d, -?\d\.\d\d\) m",
    "GridWorld": r"goal in row \d, column \d",
    "Bandit": r"best arm \d \(\d\.\d\d\)",
    "Payload": r"payload \d\.\d\d kg, place -?0\.\d\d m",
    "MotorStrength": r"motor strength x \((\d\.\d\d, ){5}\d\.\d\d\)",
    "SensorOffset": r"sensor offset \((-?\d\.\d\d, ){5}-?\d\.\d\d\) rad or m",
    "Slope": r"slope -?0\.\d\d rad",
    "MotorGain": r"motor gain x -?\d\.\d\d",
    "DisabledJoint": r"disabled joint (hip|ankle)_\d",
    "ReversedMotor": r"reversed motor (hip|ankle)_\d",
    "WeakJoint": r"weak joint \w+_joint x \d\.\d\d",
    "Friction": r"friction x \d\.\d\d",
    "ActionDelay": r"action delay [0-3] control steps?",
    "Mixture": r"payload \d+\.\d\d kg, friction .*, slope .* rad, motor strength .*, action delay \d control steps?",
}


@every_id
def test_a_task_has_a_readable_name_or_none(env_id):
    mdp = gymnasium.make(env_id).unwrapped.mdp
    (task,) = sample_tasks(env_id, 1, seed=7)
    patterns = [pattern for part, pattern in NAMES.items() if part in env_id]
    if patterns:
        assert re.fullmatch(patterns[0], mdp.task_name(task))
        assert mdp.task_quantity != "task" or "Bandit" in env_id
    else:
        assert mdp.task_name(task) is None


@every_id
def test_poses_are_all_that_a_picture_needs(env_id):
    """A robot's positions, a grid's cell, otherwise the state; a row has the pose of the single environment."""
    batch, env = gymnasium.make_vec(env_id, 2), gymnasium.make(env_id).unwrapped
    with pytest.raises(RuntimeError, match="reset before poses"):
        batch.poses()
    batch.set_attr("task", env.task)  # a grid has its walker start anywhere but at the goal
    batch.reset(seed=[3, 4])
    env.reset(seed=4)
    states = np.stack([batch.state(0), batch.state(1)])
    model = getattr(batch.mdp, "model", None)
    expected = states if model is None else states[:, 1 : 1 + model.nq]
    expected = states[:, :2] if "Grid" in env_id else expected
    np.testing.assert_array_equal(batch.poses(), expected)
    np.testing.assert_array_equal(env._batch.poses()[0], batch.poses()[1])
    batch.poses()[:] = 0.0  # a copy
    np.testing.assert_array_equal(batch.poses(), expected)
