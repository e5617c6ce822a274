"""Experts of the gridworld from exact values, and students that imitate them."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maml_rl.envs.gridworld import GridWorld, optimal_values
from maml_rl.errors import InputError
from maml_rl.experiments.paper import gridworld_experts as script
from maml_rl.experiments.presets.rl_presets import RL_PRESETS
from maml_rl.initial import build_policy
from maml_rl.machine import Machine
from maml_rl.reinforcement import make_envs
from maml_rl.run import load_run, open_learner

ONE_THREAD = Machine(threads=1)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts whose fit is short."""
    out = tmp_path_factory.mktemp("runs") / "experts"
    script.make_experts(out, updates=600, temperature=0.5)
    return out


def test_the_targets_are_the_values_of_every_cell_but_the_goal_with_the_task_at_the_end() -> None:
    observations, values = script.targets(GridWorld(), 0.9, 2.0)
    assert observations.shape == (13 * 24, 20 + 13)
    np.testing.assert_array_equal(observations[24 * 3 : 24 * 4, 20:].argmax(1), 3)
    q = optimal_values(GridWorld(), 3, 0.9)
    np.testing.assert_allclose(values[24 * 3 : 24 * 4], np.delete(q, 6, axis=0) / 2, rtol=1e-6)  # its goal is (1, 1)


def test_the_experts_act_by_the_softmax_of_the_values(experts: Path) -> None:
    run, world = load_run(experts), GridWorld()
    assert run.config.method == "oracle"
    with run.open_rl(ONE_THREAD, 1) as learner:
        observations, logits = script.targets(world, 0.99, 0.5)
        kl = torch.softmax(logits, -1) * (
            logits.log_softmax(-1) - learner.policy(run.state.meta, observations).parameters()[0].log_softmax(-1)
        )
    assert float(kl.sum(-1).mean()) < 0.02


def test_a_wide_student_comes_close_to_its_experts_and_a_narrow_one_does_not(experts: Path) -> None:
    config = RL_PRESETS["gridworld-mimic"].config
    step = replace(config.meta.step, lr=0.01, cosine_iterations=12, epsilon=1e-8)  # type: ignore[call-arg]
    imitation = replace(config.imitation, experts=str(experts), minibatch=64, updates=15)
    reached = {}
    for width in (2, 64):
        network = replace(config.network, hidden_sizes=(width,))
        short = replace(config, meta=replace(config.meta, step=step), imitation=imitation, network=network)
        with open_learner(short, ONE_THREAD) as learner:
            state = learner.initial()
            rows = []
            for _ in range(12):
                state, metrics = learner.iterate(state)
                rows.append(metrics.values)
        reached[width] = rows[-1]["mimic/kl"]
        assert rows[0]["mimic/kl"] > 0.3
    assert reached[64] < 0.12  # 0.05 to 0.07 in three seeds
    assert reached[2] > 0.3  # 0.46 to 0.56


def test_numbers_out_of_range_and_non_empty_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="temperature must be above 0"):
        script.make_experts(tmp_path / "new", temperature=0.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="exists"):
        script.make_experts(tmp_path, updates=1)
    with pytest.raises(SystemExit):
        script.main([str(tmp_path)])


def test_the_script_fits_the_experts_and_reports_the_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.main([str(tmp_path / "experts"), "--updates", "3"])
    with closing(make_envs(RL_PRESETS["gridworld-oracle"].config, 1)) as envs:
        before = build_policy(envs, RL_PRESETS["gridworld-oracle"].config.network, 0)
    after = load_run(tmp_path / "experts").state.meta["weight_0"]
    assert not torch.equal(before.get_parameter("weight_0"), after)
    assert "of Q* / 0.2, except for a constant in each cell" in capsys.readouterr().out
