"""Findings about an environment: each fault separately, in an environment that is right otherwise."""

from collections.abc import Callable, Sequence

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

import maml_rl.envs
from maml_rl.checks import Finding, check_task_env
from maml_rl.envs.batched import BatchedTaskEnv, TaskEnv, TaskMDP
from maml_rl.requirements import NO_TIME_LIMIT
from maml_rl.tasks import make, registration


class Right(gymnasium.Env):
    """A point on a line that should move with the velocity that its task says; nothing is wrong with it."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.task_space = spaces.Box(0.0, 2.0, (1,), np.float32)
        self.task = np.ones(1, np.float32)

    def begin(self) -> np.ndarray:
        return self.np_random.normal(size=2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.goal = self.task
        self.state = self.begin()
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple:
        velocity = action[0]
        self.state += [0.1 * velocity, 0.01]
        return self.state.copy(), float(-abs(velocity - self.goal[0])), False, False, {}


def without_task_space(env: Right) -> None:
    del env.task_space


def without_task(env: Right) -> None:
    del env.task


def task_space_that_is_a_list(env: Right) -> None:
    env.task_space = [0.0, 1.0]


def task_outside(env: Right) -> None:
    env.task = np.array([5.0], np.float32)


def draws_outside(env: Right) -> None:
    env.task_space.sample = lambda: np.array([5.0], np.float32)


def draws_unseeded(env: Right) -> None:
    generator = np.random.default_rng(0)
    env.task_space = Drawing(lambda: generator.uniform(0, 2, 1).astype(np.float32))


class Drawing(spaces.Box):
    """A Box with a custom sample."""

    def __init__(self, draw: Callable[[], np.ndarray]) -> None:
        super().__init__(0.0, 2.0, (1,), np.float32)
        self.draw = draw

    def sample(self, **_: object) -> np.ndarray:
        return self.draw()


def one_task(env: Right) -> None:
    env.task_space = spaces.Discrete(1)
    env.task = np.int64(0)
    env.step = lambda _: (env.state.copy(), 0.0, False, False, {})


def no_json(env: Right) -> None:
    env.task_space = Unwritten(0.0, 2.0, (1,), np.float32)


class Unwritten(spaces.Box):
    """A Box that makes no JSON of its elements."""

    def to_jsonable(self, sample_n: Sequence[np.ndarray]) -> list:
        return list(sample_n)


def observations_in_a_sequence(env: Right) -> None:
    env.observation_space = spaces.Sequence(env.observation_space)


def observation_outside_its_dict(env: Right) -> None:
    env.observation_space = spaces.Dict({"a": env.observation_space, "b": spaces.Discrete(2)})
    env.begin = lambda: {"a": np.zeros(2, np.float32), "b": np.int64(2)}
    env.step = lambda _: (env.begin(), 0.0, False, False, {})


def text_as_actions(env: Right) -> None:
    env.action_space = spaces.Text(3)


def whole_actions(env: Right) -> None:
    env.action_space = spaces.Box(-1, 1, (1,), np.int64)


def pictures(env: Right) -> None:
    env.observation_space = spaces.Box(-np.inf, np.inf, (8, 8, 3), np.float64)
    env.begin = lambda: env.np_random.normal(size=(8, 8, 3))
    env.step = lambda action: (env.state.copy(), float(-abs(action[0] - env.goal[0])), False, False, {})


def degrees(env: Right) -> None:
    env.begin = lambda: 180 * env.np_random.normal(size=2)


def far_away(env: Right) -> None:
    env.begin = lambda: np.array([5e6, 0.0]) + 0.1 * env.np_random.normal(size=2)


def noise_on_a_constant(env: Right) -> None:
    env.step = lambda action: (env.begin(), float(-abs(action[0] - env.goal[0])), False, False, {})
    env.begin = lambda: np.array([env.np_random.normal(), 99.456 + 1e-6 * env.np_random.normal()])


def hardly_varying(env: Right) -> None:
    env.step = lambda action: (env.begin(), float(-abs(action[0] - env.goal[0])), False, False, {})
    env.begin = lambda: np.array([env.np_random.normal(), 1e-5 * env.np_random.normal()])


def sends_no_space(env: Right) -> None:
    env.task_space.unpicklable = lambda: None


def narrow_actions(env: Right) -> None:
    env.action_space = spaces.Box(-0.1, 0.1, (1,), np.float32)


def changed(name: str, change: Callable[[Right, tuple], object]) -> Callable[[Right], None]:
    """A fault in what `reset` or `step` returns."""

    def apply(env: Right) -> None:
        original = getattr(env, name)

        def call(*args: object, **kwargs: object) -> object:
            return change(env, original(*args, **kwargs))

        setattr(env, name, call)

    return apply


def in_result(index: int, value: object) -> Callable[[Right, tuple], tuple]:
    def change(env: Right, result: tuple) -> tuple:
        made = value(env, result[index]) if callable(value) else value
        return (*result[:index], made, *result[index + 1 :])

    return change


def old_reset(env: Right) -> None:
    original = env.reset
    env.reset = lambda **kwargs: original(**kwargs)[0]


def reset_without_seed(env: Right) -> None:
    env.reset = lambda: (env.state, {})


def unseeded_start(env: Right) -> None:
    generator = np.random.default_rng()
    env.begin = lambda: generator.normal(size=2)


def task_without_effect(env: Right) -> None:
    env.step = lambda action: (env.state.copy(), float(action[0]), False, False, {})


def rewarded_at_the_goal_only(env: Right) -> None:
    env.step = lambda action: (*Right.step(env, action)[:1], float(env.state[0] > 100 * env.goal[0]), False, False, {})


def task_one_reset_late(env: Right) -> None:
    original, waiting = env.reset, []

    def reset(**kwargs: object) -> tuple:
        result = original(**kwargs)
        waiting.append(env.goal)
        env.goal = waiting[-2] if len(waiting) > 1 else env.goal
        return result

    env.reset = reset


def task_at_once(env: Right) -> None:
    def step(action: np.ndarray) -> tuple:
        env.state += [0.1 * action[0], 0.01]
        return env.state.copy(), float(-abs(action[0] - env.task[0])), False, False, {}

    env.step = step


def task_drawn_at_reset(env: Right) -> None:
    original = env.reset

    def reset(**kwargs: object) -> tuple:
        env.task = np.array([0.5], np.float32)
        return original(**kwargs)

    env.reset = reset


def read_only_task(env: Right) -> None:
    class ReadOnly(Right):
        task = property(lambda _: np.ones(1, np.float32), lambda *_: None)

    env.__class__ = ReadOnly


def ends_as_termination(env: Right) -> None:
    original, steps = env.reset, []

    def reset(**kwargs: object) -> tuple:
        steps.clear()
        return original(**kwargs)

    def step(action: np.ndarray) -> tuple:
        steps.append(1)
        return (*Right.step(env, action)[:2], len(steps) == 12, False, {})

    env.reset, env.step = reset, step


def task_in_observation(env: Right) -> None:
    env.begin = lambda: np.array([env.np_random.normal(), env.goal[0]])


def task_as_a_linear_function(env: Right) -> None:
    def begin() -> np.ndarray:
        x = env.np_random.normal()
        return np.array([x, 3.0 * env.goal[0] - 0.5 * x])

    env.begin = begin


def crash(env: Right) -> None:
    env.step = lambda _: 1 / 0


def refuses_extreme_actions(env: Right) -> None:
    def step(action: np.ndarray) -> tuple:
        assert abs(action[0]) < 1, "too far"
        return Right.step(env, action)

    env.step = step


FAULTS = [
    (without_task_space, "error", "task_space"),
    (task_space_that_is_a_list, "error", "gymnasium.Space"),
    (without_task, "error", "attribute task"),
    (task_outside, "error", "task is array([5.]"),
    (draws_outside, "error", "which it does not contain"),
    (draws_unseeded, "error", "different tasks from the same seed"),
    (one_task, "warning", "nothing to adapt to"),
    (no_json, "warning", "to_jsonable and a from_jsonable"),
    (read_only_task, "error", "it has to keep the assigned value"),
    (observations_in_a_sequence, "error", "observations have to be numbers that Gymnasium can flatten"),
    (
        observation_outside_its_dict,
        "error",
        "in the part 'b', an observation is np.int64(2), which its space, Discrete(2)",
    ),
    (text_as_actions, "error", "actions have to be in a Box, Discrete, MultiDiscrete or MultiBinary"),
    (whole_actions, "warning", "whose fraction is cut off"),
    (pictures, "warning", "observations have shape (8, 8, 3): the policy is a perceptron"),
    (degrees, "warning", "set network.standardise"),
    (far_away, "warning", "component 0 varies by "),
    (noise_on_a_constant, "warning", "around 99.456, where float32, which policies use, has steps of 7.6e-06"),
    (hardly_varying, "warning", "component 1 hardly varies under random actions (standard deviation "),
    (sends_no_space, "error", "task_space cannot be sent to the processes"),
    (narrow_actions, "warning", "standard deviation of 1"),
    (old_reset, "error", "reset has to return (observation, info), got ndarray"),
    (reset_without_seed, "error", "reset(seed=..., options=...) raised TypeError"),
    (
        changed("step", lambda _, result: (*result[:2], False, {})),
        "error",
        "got 4 values; an environment with Gym's old",
    ),
    (changed("step", in_result(0, lambda _, o: o.astype(np.float32))), "warning", "observations are float32"),
    (changed("step", in_result(0, lambda _, o: o[:1])), "error", "an observation has shape (1,)"),
    (changed("step", in_result(0, lambda _, o: o.tolist())), "error", "observations have to be arrays, got list"),
    (changed("step", in_result(0, lambda _, o: o * np.nan)), "error", "an observation is not finite"),
    (changed("step", in_result(1, lambda _, r: np.array([r]))), "error", "return float(reward)"),
    (changed("step", in_result(1, float("inf"))), "error", "a reward is inf"),
    (changed("step", in_result(2, 0)), "error", "True or False"),
    (changed("step", in_result(4, None)), "error", "info has to be a dict"),
    (unseeded_start, "error", "gave two different episodes"),
    (task_without_effect, "error", "gave the same observations, rewards and ends in 30 random steps: let"),
    (rewarded_at_the_goal_only, "warning", "in 30 random steps, and every reward was 0: if the reward is sparse"),
    (task_one_reset_late, "error", "at the next reset"),
    (task_at_once, "warning", "in the middle of an episode"),
    (task_drawn_at_reset, "error", "reset changes task"),
    (ends_as_termination, "warning", "terminated after exactly 12 steps"),
    (task_in_observation, "warning", "contains the task, in component 1"),
    (task_as_a_linear_function, "warning", "as a linear function"),
    (crash, "error", "step raised ZeroDivisionError: division by zero ("),
    (refuses_extreme_actions, "error", "too far"),
]


def limited(env: gymnasium.Env, steps: int = 30) -> gymnasium.Env:
    env.spec = gymnasium.envs.registration.EnvSpec("RightForTests-v0", max_episode_steps=steps)
    return TimeLimit(env, steps)


def test_an_environment_without_faults_has_no_findings():
    assert check_task_env(limited(Right())) == []


@pytest.mark.parametrize(("fault", "level", "expected"), FAULTS)
def test_a_fault_is_reported_in_one_sentence_with_what_to_do(fault, level, expected):
    env = Right()
    env.reset(seed=0)
    fault(env)
    findings = check_task_env(limited(env))
    assert any(finding.level == level and expected in finding.text for finding in findings), findings
    assert len(set(findings)) == len(findings)
    assert not any("\n" in finding.text for finding in findings)
    if level == "warning":  # a warning does not prevent training
        assert not any(finding.level == "error" for finding in findings), findings


def test_a_task_that_shows_only_late_in_the_episode_is_seen():
    env = Right()
    original = env.step
    env.step = lambda action: (*original(action)[:1], float(env.state[1] > 1.5 + env.goal[0]), False, False, {})
    assert check_task_env(limited(env, steps=800)) == []


NUMBER = spaces.Box(0.0, 2.0, (1,), np.float32)
PARTS = {
    "a dict": (spaces.Dict(a=NUMBER, unused=spaces.Discrete(3)), lambda t: t["a"][0], "task['unused'] has no effect"),
    "a tuple": (spaces.Tuple((NUMBER, spaces.Discrete(3))), lambda t: t[0][0], "task[1] has no effect"),
    "an array": (spaces.Box(0.0, 1.0, (3,), np.float32), lambda t: t[0] + t[2], "task[1] has no effect"),
    "a matrix": (
        spaces.Box(0.0, 1.0, (2, 2), np.float32),
        lambda t: t[0].sum(),
        "task[1, 0], task[1, 1] have no effect",
    ),
    "choices": (spaces.MultiDiscrete([3, 3]), lambda t: t[1], "task[0] has no effect"),
    "inside": (
        spaces.Dict(inner=spaces.Dict(x=NUMBER, y=NUMBER), word=spaces.Text(5)),
        lambda t: t["inner"]["x"][0],
        "task['inner']['y'], task['word'] have no effect",
    ),
    "a graph": (
        spaces.Dict(a=NUMBER, graph=spaces.Graph(NUMBER, None)),
        lambda t: t["a"][0],
        "task['graph'] has no effect",
    ),
    "all used": (spaces.Dict(a=NUMBER, b=spaces.Tuple((NUMBER, NUMBER))), lambda t: (t["a"] + sum(t["b"]))[0], None),
    "one that never varies": (spaces.Dict(a=NUMBER, b=spaces.Discrete(1)), lambda t: t["a"][0], None),
    "one that counts with some tasks only": (
        spaces.Dict(broken=spaces.Discrete(4), strength=NUMBER),
        lambda t: t["strength"][0] if t["broken"] == 2 else float(t["broken"]),
        None,
    ),
}


def with_tasks(space: spaces.Space, value: Callable[[object], float]) -> Right:
    """The right environment with other tasks, of which `value` decides the goal."""
    env = Right()
    env.task_space, env.task, original = space, space.sample(), env.reset

    def reset(**kwargs: object) -> tuple:
        result = original(**kwargs)
        env.goal = np.array([value(env.task)])
        return result

    env.reset = reset
    return env


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_task_that_changes_nothing_is_named(name):
    space, value, expected = PARTS[name]
    findings = check_task_env(limited(with_tasks(space, value)))
    idle = [finding for finding in findings if " no effect: " in finding.text]
    assert [finding.level for finding in idle] == ([] if expected is None else ["warning"])
    assert all(finding.text.startswith(expected) for finding in idle), idle
    assert findings == idle


def test_a_part_of_the_task_that_takes_effect_late_is_seen():
    env = with_tasks(spaces.Dict(now=NUMBER, late=NUMBER), lambda task: task["now"][0])
    original = env.step

    def step(action: np.ndarray) -> tuple:
        observation, reward, *others = original(action)
        return observation, reward + (env.task["late"][0] if env.state[1] > env.start + 6.985 else 0.0), *others

    def begin() -> np.ndarray:
        env.start = env.np_random.normal()
        return np.array([env.np_random.normal(), env.start])

    env.step, env.begin = step, begin
    assert not [f for f in check_task_env(limited(env, steps=700)) if " no effect: " in f.text]


def test_a_part_that_may_decide_a_sparse_reward_is_reported_as_such():
    env = with_tasks(spaces.Dict(mass=NUMBER, goal=NUMBER), lambda task: task["mass"][0])

    def step(action: np.ndarray) -> tuple:
        env.state += [0.1 * action[0] / (1 + env.goal[0]), 0.01]
        return env.state.copy(), float(abs(env.state[0] - 100 * (1 + env.task["goal"][0])) < 0.1) - 1, False, False, {}

    env.step = step
    (finding,) = check_task_env(limited(env))
    assert finding.text.startswith("task['goal'] has no effect: ")
    assert "every reward was -1, so if the reward is sparse, let it show how near the goal is" in finding.text


def test_varying_parts_takes_a_bounded_number_of_steps_however_many_change_nothing():
    space = spaces.Dict({f"part {i}": NUMBER for i in range(40)})
    env, steps = with_tasks(space, lambda task: task["part 0"][0]), []
    original = env.step

    def step(action: np.ndarray) -> tuple:
        steps.append(1)
        return original(action)

    env.step = step
    note, idle, *_ = check_task_env(limited(env, steps=1000))
    assert note == Finding("note", "a task has 40 parts: only 24 of them are checked for an effect")
    assert idle.text.startswith("task['part 1'], task['part 10'], ")
    assert len(steps) < 25_000


class Points(TaskMDP):
    """Points on a line that should be where their task says."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.task_space = spaces.Box(0.0, 2.0, (1,), np.float64)

    def initial(self, generators: Sequence[np.random.Generator]) -> np.ndarray:
        return np.stack([generator.normal(size=1) for generator in generators])

    def transition(self, states: np.ndarray, actions: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        return states + 0.1 * actions

    def observation(self, states: np.ndarray) -> np.ndarray:
        return states

    def reward_terms(self, states: np.ndarray, actions: np.ndarray, next_states: np.ndarray, tasks: np.ndarray) -> dict:
        return {"distance": -np.abs(next_states - tasks)[:, 0]}

    def terminated(self, states: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        return states[:, 0] > 5


class PulledTogether(Points):
    def transition(self, states: np.ndarray, actions: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        return states + 0.1 * actions + 0.01 * (states.mean() - states)


class RewardedTogether(Points):
    def reward_terms(self, states: np.ndarray, actions: np.ndarray, next_states: np.ndarray, tasks: np.ndarray) -> dict:
        return {"distance": np.full(len(states), -np.abs(next_states - tasks).sum())}


class EndedTogether(Points):
    def terminated(self, states: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        return np.full(len(states), bool((states.min() < 0.3) & (states.max() > 0.3)))


class StartedTogether(Points):
    def initial(self, generators: Sequence[np.random.Generator]) -> np.ndarray:
        return generators[0].normal(size=(len(generators), 1))


@pytest.mark.parametrize(
    ("mdp", "expected"),
    [
        (Points, None),
        (PulledTogether, "the observation of step 1 of row 0 differs"),
        (RewardedTogether, "the reward of step 1 of row 0 differs"),
        (EndedTogether, "the end of step 1 of row 0 differs"),
        (StartedTogether, "the first observation of row 1 differs"),
    ],
)
def test_each_row_of_a_batch_has_to_equal_the_single_environment(mdp, expected):
    env_id = "PointsForTests-v0"
    gymnasium.register(
        env_id,
        entry_point=lambda **settings: TaskEnv(mdp(), **settings),
        vector_entry_point=lambda **settings: BatchedTaskEnv(mdp(), **settings),
        max_episode_steps=20,
    )
    try:
        findings = check_task_env(make(env_id))
    finally:
        del gymnasium.registry[env_id]
    assert [expected in finding.text for finding in findings if finding.level == "error"] == (
        [True] if expected else []
    )


def test_a_time_limit_is_required():
    assert Finding("error", NO_TIME_LIMIT) in check_task_env(Right())


def test_the_check_is_repeatable_and_changes_no_space():
    env = Right()
    env.begin = lambda: np.array([env.np_random.normal(), env.goal[0]])
    env.task_space.seed(5)
    expected = env.task_space.sample()
    env.task_space.seed(5)
    first = check_task_env(limited(env))
    assert np.array_equal(env.task_space.sample(), expected)
    assert check_task_env(limited(env)) == first != []


# Dynamics are one class: of each family one robot, in turn.
_FAMILIES: dict[str, list[str]] = {}
for _id, (_, _settings, _) in maml_rl.envs.DYNAMICS.items():
    _FAMILIES.setdefault(_settings["family"], []).append(_id)
DYNAMICS = [ids[number % len(ids)] for number, ids in enumerate(_FAMILIES.values())]


@pytest.mark.parametrize("name", [*maml_rl.envs.DEFINITIONS, *DYNAMICS])
def test_nothing_is_wrong_with_the_registered_environments(name):
    env_id = f"maml_rl.envs:{name}"
    shortened = min(50, registration(env_id).max_episode_steps)  # from 200 or 1000 steps of robots
    findings = check_task_env(make(env_id, max_episode_steps=shortened))
    assert [
        finding for finding in findings if "a policy starts with a standard deviation of 1" not in finding.text
    ] == []
