"""RL^2 in a comparison: on the same tasks, by episode, its seeds as one method, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.errors import InputError
from maml_rl.experiments.media.plots import draw_comparison, draw_comparison_figure
from maml_rl.experiments.runs.comparison import compare
from maml_rl.experiments.runs.comparison_files import (
    COMPARISON,
    comparison_remarks,
    comparison_table,
    read_comparison,
    write_comparison,
)
from maml_rl.experiments.runs.provenance import trained_on
from maml_rl.experiments.runs.rl2_files import stored_training
from maml_rl.experiments.runs.training import train
from maml_rl.machine import Machine
from maml_rl.supervised.settings import SupervisedConfig, TasksConfig

pytest.importorskip("sb3_contrib", reason="RL^2 needs the extra rl2")

from maml_rl.experiments.runs.measured_trials import measure_training
from maml_rl.experiments.runs.recurrent_ppo import evaluate_rl2, load_rl2, resume_rl2, train_rl2
from maml_rl.experiments.runs.rl2_settings import RL2Config, Schedule

ONE = Machine(threads=1)
NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
RUN = RLConfig(
    env_id=NAVIGATION,
    iterations=1,
    max_episode_steps=5,
    meta=RLMeta(meta_batch_size=2, episodes=3),
    network=PolicyConfig(hidden_sizes=(8,)),
    evaluation=RLEvaluation(tasks=4, gradient_steps=2, episodes=3, seed=3),
)
TRIALS = RL2Config(NAVIGATION, episodes=2, max_episode_steps=5, units=4, num_envs=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    train(RUN, directory, ONE)
    compare([directory], machine=ONE)
    return directory


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains RL^2 for one update, with these settings."""

    def trained(**settings: object) -> Path:
        directory = tmp_path_factory.mktemp("trials")
        config, schedule = replace(TRIALS, **settings), Schedule(20, 1, 2)
        measure_training(train_rl2(config, schedule, directory), config, schedule, directory)
        return directory

    return trained


@pytest.fixture(scope="module")
def both(trials: Callable[..., Path]) -> list[Path]:
    """Two seeds, the second first."""
    return [trials(seed=1), trials(seed=0)]


def test_seeds_are_one_method_with_its_returns_by_episode_on_the_tasks_of_the_others(run, both, tmp_path):
    comparison = compare([both[0], run, both[1]], machine=ONE)
    maml, rl2 = comparison.methods
    assert (maml.label, rl2.label, rl2.method) == ("maml", "rl2, by episode", "rl2")
    assert [(one.seed, one.env_steps) for one in rl2.runs] == [(0, 20), (1, 20)]
    tasks = [np.float32(task) for task in comparison.tasks]
    for one, directory in zip(rl2.runs, both[::-1], strict=True):
        model, config = load_rl2(directory)
        returns = evaluate_rl2(model, config, tasks, seed=3)
        np.testing.assert_array_equal(one.values[""], returns.T)
        assert one.command.endswith(
            f"{NAVIGATION} --max-episode-steps 5 --units 4 --num-envs 2{' --seed 1' if one.seed else ''} "
            "--env-steps 20 --every 1"
        )
        assert one.seconds == stored_training(directory).seconds > 0
        assert one.machines == trained_on(directory) != []
    (curve,) = rl2.curves
    values = np.array([one.values[""] for one in rl2.runs])
    assert [mean.value for mean in curve.mean] == pytest.approx(values.mean((0, 2)))
    write_comparison(comparison, tmp_path, draw_comparison)
    assert read_comparison(tmp_path / COMPARISON) == comparison
    draw_comparison_figure(comparison, tmp_path / "figure.png")  # where RL^2 has no learning curve
    assert "-" in comparison_table(comparison).splitlines()[-2].split()
    assert comparison_remarks(comparison)[-1] == "rl2: its first, second, ... episode of a task, without gradient steps"


def test_only_as_many_episodes_are_shown_as_others_have_results(run, both):
    comparison = compare([run, both[0]], gradient_steps=0, machine=ONE)
    assert [len(method.curves[0].mean) for method in comparison.methods] == [1, 1]


def test_policies_without_memory_of_other_settings_or_lengths_are_other_methods(run, trials, both):
    longer = trials()
    schedule = Schedule(40, 1, 2)
    measure_training(resume_rl2(longer, schedule), TRIALS, schedule, longer, resumed=True)
    others = [trials(memory=False), trials(lr=0.1), longer]
    labels = [method.label for method in compare([run, both[1], *others], machine=ONE).methods]
    assert labels == [
        "maml",
        "rl2 (lr 0.001, env_steps 20), by episode",
        "rl2-no-memory, by episode",
        "rl2 (lr 0.1, env_steps 20), by episode",
        "rl2 (lr 0.001, env_steps 40), by episode",
    ]


def test_what_cannot_be_compared_is_refused_in_one_line(run, trials, both, tmp_path):
    wave = SupervisedConfig(tasks=TasksConfig("sinusoid"), iterations=0)
    train(wave, tmp_path / "wave", ONE)
    cases = {
        "compare needs at least one run of maml-rl train, next to which RL": [both[0]],
        "have the same settings and the same seed, 1: give one of them": [run, both[0], both[0]],
        "max_episode_steps 4, the other runs have 5": [run, trials(max_episode_steps=4)],
        "has env_id maml_rl.envs:duan2016/BernoulliBandit-v0, the other": [
            run,
            trials(env_id="maml_rl.envs:duan2016/BernoulliBandit-v0"),
        ],
        "the others are runs of supervised learning: leave it out": [tmp_path / "wave", both[0]],
    }
    for message, directories in cases.items():
        with pytest.raises(InputError, match=message):
            compare(directories, machine=ONE)


@pytest.mark.usefixtures("quick_pictures")
def test_the_command_takes_directories_of_rl2(run_command, run, both, tmp_path):
    result = run_command("compare", run, both[1], "--out=compared", "--threads=1")
    assert result.code == 0, result.err
    assert f"evaluating {both[1]}" in result.err
    assert any(line.startswith("rl2, by episode ") for line in result.out.splitlines())
    assert [method.label for method in read_comparison(tmp_path / "compared" / COMPARISON).methods][-1] == (
        "rl2, by episode"
    )
    alone = run_command("compare", both[1])
    assert (alone.code, alone.err.count("\n")) == (2, 1)
