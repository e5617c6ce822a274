"""Several seeds in turn, and settings from a file."""

import json
from pathlib import Path

import pytest

from maml_rl.errors import InputError, NonFiniteError
from maml_rl.experiments.commands import settings_file
from maml_rl.experiments.commands.seeds import seeds_of
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs import training
from maml_rl.run import load_run

pytestmark = pytest.mark.usefixtures("quick_pictures")

SMALL = (
    "--meta.meta-batch-size=2",
    "--meta.episodes=2",
    "--max-episode-steps=5",
    "--network.hidden-sizes=4",
    "--threads=1",
)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-4", [0, 1, 2, 3, 4]), ("3", [3]), ("5,0-1, 7", [5, 0, 1, 7]), ("2-2", [2])],
)
def test_seeds_are_read(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "4-0", "0,0", "0-2,1", "0-1000000000", "1.5", "0--2"])
def test_invalid_seeds_are_refused(text):
    with pytest.raises(InputError, match="--seeds"):
        seeds_of(text)


def test_seeds_are_trained_in_turn_each_as_if_alone(run_command, tmp_path):
    result = run_command("train", "navigation", *SMALL, "--iterations=1", "--seeds=1-2,4")
    assert result.code == 0, result.err
    names = ["navigation-seed1", "navigation-seed2", "navigation-seed4"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert result.out.splitlines()[-1] == f"next: maml-rl compare {' '.join(f'runs/{name}' for name in names)}"
    assert run_command("train", "navigation", *SMALL, "--iterations=1", "--seed=2", "--out=alone").code == 0
    alone, of_seeds = load_run("alone"), load_run("runs/navigation-seed2")
    assert alone.config == of_seeds.config
    assert all(value.equal(of_seeds.state.meta[name]) for name, value in alone.state.meta.items())


def test_seeds_with_out_and_resume_if_exists_resume_existing_runs(run_command, tmp_path):
    given = ("train", "navigation", *SMALL, "--out=my/run", "--resume-if-exists")
    assert run_command(*given, "--iterations=1", "--seeds=0").code == 0
    assert run_command(*given, "--iterations=2", "--seeds=0-1").code == 0
    assert [load_run(tmp_path / f"my/run-seed{seed}").state.iteration for seed in (0, 1)] == [2, 2]


def test_an_existing_directory_is_refused_before_any_seed_begins(run_command, tmp_path):
    (tmp_path / "runs" / "navigation-seed1").mkdir(parents=True)
    (tmp_path / "runs" / "navigation-seed1" / "notes").touch()
    result = run_command("train", "navigation", *SMALL, "--seeds=0-1")
    assert (result.code, result.out) == (2, "")
    assert "runs/navigation-seed1 exists" in result.err
    assert not (tmp_path / "runs" / "navigation-seed0").exists()


def test_the_other_seeds_are_trained_after_one_diverges(run_command, monkeypatch):
    loop = training.training_loop

    def diverging(run, *arguments):
        if run.config.seed == 0:
            raise NonFiniteError("iteration 1: return is not finite")
        return loop(run, *arguments)

    monkeypatch.setattr(training, "training_loop", diverging)
    result = run_command("train", "navigation", *SMALL, "--iterations=1", "--seeds=0-1")
    assert result.code == 2
    assert load_run("runs/navigation-seed1").state.iteration == 1
    assert result.err.splitlines()[-1] == "maml-rl: 1 of 2 runs diverged: runs/navigation-seed0"


def test_seed_and_seeds_together_are_refused(run_command):
    result = run_command("train", "navigation", "--seeds=0-1", "--seed=3")
    assert (result.code, result.out) == (2, "")
    assert "leave one of them out" in result.err


# Settings from a file


TOML = """
preset = "navigation"
iterations = 0
max_episode_steps = 5

[meta]
meta_batch_size = 2
inner_lr = 1
step = { rule = "adam", lr = 0.01 }

[network]
hidden_sizes = [4, 5]
"""


def test_a_file_overrides_a_preset_and_options_override_both(run_command, tmp_path):
    (tmp_path / "run.toml").write_text(TOML)
    result = run_command("train", "--config", "run.toml", "--meta.inner-lr=0.25", "--seed=3", "--threads=1")
    assert result.code == 0, result.err
    config = load_run("runs/navigation-seed3").config
    preset = PRESETS["navigation"].config
    assert (config.meta.meta_batch_size, config.meta.inner_lr, config.max_episode_steps) == (2, 0.25, 5)
    assert (config.meta.step.rule, config.meta.step.lr) == ("adam", 0.01)
    assert config.network.hidden_sizes == (4, 5)
    assert config.meta.episodes == preset.meta.episodes
    assert config.network.standardise == preset.network.standardise


@pytest.mark.parametrize("preset", ["navigation", "sinusoid"])
def test_the_settings_of_a_run_can_be_given_as_a_file(run_command, tmp_path, preset):
    assert run_command("train", preset, "--iterations=0", "--meta.inner-lr=0.125", "--threads=1").code == 0
    assert run_command("train", "--config", f"runs/{preset}/config.json", "--out=again", "--threads=1").code == 0
    assert load_run("again").config == load_run(f"runs/{preset}").config
    (tmp_path / "own.json").write_text(json.dumps({"seed": 4}))
    assert run_command("train", preset, "--config=own.json", "--iterations=0", "--out=third", "--threads=1").code == 0
    assert load_run("third").config.seed == 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("seed = ", "run.toml is not TOML"),
        ("seed = 1", 'begin it with preset = "navigation"'),
        (
            'preset = "navigation"\n[meta]\ninner_l = 1',
            "there is no setting meta.inner_l; perhaps you meant meta.inner_lr",
        ),
        ('preset = "navigation"\nout = "x"', "options such as --out are for the command"),
        ('preset = "navigation"\nseed = "one"', "seed should be an integer"),
        ('preset = "navigation"\n[meta]\ninner_lr = -1', "holds an invalid setting"),
        ('preset = "navigatio"', "there is no preset 'navigatio'; the nearest"),
        ("preset = 3", "preset should be the name of a preset"),
        ('preset = "navigation"\nmeta = 3', "meta should be an object"),
        ('env_id = "maml_rl.envs:finn2017/Navigation2D-v0"\nmeta = {step = {rule = "sgdd"}}', "rule should be one of"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(run_command, tmp_path, content, expected):
    (tmp_path / "run.toml").write_text(content)
    result = run_command("train", "--config=run.toml")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert expected in result.err
    assert not (tmp_path / "runs").exists()


def test_a_missing_file_and_two_presets_are_refused(run_command, tmp_path):
    assert "no.toml" in run_command("train", "--config=no.toml").err
    (tmp_path / "run.toml").write_text('preset = "sinusoid"')
    assert "is for the preset sinusoid" in run_command("train", "navigation", "--config=run.toml").err


@pytest.mark.parametrize("preset", ["navigation", "sinusoid"])
def test_a_damaged_or_hostile_file_is_refused_in_one_line(tmp_path, check_reader, run_command, preset):
    assert run_command("train", preset, "--iterations=0", "--threads=1").code == 0
    example = json.loads(Path(f"runs/{preset}/config.json").read_text())
    check_reader(tmp_path / "own.json", example, lambda path: settings_file.read_settings(path, None), whole=False)
