"""The command and the machines of a run."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maml_rl.config import SGD, Adam, PolicyConfig, RLConfig, TrustRegion
from maml_rl.experiments.commands.options import parse, value_of
from maml_rl.experiments.commands.train_arguments import NewRun
from maml_rl.experiments.presets import PRESETS, with_rule
from maml_rl.experiments.runs import provenance
from maml_rl.experiments.runs.provenance import MACHINES, machine, note_machine, trained_on, training_command
from maml_rl.run import load_run

NAVIGATION = PRESETS["navigation"].config
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (NAVIGATION, "maml-rl train navigation"),
        (replace(NAVIGATION, seed=3), "maml-rl train navigation --seed 3"),
        (PRESETS["navigation-oracle"].config, "maml-rl train navigation-oracle"),
        (
            replace(
                NAVIGATION, meta=replace(NAVIGATION.meta, inner_lr=0.2, first_order=True, step=TrustRegion(max_kl=0.01))
            ),
            "maml-rl train navigation --meta.inner-lr 0.2 --meta.first-order --meta.step.hessian-fraction 1.0",
        ),
        (
            replace(NAVIGATION, network=replace(NAVIGATION.network, hidden_sizes=(8, 8))),
            "maml-rl train navigation --network.hidden-sizes 8 8",
        ),
        (replace(NAVIGATION, observe_task=True), "maml-rl train navigation --observe-task"),
        (with_rule(NAVIGATION, "adam"), "maml-rl train navigation --meta.step adam"),
        (with_rule(NAVIGATION, "promp"), "maml-rl train navigation --meta.step promp"),
        (
            replace(NAVIGATION, meta=replace(NAVIGATION.meta, step=SGD(lr=0.5), learned_lr="parameter")),
            "maml-rl train navigation --meta.learned-lr parameter --meta.step.lr 0.5 --meta.step sgd",
        ),
        (with_rule(PRESETS["sinusoid"].config, "sgd"), "maml-rl train sinusoid --meta.step sgd"),
        (
            replace(PRESETS["half-cheetah-dir"].config, network=PolicyConfig(standardise=False)),
            "maml-rl train half-cheetah-dir --network.no-standardise --network.observation-clip 10.0",
        ),
    ],
)
def test_the_command_is_the_shortest_that_gives_the_settings(config, expected):
    assert training_command(config) == expected


@pytest.mark.parametrize(
    "config",
    [
        RLConfig(env_id="my_module:My-v0"),
        replace(
            NAVIGATION, seed=5, num_envs=7, checkpoint_every=3, network=PolicyConfig((), "tanh", observation_clip=4.0)
        ),
        replace(PRESETS["ant-dir"].config, evaluation=replace(NAVIGATION.evaluation, inner_lrs=(0.5, 1e-5))),
        replace(NAVIGATION, meta=replace(NAVIGATION.meta, step=Adam(cosine_iterations=9), adapted="last-layer")),
        replace(PRESETS["sinusoid"].config, data="somewhere"),
    ],
)
def test_the_command_gives_the_settings_back(config):
    _, _, name, *options = shlex.split(training_command(config))
    preset = with_rule(PRESETS[name].config, value_of("--meta.step", options)[0])
    assert parse(NewRun, options, "maml-rl train", NewRun(preset)).run == config


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


def test_a_hostile_note_of_machines_is_refused_in_one_line(tmp_path, check_reader):
    def used(path: Path) -> None:
        for noted in trained_on(path.parent):
            assert isinstance(noted["processor"], str)
            assert isinstance(noted["cores"], int)

    note_machine(tmp_path, 3, CPU)
    accelerated = trained_on(tmp_path)[0] | {"accelerator": "H200"}
    check_reader(tmp_path / MACHINES, [*trained_on(tmp_path), accelerated], used, readable=[b"[]"])  # none was noted


TRAINED = Path(__file__).parents[3] / "trained"


@pytest.mark.parametrize("name", ["navigation-seed1", "half-cheetah-dir-seed2"])
def test_the_command_of_a_trained_run_is_that_of_its_table(name):
    assert f"`{training_command(load_run(TRAINED / name).config)}`" in (TRAINED / "README.md").read_text()
