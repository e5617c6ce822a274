"""PPO of Stable-Baselines3 as a baseline: real learning on small problems."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from maml_rl.checkpoint import load_checkpoint, save_checkpoint
from maml_rl.errors import InputError
from maml_rl.experiments.paper import sb3_baselines as script
from maml_rl.experiments.runs.ppo_baselines import Point, PPOTraining, env_steps_to_reach, from_scratch, oracle
from maml_rl.run import CHECKPOINT

BANDIT = "maml_rl.envs:duan2016/BernoulliBandit-v0"
NAVIGATION = Path(__file__).parents[3] / "trained" / "navigation"
ARMS = np.array([0.1, 0.1, 0.9, 0.1, 0.1], np.float32)


def test_ppo_from_scratch_learns_its_task():
    """An episode is ten pulls: 10 (0.1 * 4 + 0.9) / 5 = 2.6 at random, 9 at best."""
    points = list(from_scratch(BANDIT, ARMS, PPOTraining(6000, every=4096, episodes=100)))
    assert [point.env_steps for point in points] == [0, 4096, 6144]  # whole updates of 2048
    assert all(point.returns.shape == (1, 100) for point in points)
    assert points[0].returns.mean() == pytest.approx(2.6, abs=0.5)
    assert points[-1].returns.mean() > 3.5  # on its way: six standard errors above


def test_the_oracle_learns_from_observing_the_task():
    """Whoever does not know the goal does best to stay at the origin, 0.38 away on average: -38 in 100 steps."""
    points = list(oracle("maml_rl.envs:finn2017/Navigation2D-v0", 20, PPOTraining(8192, every=8192, episodes=5)))
    assert all(point.returns.shape == (20, 5) for point in points)
    assert points[0].returns.mean() < -38
    assert points[-1].returns.mean() > -33


def test_the_same_seed_gives_the_same_curve():
    first, same, other = (list(from_scratch(BANDIT, ARMS, PPOTraining(2048, 2048, 5, seed))) for seed in (0, 0, 1))
    for a, b, c in zip(first, same, other, strict=True):
        np.testing.assert_array_equal(a.returns, b.returns)
        assert not np.array_equal(a.returns, c.returns)


@pytest.mark.parametrize("settings", [(0, 2048, 5), (2048, 0, 5), (2048, 2048, 0)])
def test_training_lengths_below_one_are_refused(settings):
    with pytest.raises(InputError, match="at least 1"):
        next(from_scratch(BANDIT, ARMS, PPOTraining(*settings)))


def test_the_first_evaluation_that_reaches_a_target_counts():
    points = [Point(steps, np.full((1, 2), value)) for steps, value in ((0, -1.0), (10, 3.0), (20, 2.0), (30, 5.0))]
    assert [env_steps_to_reach(points, target) for target in (-1, 2, 4, 6)] == [0, 10, 30, None]


def test_the_script_writes_the_curve_next_to_the_adaptation(tmp_path, capsys):
    out = tmp_path / "new" / "curve"
    arguments = ["from-scratch", str(NAVIGATION), "--task=0.3,-0.2", "--env-steps=2048", "--out", str(out)]
    script.main(arguments)
    assert "env step 0/2,048: return" in capsys.readouterr().err
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["task"] == pytest.approx([0.3, -0.2])
    assert record["curve"]["env_steps"] == [0, 2048]
    assert record["adapted"]["env_steps"][0] == 0
    assert record["adapted"]["env_steps"][1] == 4000  # 40 episodes of 100 steps: unadapted, none reaches the goal
    assert record["env_steps_to_reach"][1] is None  # -4 is out of reach in one update
    with out.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean_return"]) for row in rows] == record["curve"]["mean_return"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_script_has_the_time_limit_of_the_run(tmp_path, capsys):
    checkpoint = load_checkpoint(NAVIGATION / CHECKPOINT)
    checkpoint.record["config"]["max_episode_steps"] = 5
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / CHECKPOINT, checkpoint)
    out = tmp_path / "curve"
    for method in ("from-scratch", "oracle"):
        script.main([method, str(tmp_path / "run"), "--env-steps=2048", "--every=2048", "--out", str(out / method)])
        returns = json.loads((out / f"{method}.json").read_text())["curve"]["mean_return"]
        assert min(returns) > -10  # of 5 steps, each at most about 1 away; of 100 steps, below -38
    err = capsys.readouterr().err
    assert re.search(r"goal \(.*\): MAML\n", err)


def test_a_curve_is_not_replaced_by_that_of_another_task(tmp_path):
    curve = {"env_steps": [0], "mean_return": [2.6], "standard_error": [0.1]}
    record = {"env_id": BANDIT, "method": "from-scratch", "task": 1, "seed": 0, "curve": curve}
    script.check_same(record, tmp_path / "curve")
    (tmp_path / "curve.json").write_text(json.dumps(record))
    script.check_same(record, tmp_path / "curve")
    with pytest.raises(InputError, match=r"curve.json has task 1, this would have 0: give another --out"):
        script.check_same({**record, "task": 0}, tmp_path / "curve")


def test_the_script_measures_the_oracle(tmp_path):
    out = tmp_path / "curve"
    script.main(["oracle", str(NAVIGATION), "--env-steps=1", "--out", str(out)])
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["method"] == "oracle"
    assert record["curve"]["env_steps"] == [0, 2048]
    assert min(record["curve"]["standard_error"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["from-scratch", "nowhere"], "no checkpoint"), (["oracle", str(NAVIGATION), "--env-steps=0"], "at least 1")],
)
def test_the_script_refuses_what_it_cannot_use(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        script.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_hostile_record_is_refused_in_one_line(tmp_path, check_reader):
    curve = {"env_steps": [10, 20], "mean_return": [1.0, 2.0], "standard_error": [0.1, 0.2]}
    adapted = {"env_steps": [0, 5], "mean_return": [1.0, 3.0]}
    record = {"env_id": "a:B-v0", "method": "oracle", "seed": 0, "task": [1], "curve": curve, "adapted": adapted}
    check_reader(tmp_path / "sb3-oracle.json", record | {"env_steps_to_reach": [10, None]}, script.read_learner)
