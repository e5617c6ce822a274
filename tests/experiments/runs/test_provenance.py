"""The command and the machines of a run."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maml_rl.config import PolicyConfig
from maml_rl.experiments.commands.arguments import Train, parse
from maml_rl.experiments.presets.rl_presets import PRESETS
from maml_rl.experiments.runs import provenance
from maml_rl.experiments.runs.provenance import MACHINES, machine, note_machine, trained_on, training_command
from maml_rl.experiments.runs.run import RunConfig, load_config

NAVIGATION = PRESETS["navigation"].config
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (NAVIGATION, "maml-rl train navigation"),
        (replace(NAVIGATION, seed=3), "maml-rl train navigation --seed 3"),
        (PRESETS["navigation-oracle"].config, "maml-rl train navigation-oracle"),
        (
            replace(NAVIGATION, meta=replace(NAVIGATION.meta, inner_lr=0.2, first_order=True)),
            "maml-rl train navigation --meta.inner-lr 0.2 --meta.first-order",
        ),
        (
            replace(NAVIGATION, policy=replace(NAVIGATION.policy, hidden_sizes=(8, 8))),
            "maml-rl train navigation --policy.hidden-sizes 8 8",
        ),
        (replace(NAVIGATION, observe_task=True), "maml-rl train navigation --observe-task"),
        (
            replace(PRESETS["half-cheetah-dir"].config, policy=PolicyConfig(standardise=False)),
            "maml-rl train half-cheetah-dir --policy.no-standardise --policy.observation-clip 10.0",
        ),
    ],
)
def test_the_command_is_the_shortest_that_gives_the_settings(config, expected):
    assert training_command(config) == expected


@pytest.mark.parametrize(
    "config",
    [
        RunConfig("my_module:My-v0"),
        replace(
            NAVIGATION, seed=5, num_envs=7, checkpoint_every=3, policy=PolicyConfig((), "tanh", observation_clip=4.0)
        ),
        replace(PRESETS["ant-dir"].config, evaluation=replace(NAVIGATION.evaluation, inner_lrs=(0.5, 1e-5))),
    ],
)
def test_the_command_gives_the_settings_back(config):
    _, _, name, *options = shlex.split(training_command(config))
    parsed = parse(Train, options, "maml-rl train", Train(run=PRESETS[name].config, out=Path("out")))
    assert parsed.run == config


def test_the_machine_is_named():
    here = machine(CPU)
    assert here["processor"]
    assert here["cores"] >= 1
    assert here["torch"] == torch.__version__
    json.dumps(here)


def test_a_run_remembers_each_machine_once(tmp_path, monkeypatch):
    assert trained_on(tmp_path) == []
    note_machine(tmp_path, 0, CPU)
    note_machine(tmp_path, 4, CPU)
    assert [noted["from_iteration"] for noted in trained_on(tmp_path)] == [0]
    monkeypatch.setattr(provenance, "_processor", lambda: "another")
    note_machine(tmp_path, 7, CPU)
    assert [noted["from_iteration"] for noted in trained_on(tmp_path)] == [0, 7]
    assert trained_on(tmp_path)[1]["processor"] == "another"
    assert json.loads((tmp_path / MACHINES).read_text()) == trained_on(tmp_path)


TRAINED = Path(__file__).parents[3] / "trained"


@pytest.mark.parametrize("name", ["navigation-seed1", "half-cheetah-dir-seed2"])
def test_the_command_of_a_trained_run_is_that_of_its_table(name):
    assert f"`{training_command(load_config(TRAINED / name)[0])}`" in (TRAINED / "README.md").read_text()
