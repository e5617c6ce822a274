"""The commands on supervised tasks: a built-in family, a folder of images and a custom function."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs.training import train
from maml_rl.machine import Machine
from maml_rl.run import CHECKPOINT, load_run
from maml_rl.supervised.settings import NetworkConfig

pytestmark = pytest.mark.usefixtures("quick_pictures")

ROOT = Path(__file__).parents[3]
SMALL = ["--iterations=1", "--meta.meta-batch-size=2", "--threads=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """An untrained run on sinusoids, `run`, with a baseline next to it. No test changes them."""
    preset, out = PRESETS["sinusoid"].config, tmp_path_factory.mktemp("runs")
    small = replace(preset.evaluation, tasks=2, gradient_steps=1, shots=(5,))
    for name in ("run", "run-pretrained"):
        network = NetworkConfig("mlp", hidden_sizes=(4,))
        train(replace(preset, iterations=0, network=network, evaluation=small), out / name, Machine(threads=1))
    return out


def images(directory: Path) -> Path:
    """Twelve classes of six images, each class in its own shade."""
    for c in range(12):
        for i in range(6):
            path = directory / f"class{c}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), 15 * c + i).save(path)
    return directory


def test_a_sinusoid_is_trained_resumed_evaluated_and_shown(run_command, tmp_path):
    out = tmp_path / "run"
    evaluation = ("--evaluation.tasks=3", "--evaluation.gradient-steps=1")
    code, _, err = run_command("train", "sinusoid", *SMALL, *evaluation, "--out", out)
    assert (code, "iteration 1/1: loss" in err) == (0, True)
    code, output, _ = run_command("train", "--resume", out, "--iterations", 2, "--threads", 1)
    assert (code, "2 iterations in" in output) == (0, True)
    code, output, _ = run_command("evaluate", out, "--threads", 1)
    assert code == 0
    assert all(f"{shots}-shot" in output for shots in (5, 10, 20))
    assert {"evaluation.json", "adaptation.png"} <= {path.name for path in out.iterdir()}
    code, output, _ = run_command("visualize", out, "--figure", "fits.svg", "--threads", 1)
    assert (code, [line.split(":")[0] for line in output.splitlines()]) == (0, ["report", "figure"])
    assert "<svg" in (tmp_path / "fits.svg").read_text()


def test_a_meta_learner_lstm_is_trained_resumed_bit_for_bit_and_compared(runs, run_command, tmp_path):
    common = [*SMALL[1:], "--meta.lstm.units=2", "--network.hidden-sizes", 4, "--evaluation.tasks=2"]
    common += ["--evaluation.shots", 5, "--evaluation.gradient-steps=1"]
    for name, iterations in (("whole", 2), ("parts", 1)):
        options = [*common, "--iterations", iterations, "--out", tmp_path / name]
        assert run_command("train", "sinusoid-meta-lstm", *options)[0] == 0
    assert run_command("train", "--resume", tmp_path / "parts", "--iterations", 2, "--threads", 1)[0] == 0
    whole, parts = (load_run(tmp_path / name) for name in ("whole", "parts"))
    assert whole.config.method == "meta-lstm"
    for values, others in ((whole.state.meta, parts.state.meta), (whole.state.optimizer, parts.state.optimizer)):
        assert values.keys() == others.keys()
        assert all(torch.equal(value, others[name]) for name, value in values.items())
    assert run_command("visualize", tmp_path / "whole", "--threads", 1)[0] == 0  # evaluates it as well
    curve = json.loads((tmp_path / "whole" / "evaluation.json").read_text())["curves"][0]
    assert (curve["inner_lr"], len(curve["mean"])) == ([], 2)  # its gates are not step sizes
    runs_and_out = (tmp_path / "whole", runs / "run", "--out", tmp_path / "compared")
    code, output, _ = run_command("compare", *runs_and_out, "--threads", 1)
    assert (code, "meta-lstm" in output) == (0, True)


def test_a_run_on_a_folder_of_images_remembers_where_it_is(run_command, tmp_path):
    out, data = tmp_path / "run", images(tmp_path / "images")
    options = ["--tasks.family=images", "--tasks.ways=2", "--tasks.colours=grey", "--tasks.image-size=16"]
    options += ["--network.filters=4", "--meta.inner-steps=1", "--data", data]
    code, _, err = run_command("train", "omniglot-5way-1shot", *SMALL, *options, "--out", out)
    assert (code, "accuracy" in err) == (0, True)
    moved = data.rename(tmp_path / "moved")
    code, _, err = run_command("evaluate", out, "--tasks=3", "--json")
    assert (code, str(data) in err, err.count("\n")) == (2, True, 1)
    code, output, _ = run_command("evaluate", out, "--tasks=3", "--json", "--data", moved)
    curves = [(curve["quantity"], curve["condition"]) for curve in json.loads(output)["curves"]]
    modes = ("1-shot, transductive BN", "1-shot, support BN")
    assert (code, curves) == (0, [(quantity, mode) for mode in modes for quantity in ("accuracy", "loss")])
    assert str(load_run(out).config.data) == str(data)
    code, _, _ = run_command("train", "--resume", out, "--iterations=1", "--data", moved)
    assert (code, load_run(out).config.data) == (0, str(moved))


def test_a_run_on_a_custom_function_has_as_many_shots_as_it_returns(run_command, tmp_path):
    (tmp_path / "lines.py").write_text(
        "import numpy as np\n"
        "def line(seed, index):\n"
        "    slope, x = np.random.default_rng([seed, index]).standard_normal(), np.linspace(-1, 1, 8)\n"
        "    return x[:5], slope * x[:5], x[5:], slope * x[5:]\n"
    )
    options = ["--tasks.family=function", "--tasks.function=lines:line", "--out", tmp_path / "run"]
    assert run_command("train", "sinusoid", *SMALL, *options).code == 0
    code, output, _ = run_command("evaluate", tmp_path / "run", "--tasks=3", "--json")
    (curve,) = json.loads(output)["curves"]
    assert (code, curve["condition"], len(curve["mean"])) == (0, "5-shot", 11)
    code, _, err = run_command("evaluate", tmp_path / "run", "--shots", 3)
    assert (code, "remove --shots" in err) == (2, True)


def test_a_run_is_evaluated_from_within_its_directory(runs, run_command, monkeypatch):
    monkeypatch.chdir(runs / "run")
    for place in (".", CHECKPOINT):
        code, output, err = run_command("evaluate", place, "--json")
        assert (code, list(json.loads(output)["baselines"])) == (0, ["pretrained"]), err


def test_a_training_that_diverges_says_what_to_lower(run_command):
    code, _, err = run_command("train", "sinusoid", *SMALL, "--meta.inner-lr", "1e30", "--out", "run")
    assert code == 2
    assert "train again with a lower --meta.inner-lr or --meta.step.lr" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adapt", "RUN", "--out", "x.zip"], "RUN is a supervised run: give a run of reinforcement learning"),
        (["evaluate-metaworld", "RUN"], "RUN is a supervised run: give a run of reinforcement learning"),
        (["view", "RUN"], "RUN is a supervised run: give a run of reinforcement learning"),
        (["evaluate", "RUN", "--episodes", "3"], "RUN is a run of supervised learning, which has no --episodes"),
        (["evaluate", "RUN", "--tasks", "paper"], "the paper has no list of its tasks of sinusoid: give --tasks N"),
        (["visualize", "RUN", "--video", "adaptation.webp"], "which has no --video"),
        (["visualize", "RUN", "--record"], "which has no --record"),
        (["visualize", "RUN", "--figure", "fits.bmp"], "must end in one of .png, .pdf, .svg"),
        (["visualize", "RUN", "--tasks", "0"], "tasks must be at least 1"),
        (["train", "--resume", "RUN", "--processes", "2"], "which has no --processes"),
        (["train", "omniglot-5way-1shot", "--data", "absent"], "there is no Omniglot in absent"),
        (["train", "mini-imagenet-5way-1shot", "--data", "absent"], "there is no MiniImagenet in absent"),
        (["train", "sinusoid", "--meta.inner-lr", "-1"], "--meta.inner-lr must be above 0"),
        (["train", "sinusoid", "--tasks.family", "function"], "function must be module:function for the family"),
        (["train", "omniglot-5way-1shot", "--tasks.family", "images"], "the family images needs data, a directory"),
        (["train", "sinusoid", "--tasks.family=function", "--tasks.function=./wave.py:line"], "give module:function"),
        (["train", "sinusoid", "--tasks.family=function", "--tasks.function=math:pi"], "is not a function but 3.14"),
    ],
    ids=" ".join,
)
def test_an_impossible_request_is_refused_in_one_line(runs, run_command, tmp_path, arguments, message):
    run = str(runs / "run")
    code, output, err = run_command(*(run if argument == "RUN" else argument for argument in arguments))
    assert (output, code, err.count("\n")) == ("", 2, 1)
    assert message.replace("RUN", run) in err
    assert list(tmp_path.iterdir()) == []
