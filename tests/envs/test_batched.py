"""The single and the batched environment of a `TaskMDP`, on processes small enough to know every number."""

from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple

from maml_rl.envs.batched import BatchedTaskEnv, TaskEnv, TaskMDP


class Countdown(TaskMDP):
    """Ends after as many steps as the task says. A state is (steps taken, noise drawn at reset).

    The reward is the number of steps taken, in two terms: action and the rest. Counts the rows that it steps.
    """

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.task_space = Discrete(9, start=1)
        self.rows_stepped = 0

    def initial(self, generators: Sequence[np.random.Generator]) -> np.ndarray:
        return np.array([[0.0, generator.standard_normal()] for generator in generators])

    def transition(self, states: np.ndarray, actions: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        self.rows_stepped += len(states)
        return states + np.array([1.0, 0.0])

    def observation(self, states: np.ndarray) -> np.ndarray:
        return states

    def reward_terms(
        self, states: np.ndarray, actions: np.ndarray, next_states: np.ndarray, tasks: np.ndarray
    ) -> dict[str, np.ndarray]:
        return {"reward_action": actions[:, 0], "reward_rest": next_states[:, 0] - actions[:, 0]}

    def terminated(self, states: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        return states[:, 0] >= tasks


def countdown(*lengths: int, limit: int | None = None) -> BatchedTaskEnv:
    """A batch whose rows end after `lengths` steps, just reset."""
    batch = BatchedTaskEnv(Countdown(), num_envs=len(lengths), max_episode_steps=limit)
    batch.set_attr("task", list(lengths))
    batch.reset(seed=0)
    return batch


def actions(batch: BatchedTaskEnv, value: float = 0.5) -> np.ndarray:
    return np.full(batch.action_space.shape, value, np.float32)


def test_a_finished_row_keeps_its_last_observation_and_flags_and_earns_nothing():
    batch = countdown(2, 5)
    for t in range(1, 5):
        observations, rewards, terminated, truncated, infos = batch.step(actions(batch))
        # Row 0 runs for two steps, then stays where it ended; row 1 runs on. The reward is the number of steps taken.
        np.testing.assert_array_equal(observations[:, 0], [min(t, 2), t])
        np.testing.assert_array_equal(terminated, [t >= 2, False])
        np.testing.assert_array_equal(truncated, [False, False])
        np.testing.assert_array_equal(rewards, [t if t <= 2 else 0, t])
        for name in ("reward_action", "reward_rest"):
            np.testing.assert_array_equal(infos[f"_{name}"], [t <= 2, True])
        np.testing.assert_array_equal(infos["reward_action"], [0.5 if t <= 2 else 0, 0.5])


def test_a_finished_row_is_not_stepped():
    batch = countdown(2, 5, 3)
    for _ in range(5):
        batch.step(actions(batch))
    assert batch.mdp.rows_stepped == 2 + 5 + 3
    _, rewards, terminated, _, _ = batch.step(actions(batch))  # all finished
    assert batch.mdp.rows_stepped == 2 + 5 + 3
    assert terminated.all()
    np.testing.assert_array_equal(rewards, 0.0)


def test_the_action_of_a_finished_row_does_not_matter():
    batch = countdown(1, 5)
    batch.step(actions(batch))
    observations, rewards, *_ = batch.step(np.array([[np.nan], [0.5]]))
    assert np.isfinite(observations).all()
    np.testing.assert_array_equal(rewards, [0.0, 2.0])


def test_the_time_limit_truncates_only_the_rows_that_reach_it():
    batch = countdown(2, 9, 3, limit=3)
    for _ in range(4):
        _, _, terminated, truncated, _ = batch.step(actions(batch))
    # Row 2 reaches its own end and the limit in the same step: both flags.
    np.testing.assert_array_equal(terminated, [True, False, True])
    np.testing.assert_array_equal(truncated, [False, True, True])
    assert batch.mdp.rows_stepped == 2 + 3 + 3


def test_without_a_time_limit_nothing_is_truncated():
    batch = countdown(9)
    for _ in range(9):
        _, _, terminated, truncated, _ = batch.step(actions(batch))
        assert not truncated.any()
    assert terminated.all()


def test_reset_mask_resets_the_rows_it_names_and_leaves_the_others():
    batch = countdown(2, 5, 2)
    for _ in range(3):
        before, *_ = batch.step(actions(batch))
    batch.set_attr("task", [4, 4, 4])
    observations, infos = batch.reset(options={"reset_mask": np.array([True, False, False])})
    assert infos == {}
    assert observations[0, 0] == 0
    np.testing.assert_array_equal(observations[1:], before[1:])
    observations, rewards, terminated, _, _ = batch.step(actions(batch))
    np.testing.assert_array_equal(observations[:, 0], [1, 4, 2])  # row 2 is still finished
    np.testing.assert_array_equal(terminated, [False, False, True])
    np.testing.assert_array_equal(rewards, [1, 4, 0])
    # Row 0 now has the task assigned before its reset; row 1 still has its old one, which ends after 5 steps and not 4.
    _, _, terminated, _, _ = batch.step(actions(batch))
    np.testing.assert_array_equal(terminated, [False, True, True])


def test_a_first_reset_may_leave_rows_idle():
    batch = BatchedTaskEnv(Countdown(), num_envs=3)
    batch.set_attr("task", [9, 9, 9])
    batch.reset(seed=0, options={"reset_mask": np.array([True, False, True])})
    _, rewards, _, _, _ = batch.step(actions(batch))
    assert batch.mdp.rows_stepped == 2
    np.testing.assert_array_equal(rewards, [1, 0, 1])


def test_a_masked_reset_draws_from_the_rows_it_resets_only():
    batch, twin = countdown(9, 9), countdown(9, 9)
    batch.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(batch.reset()[0][1], twin.reset()[0][1])  # row 1's second draw in both


def test_a_seed_of_a_row_that_is_not_reset_is_not_used():
    batch, twin = countdown(9, 9), countdown(9, 9)
    batch.reset(seed=[5, 6], options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(batch.reset()[0][1], twin.reset()[0][1])


@pytest.mark.parametrize("mask", [np.ones(2, np.bool_), np.ones(4, np.bool_), np.ones((3, 1), np.bool_)])
def test_a_reset_mask_of_the_wrong_shape_is_refused(mask):
    batch = countdown(9, 9, 9)
    with pytest.raises(ValueError, match="reset_mask"):
        batch.reset(options={"reset_mask": mask})


def test_the_options_of_a_reset_are_not_changed():
    batch = countdown(9, 9)
    options = {"reset_mask": np.array([True, False])}
    batch.reset(options=options)
    np.testing.assert_array_equal(options["reset_mask"], [True, False])


def test_arrays_returned_earlier_do_not_change():
    batch = countdown(2, 9)
    kept = [batch.reset(seed=1)[0]]
    copies = [kept[0].copy()]
    for _ in range(4):
        observations, rewards, terminated, truncated, infos = batch.step(actions(batch))
        for array in (observations, rewards, terminated, truncated, *infos.values()):
            kept.append(array)
            copies.append(array.copy())
    batch.reset(options={"reset_mask": np.array([True, False])})
    batch.reset()
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_returned_state_is_a_copy():
    batch = countdown(9, 9)
    batch.state(0)[:] = 7.0
    observations, *_ = batch.step(actions(batch))
    assert observations[0, 0] == 1


def test_writing_into_a_returned_observation_does_not_change_the_environment():
    batch = countdown(1, 9)
    observations, *_ = batch.step(actions(batch))
    observations[:] = -5.0  # as code that standardises in place does
    observations, *_ = batch.step(actions(batch))
    np.testing.assert_array_equal(observations[:, 0], [1, 2])


def test_flags_returned_earlier_can_be_written_to():
    batch = countdown(1, 9)
    _, _, terminated, truncated, _ = batch.step(actions(batch))
    terminated[:], truncated[:] = True, True
    batch.step(actions(batch))
    assert batch.mdp.rows_stepped == 3


def noise(batch: BatchedTaskEnv, **reset: object) -> np.ndarray:
    return batch.reset(**reset)[0][:, 1].copy()


def test_reset_noise_differs_between_rows_and_is_reproduced_by_the_seed():
    batch = BatchedTaskEnv(Countdown(), num_envs=5)
    first = noise(batch, seed=3)
    assert len(set(first)) == 5
    np.testing.assert_array_equal(noise(batch, seed=3), first)
    np.testing.assert_array_equal(noise(BatchedTaskEnv(Countdown(), num_envs=5), seed=3), first)
    assert not set(noise(batch, seed=9)) & set(first)


def test_an_integer_seed_counts_up_over_the_rows():
    batch = BatchedTaskEnv(Countdown(), num_envs=3)
    np.testing.assert_array_equal(noise(batch, seed=3), noise(batch, seed=[3, 4, 5]))
    expected = [np.random.default_rng(seed).standard_normal() for seed in (3, 4, 5)]
    np.testing.assert_array_equal(noise(batch, seed=3), expected)


def test_a_reset_without_a_seed_continues_the_generators():
    batch = BatchedTaskEnv(Countdown(), num_envs=2)
    sequence = [noise(batch, seed=3), noise(batch), noise(batch)]
    assert len({value for values in sequence for value in values}) == 6
    again = [noise(batch, seed=3), noise(batch), noise(batch)]
    np.testing.assert_array_equal(sequence, again)


def test_a_seed_may_be_given_to_some_rows_only():
    batch = BatchedTaskEnv(Countdown(), num_envs=2)
    first, second = noise(batch, seed=3), noise(batch)
    np.testing.assert_array_equal(noise(batch, seed=3), first)
    np.testing.assert_array_equal(noise(batch, seed=[3, None]), [first[0], second[1]])


def test_rows_without_a_seed_differ_between_environments():
    assert not set(noise(BatchedTaskEnv(Countdown(), num_envs=3))) & set(noise(BatchedTaskEnv(Countdown(), num_envs=3)))


def test_the_single_environment_uses_its_np_random():
    env = TaskEnv(Countdown())
    observation, _ = env.reset(seed=3)
    assert observation[1] == np.random.default_rng(3).standard_normal()
    assert env.reset()[0][1] != observation[1]
    assert env.reset(seed=3)[0][1] == observation[1]


def test_a_single_environment_that_has_terminated_earns_nothing_more():
    env = TaskEnv(Countdown())
    env.task = 1
    env.reset(seed=0)
    assert env.step(np.zeros(1, np.float32))[1:4] == (1.0, True, False)
    assert env.step(np.zeros(1, np.float32))[1:4] == (0.0, True, False)
    assert env.mdp.rows_stepped == 1


def test_a_single_environment_returns_gymnasiums_types():
    env = TaskEnv(Countdown())
    observation, info = env.reset(seed=0)
    assert isinstance(observation, np.ndarray)
    assert info == {}
    _, reward, terminated, truncated, info = env.step(np.zeros(1, np.float32))
    assert [type(value) for value in (reward, terminated, truncated)] == [float, bool, bool]
    assert {name: type(value) for name, value in info.items()} == {"reward_action": float, "reward_rest": float}


def test_settings_belong_to_a_process_given_by_name():
    with pytest.raises(TypeError, match="module:Class"):
        BatchedTaskEnv(Countdown(), goal="velocity")
    with pytest.raises(TypeError, match="unexpected keyword"):
        BatchedTaskEnv("maml_rl.envs.navigation:Navigation2D", goal="velocity")


def test_spaces_without_a_shape_are_refused():
    class Structured(Countdown):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = Dict({"position": Box(-1, 1, (2,))})

    with pytest.raises(TypeError, match="arrays or integers"):
        BatchedTaskEnv(Structured())


def test_render_names_a_process_that_cannot_be_drawn():
    env = TaskEnv(Countdown(), render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="Countdown"):
        env.render()


def test_closing_twice_is_allowed():
    for env in (
        TaskEnv(Countdown()),
        BatchedTaskEnv(Countdown()),
        gymnasium.make("maml_rl.envs:finn2017/Navigation2D-v0"),
    ):
        env.close()
        env.close()


class Progress(TaskMDP):
    """Moves by its action and rewards the distance moved, so the reward depends on the state before the step."""

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.task_space = Discrete(2)

    def initial(self, generators):
        return np.zeros((len(generators), 1))

    def transition(self, states, actions, tasks):
        return states + actions

    def observation(self, states):
        return states

    def reward_terms(self, states, actions, next_states, tasks):
        return {"reward_progress": (next_states - states)[:, 0]}


def test_a_reward_of_progress_sees_the_state_before_the_step():
    envs = BatchedTaskEnv(Progress(), num_envs=3)
    envs.reset(seed=0)
    # Steps of 0.25 and 0.5 from any position pay 0.25 and 0.5.
    for step in (0.25, 0.5):
        assert envs.step(np.full((3, 1), step))[1].tolist() == [step] * 3


@pytest.mark.parametrize("actions", [np.zeros((3, 2)), np.zeros(3), np.zeros((2, 1))])
def test_actions_of_another_shape_are_refused(actions):
    envs = BatchedTaskEnv(Progress(), num_envs=3)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected actions of shape \(3, 1\)"):
        envs.step(actions)


def test_an_action_that_is_not_finite_is_refused():
    envs = BatchedTaskEnv(Progress(), num_envs=3)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        envs.step(np.array([[0.0], [np.nan], [0.0]]))


class Choice(Progress):
    """Moves by 1, 2 or 3."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Discrete(3, start=1)

    def transition(self, states, actions, tasks):
        return states + actions[:, None]


def test_discrete_actions_reach_the_process_as_integers():
    envs = BatchedTaskEnv(Choice(), num_envs=3)
    envs.reset(seed=0)
    assert envs.step(np.array([1.0, 2.0, 3.0]))[1].tolist() == [1.0, 2.0, 3.0]
    assert envs.step(np.array([3, 2, 1]))[1].tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("action", [0, 4, -1, 1.5])
def test_a_discrete_action_outside_its_space_is_refused(action):
    envs = BatchedTaskEnv(Choice(), num_envs=3)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected actions of Discrete\(3, start=1\)"):
        envs.step(np.array([1, action, 3]))


def test_closing_either_environment_closes_the_mdp():
    closed = []

    class Drawn(Progress):
        def close(self):
            closed.append(self)

    batch, single = BatchedTaskEnv(Drawn(), num_envs=2), TaskEnv(Drawn())
    batch.close()
    single.close()
    assert closed == [batch.mdp, single.mdp]


@pytest.mark.parametrize(
    ("method", "wrong", "named"),
    [
        ("reward_terms", lambda _: {"reward": np.float64(-1.0)}, "reward_terms: reward"),
        ("reward_terms", lambda n: {"reward": np.zeros((n, 1))}, "reward_terms: reward"),
        ("terminated", lambda _: np.bool_(False), "terminated"),
        ("observation", lambda n: np.zeros((n, 5)), "observation"),
        ("observation", lambda _: np.zeros(2), "observation"),
    ],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_method_that_does_not_return_one_value_for_each_row_is_refused(monkeypatch, method, wrong, named, rows):
    batch = countdown(*[5] * rows)
    batch.reset(seed=0)
    monkeypatch.setattr(batch.mdp, method, lambda *_: wrong(rows))
    with pytest.raises(ValueError, match=f"{named}: expected one value for each row"):
        batch.step(actions(batch))


def test_tasks_that_are_not_arrays_are_refused_by_name():
    mdp = Progress()
    for space in (Text(3), Dict({"wind": Tuple([Discrete(2)])})):
        mdp.task_space = space
        with pytest.raises(TypeError, match=r"elements are arrays or integers, not T"):
            BatchedTaskEnv(mdp, num_envs=2)


PARTS = Dict(push=Box(0.0, 1.0, (2,), np.float32), ends=Dict(after=Discrete(9, start=1)))


class Parts(Countdown):
    """A countdown whose task has parts: ends after as many steps as one says, and begins where another one says."""

    def __init__(self) -> None:
        super().__init__()
        self.task_space = PARTS

    def initial_for(self, generators: Sequence[np.random.Generator], tasks: np.ndarray) -> np.ndarray:
        return np.stack([tasks["push"].sum(axis=1) - 1.0, tasks["push"][:, 1]], axis=1)

    def terminated(self, states: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        return states[:, 0] >= tasks["ends"]["after"]


def parts(first: float, second: float, after: int) -> dict:
    return {"push": np.array([first, second], np.float32), "ends": {"after": np.int64(after)}}


def test_a_task_of_parts_reaches_the_process_as_an_array_of_each():
    tasks = [parts(0.5, 0.25, 2), parts(1.0, 0.5, 9), parts(0.75, 0.0, 1)]
    batch = BatchedTaskEnv(Parts(), num_envs=3)
    batch.set_attr("task", tasks)
    np.testing.assert_equal(batch.get_attr("task"), tuple(tasks))
    assert all(PARTS.contains(task) for task in batch.task)
    observations, _ = batch.reset(seed=0)
    np.testing.assert_array_equal(observations, [[-0.25, 0.25], [0.5, 0.5], [-0.25, 0.0]])
    ends = [batch.step(actions(batch))[2].tolist() for _ in range(3)]
    assert ends == [[False, False, False], [False, False, True], [True, False, True]]  # 0.75 < 1; 1.75 < 2; 2.75 >= 2


def test_a_task_of_parts_is_copied_and_waits_for_the_reset_of_its_row():
    batch, given = BatchedTaskEnv(Parts(), num_envs=2), parts(0.5, 0.5, 9)
    batch.set_attr("task", given)
    given["push"] += 9
    batch.task[0]["push"][:] = 9
    np.testing.assert_equal(batch.task, [parts(0.5, 0.5, 9)] * 2)
    batch.reset(seed=0)
    batch.set_attr("task", [parts(1.0, 1.0, 1)] * 2)
    observations, _ = batch.reset(options={"reset_mask": np.array([False, True])})
    np.testing.assert_array_equal(observations, [[0.0, 0.5], [1.0, 1.0]])
    _, _, terminated, _, _ = batch.step(actions(batch))
    assert terminated.tolist() == [False, True]


def test_a_task_of_parts_outside_its_space_is_refused_in_one_line():
    batch = BatchedTaskEnv(Parts(), num_envs=1)
    for task in (parts(2.0, 0.0, 1), parts(0.5, 0.5, 0), {"push": np.zeros(2, np.float32)}, np.zeros(2, np.float32)):
        with pytest.raises(ValueError, match=r"task .* is not in the task space Dict") as raised:
            batch.set_attr("task", [task])
        assert "\n" not in str(raised.value)


def test_a_single_environment_takes_a_task_of_parts():
    env = TaskEnv(Parts())
    env.task = parts(1.0, 0.5, 1)
    np.testing.assert_equal(env.task, parts(1.0, 0.5, 1))
    np.testing.assert_array_equal(env.reset(seed=0)[0], [0.5, 0.5])
    assert env.step(np.zeros(1, np.float32))[2]
