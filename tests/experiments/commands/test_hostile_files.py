"""Every command refuses a damaged file of a run in one line that names it."""

from pathlib import Path

import pytest

from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.experiments.runs.evaluations import EVALUATION
from maml_rl.experiments.runs.provenance import MACHINES
from maml_rl.machine import Machine
from maml_rl.run import CHECKPOINT, new_run, open_learner, save_run

READERS = {
    CHECKPOINT: (["evaluate", "run"], ["compare", "run"], ["adapt", "run", "--out=p.zip"], ["visualize", "run"]),
    EVALUATION: (["compare", "run"], ["adapt", "run", "--out=p.zip"], ["visualize", "run"]),
    MACHINES: (["train", "--resume", "run"],),
}


@pytest.fixture
def run(tmp_path) -> Path:
    """An untrained run, whose evaluation chose the step size of an adaptation."""
    config = RLConfig(
        env_id="maml_rl.envs:finn2017/Navigation2D-v0",
        iterations=0,
        meta=RLMeta(inner_steps=0),
        network=PolicyConfig((4,), standardise=False),
        evaluation=RLEvaluation(tasks=2, gradient_steps=1, episodes=5),
    )
    with open_learner(config, Machine(threads=1)) as learner:
        save_run(tmp_path / "run", new_run(learner, config))
    return tmp_path / "run"


@pytest.mark.parametrize("content", ["nested", "not UTF-8"])
@pytest.mark.parametrize("name", READERS)
def test_every_command_refuses_a_hostile_file_in_one_line(run_command, run, name, content, hostile_content):
    for arguments in READERS[name]:
        (run / name).write_bytes(hostile_content[content])
        result = run_command(*arguments)
        assert (result.code, result.out) == (2, ""), arguments
        assert result.err.startswith("maml-rl: ")
        assert result.err.count("\n") == 1
        assert str(Path("run") / name) in result.err
