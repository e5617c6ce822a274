"""Every command accepts what `maml-rl check` accepts; what a command refuses, the check reports in the same words."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FilterObservation

from maml_rl import reinforcement, tasks
from maml_rl.errors import InputError
from maml_rl.experiments.live.session import Session
from maml_rl.experiments.media.recording import load_recording
from maml_rl.processes import Processes
from maml_rl.task_parts import plain
from maml_rl.tasks import assign_tasks, sample_tasks

pytestmark = pytest.mark.usefixtures("quick_pictures", "quick_critic")

ENVIRONMENTS = Path(__file__).parents[2] / "environments"  # holds space_environments.py
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
NUMBER = spaces.Box(-1.0, 1.0, (1,), np.float32)
TRAIN = (
    "--iterations=1",
    "--meta.meta-batch-size=2",
    "--meta.episodes=2",
    "--network.hidden-sizes",
    "4",
    "--threads=1",
)
EVALUATION = ("--evaluation.tasks=3", "--evaluation.episodes=2", "--evaluation.gradient-steps=1")


class Mission(spaces.Space):
    """A custom Space of sentences."""

    def sample(self, mask: None = None, probability: None = None) -> str:
        return "go to the door"

    def contains(self, x: object) -> bool:
        return isinstance(x, str)


TASKS = {
    "a number": NUMBER,
    "an array": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "integers": spaces.Box(-3, 3, (2,), np.int64),
    "no axis": spaces.Box(-1.0, 1.0, (), np.float32),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float64),
    "Discrete": spaces.Discrete(3, start=-1),
    "MultiBinary": spaces.MultiBinary((2, 2)),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "Text": spaces.Text(4),
    "Dict": spaces.Dict(payload=NUMBER, motors=spaces.MultiDiscrete([2, 3]), surface=spaces.Text(3)),
    "Tuple": spaces.Tuple((NUMBER, spaces.Tuple((spaces.Discrete(3), spaces.Text(2))))),
    "Graph": spaces.Graph(BOX, spaces.Discrete(3)),
    "Sequence": spaces.Sequence(NUMBER),
    "stacked Sequence": spaces.Sequence(spaces.Discrete(5), stack=True),
    "OneOf": spaces.OneOf((NUMBER, spaces.Discrete(3), spaces.Text(2))),
    "custom Space": Mission(),
}
OBSERVATIONS = {
    "a picture": spaces.Box(0, 255, (8, 8, 3), np.uint8),
    "a large picture": spaces.Box(0, 255, (60, 60), np.uint8),
    "two axes": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "no axis": spaces.Box(-1.0, 1.0, (), np.float32),
    "integers": spaces.Box(-5, 5, (2,), np.int64),
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Text": spaces.Text(3),
    "Dict": spaces.Dict(place=BOX, battery=spaces.Discrete(2)),
    "Dict with a custom Space": spaces.Dict(image=spaces.Box(0, 255, (3, 3), np.uint8), mission=Mission()),
    "Dict with a picture": spaces.Dict(view=spaces.Box(0, 255, (8, 8), np.uint8), place=BOX),
    "Tuple": spaces.Tuple((BOX, spaces.Discrete(2))),
    "Graph": spaces.Graph(BOX, None),
    "Sequence": spaces.Sequence(NUMBER),
    "OneOf": spaces.OneOf((NUMBER, spaces.Discrete(2))),
    "custom Space": Mission(),
}
NOT_FLATTENED = ("Dict with a custom Space", "Graph", "Sequence", "custom Space")
ACTIONS = {
    "two axes": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    "no axis": spaces.Box(-1.0, 1.0, (), np.float64),
    "unbounded": spaces.Box(-np.inf, np.inf, (1,), np.float32),
    "integers": spaces.Box(-3, 3, (2,), np.int64),
    "Discrete": spaces.Discrete(3),
    "Discrete from 1": spaces.Discrete(3, start=1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Dict": spaces.Dict(a=BOX),
    "Tuple": spaces.Tuple((BOX, spaces.Discrete(2))),
    "Text": spaces.Text(3),
}


@pytest.fixture
def registered(monkeypatch) -> Iterator[Callable[..., str]]:
    """Registers an environment for one test. Commands run it in this process: starting others takes a second each."""
    monkeypatch.syspath_prepend(ENVIRONMENTS)
    vectorize = tasks.vectorize
    monkeypatch.setattr(
        reinforcement, "vectorize", lambda env_id, count, _, *others, **s: vectorize(env_id, count, None, *others, **s)
    )
    env_id = "SpacesForTests-v0"

    def register(limit: int | None = 2, **settings: object) -> str:
        gymnasium.register(env_id, "space_environments:Spaces", max_episode_steps=limit, kwargs=settings)
        return env_id

    yield register
    del gymnasium.registry[env_id]


@pytest.fixture
def batched(monkeypatch) -> Iterator[Callable[..., str]]:
    """Registers an environment that makes its own batch, for one test."""
    monkeypatch.syspath_prepend(ENVIRONMENTS)
    env_id = "StillForTests-v0"

    def register(**settings: object) -> str:
        kwargs = {"mdp": "space_environments:Still"} | settings
        entry_points = {
            "entry_point": "maml_rl.envs.batched:TaskEnv",
            "vector_entry_point": "maml_rl.envs.batched:BatchedTaskEnv",
        }
        gymnasium.register(env_id, max_episode_steps=2, kwargs=kwargs, **entry_points)
        return env_id

    yield register
    del gymnasium.registry[env_id]


class Commands:
    """Runs commands on an environment that was checked first."""

    def __init__(self, run_command: Callable[..., tuple[int, str, str]], env_id: str) -> None:
        self._run_command = run_command
        code, out, _ = run_command("check", env_id, "--json")
        findings = json.loads(out)["findings"]
        self.said = [finding["text"] for finding in findings]
        assert (code == 2) == any(finding["level"] == "error" for finding in findings)
        self.passed = code == 0

    def accepts(self, *arguments: object) -> bool:
        """Whether a command succeeds; otherwise checks that it refuses in the words of the check."""
        code, _, err = self._run_command(*arguments)
        if code == 0:
            return True
        assert code == 2, err
        self.check_reported(err)
        return False

    def check_reported(self, refusal: str) -> None:
        """Checks that a refusal has the words of a finding, which may begin with the name of the command."""
        said = [re.sub("^maml-rl [a-z-]+( --[a-z-]+)? (refuses it|writes no [^:]+): ", "", text) for text in self.said]
        assert any(text in refusal for text in said), (refusal, said)


def every_command(commands: Commands, env_id: str, task: object) -> None:
    """Trains a run and applies every command to it."""
    train = ("train", "navigation", "--env-id", env_id, "--out=run", *TRAIN, *EVALUATION)
    assert commands.accepts(*train) == commands.passed
    if not commands.passed:
        return
    assert commands.accepts("evaluate", "run", "--threads=1")
    assert commands.accepts("compare", "run", "--out=compared", "--threads=1")
    adapted = ("adapt", "run", "--task", json.dumps(plain(task)), "--threads=1")
    if not commands.accepts(*adapted, "--out=adapted.zip"):
        assert commands.accepts(*adapted, "--out=adapted.npz") == any("only .npz" in text for text in commands.said)
    assert commands.accepts("visualize", "run", "--tasks=2", "--threads=1")
    with pytest.raises(InputError) as refusal:  # what the page can show is tested with it
        Session(Path("run"), 1, 2)
    commands.check_reported(str(refusal.value))


@pytest.mark.parametrize("name", TASKS)
def test_every_command_accepts_every_task_space(registered, run_command, name):
    env_id = registered(tasks=TASKS[name])
    commands = Commands(run_command, env_id)
    assert commands.passed, commands.said
    task = sample_tasks(TASKS[name], 3, seed=5)[-1]
    every_command(commands, env_id, task)
    try:
        envs = tasks.vectorize(env_id, 1, observe_task=True)
    except InputError as error:
        commands.check_reported(str(error))
        assert name in ("Graph", "Sequence", "stacked Sequence", "custom Space")
    else:
        assign_tasks(envs, [task])
        assert envs.observation_space.contains(envs.reset(seed=0)[0])


@pytest.mark.parametrize("name", ["an array", "Discrete", "MultiBinary", "MultiDiscrete"])
def test_a_batch_takes_tasks_that_are_arrays_or_integers(batched, run_command, name):
    env_id = batched(tasks=TASKS[name])
    commands = Commands(run_command, env_id)
    assert commands.passed, commands.said
    every_command(commands, env_id, sample_tasks(TASKS[name], 3, seed=5)[-1])


@pytest.mark.parametrize("name", ["Text", "Dict", "Sequence"])
def test_check_and_train_refuse_a_batch_of_other_tasks_in_the_same_words(batched, run_command, name):
    env_id = batched(tasks=TASKS[name])
    checked, trained = run_command("check", env_id), run_command("train", "navigation", "--env-id", env_id, "--out=run")
    assert checked.code == trained.code == 2
    (needs,) = re.findall(r"a batched environment needs spaces whose elements are arrays .*\)", trained.err)
    assert needs.removesuffix(")") in checked.err


def test_check_and_train_refuse_a_batch_whose_observations_are_not_a_box(batched, run_command):
    env_id = batched(observations=spaces.Discrete(3))
    commands = Commands(run_command, env_id)
    assert not commands.passed
    assert not commands.accepts("train", "navigation", "--env-id", env_id, "--out=run", *TRAIN)
    assert "let observation return an array [n, ...] of numbers" in commands.said[0]


@pytest.mark.parametrize("name", ["Navigation2D", "HalfCheetahDir"])
def test_check_finds_nothing_where_every_command_works(run_command, name):
    assert Commands(run_command, f"maml_rl.envs:finn2017/{name}-v0").said == []


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_every_command_accepts_the_observations_that_the_check_accepts(registered, run_command, name):
    env_id = registered(observations=OBSERVATIONS[name])
    commands = Commands(run_command, env_id)
    assert commands.passed == (name not in NOT_FLATTENED)
    every_command(commands, env_id, np.zeros(1))


def test_the_wrapper_that_the_check_suggests_removes_what_cannot_be_flattened(registered, run_command):
    (text,) = Commands(run_command, registered(observations=OBSERVATIONS["Dict with a custom Space"])).said
    assert "'mission' cannot be flattened: remove it with gymnasium.wrappers.FilterObservation" in text
    wrappers = (FilterObservation.wrapper_spec(filter_keys=["image"]),)
    gymnasium.registry["SpacesForTests-v0"].additional_wrappers = wrappers
    assert Commands(run_command, "SpacesForTests-v0").passed


def test_an_environment_without_a_registered_limit_is_trained_with_one_from_the_command_line(registered, run_command):
    env_id = registered(limit=None, steps=2)  # it truncates its own episodes
    commands = Commands(run_command, env_id)
    assert not commands.passed
    train = ("train", "navigation", "--env-id", env_id, "--out=run", *TRAIN, *EVALUATION)
    assert not commands.accepts(*train)
    assert "set max_episode_steps" in commands.said[0]
    limit = "--max-episode-steps=3"
    assert run_command("check", env_id, limit).code == 0
    assert commands.accepts(*train, limit)
    assert commands.accepts("train", "--resume=run", "--iterations=2", "--threads=1")
    assert commands.accepts("evaluate", "run", "--record", "--threads=1")
    assert commands.accepts("compare", "run", "--out=compared", "--threads=1")
    code, out, _ = run_command("adapt", "run", "--out=adapted.zip", "--threads=1")
    assert code == 0
    assert f"gymnasium.make('{env_id}', max_episode_steps=3)" in out
    assert commands.accepts("visualize", "run", "--tasks=3", "--threads=1")
    recording = load_recording(Path("run/recording.npz"))
    assert recording.rewards.shape[-1] == 3
    assert (recording.lengths == 2).all()


def test_runs_of_different_time_limits_are_not_compared(registered, run_command):
    env_id = registered(limit=4)
    for limit in (2, 3):
        own = ("--out", str(limit), f"--max-episode-steps={limit}", "--iterations=0", "--threads=1")
        assert run_command("train", "navigation", "--env-id", env_id, *own).code == 0
    code, _, err = run_command("compare", "2", "3")
    assert code == 2
    assert "2 has max_episode_steps 2, 3 has 3: compare runs of one task distribution, with the same time limit" in err


def test_training_says_once_that_pictures_of_real_numbers_are_flattened(registered, run_command):
    env_id = registered(observations=spaces.Box(0, 1, (8, 8, 3), np.float32))
    train = ("train", "navigation", "--env-id", env_id, "--out=run", *TRAIN)
    code, out, err = run_command(*train)
    assert code == 0
    assert err.count("observations have shape (8, 8, 3): the policy is a perceptron") == 1
    assert "perceptron" not in out
    assert "perceptron" in run_command("check", env_id).out
    assert "return pictures as bytes" in err
    assert "perceptron" not in run_command("train", "--resume=run", "--iterations=2").err


def test_a_task_with_parts_of_every_kind_reaches_an_environment_in_a_worker_process(registered):
    space = spaces.Dict({name: part for name, part in TASKS.items() if name != "custom Space"})
    env_id = registered(tasks=space)
    with closing(tasks.vectorize(env_id, 1, Processes(1))) as envs:
        assert tasks.task_space(envs) == space
        assert tasks.episode_limit(envs) == 2
        task = sample_tasks(space, 1, 0)[0]
        assign_tasks(envs, [task])
        assert plain(envs.get_attr("task")[0]) == plain(task)
        envs.reset(seed=[0])


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_that_the_check_accepts_are_trained_and_exported(registered, run_command, name):
    env_id = registered(actions=ACTIONS[name])
    commands = Commands(run_command, env_id)
    usable = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    assert commands.passed == isinstance(ACTIONS[name], usable)
    train = ("train", "navigation", "--env-id", env_id, "--out=run", *TRAIN, *EVALUATION)
    assert commands.accepts(*train) == commands.passed
    if commands.passed:
        exported = commands.accepts("adapt", "run", "--out=a.zip", "--threads=1")
        assert exported == (name in ("two axes", "no axis", "Discrete", "MultiDiscrete", "MultiBinary"))
