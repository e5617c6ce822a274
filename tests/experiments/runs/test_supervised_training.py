"""Supervised runs: what they leave behind, that no interruption changes them, and what the command says."""

import csv
import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import maml_rl.experiments.runs.supervised_training
from maml_rl.checkpoint import load_checkpoint, save_checkpoint
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.experiments.media.plots import read_log
from maml_rl.experiments.presets.supervised_presets import PRESETS
from maml_rl.experiments.runs.provenance import MACHINES
from maml_rl.experiments.runs.records import from_record
from maml_rl.experiments.runs.run import CHECKPOINT, CONFIG, METRICS
from maml_rl.experiments.runs.run import load_config as load_policy_config
from maml_rl.experiments.runs.supervised_run import (
    EvaluationConfig,
    SupervisedConfig,
    load_config,
    load_run,
    save_run,
    without_moments,
)
from maml_rl.experiments.runs.supervised_training import resume, train
from maml_rl.seeding import Phase
from maml_rl.supervised.config import MethodConfig
from maml_rl.supervised.few_shot import FewShot
from maml_rl.supervised.networks import ModelConfig
from maml_rl.supervised.sources import TasksConfig, task_source, training_batches

ROOT = Path(__file__).parents[3]
SHRUNK = SupervisedConfig(
    TasksConfig("sinusoid", shots=4, queries=4),
    iterations=12,
    log_every=4,
    checkpoint_every=5,
    method=MethodConfig(
        meta_batch_size=3, inner_steps=2, learned_lr="layer-and-step", multi_step_iterations=6, cosine_iterations=12
    ),
    model=ModelConfig("mlp", hidden_sizes=(6, 6)),
    evaluation=EvaluationConfig(tasks=4, gradient_steps=2, shots=(4, 2)),
)
COLUMNS = {"iteration", "loss/before", "loss/after", "meta/gradient_norm", "time/seconds", "time/iteration_seconds"}


def rows(out: Path) -> list[dict[str, str]]:
    with (out / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(out: Path) -> list[dict[str, str]]:
    """Rows as they are written, to the last digit, without what a clock measured."""
    return [{name: text for name, text in row.items() if not name.startswith("time/")} for row in rows(out)]


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(out / CHECKPOINT).tensors


def same_tensors(left: Path, right: Path) -> bool:
    (a, b) = tensors(left), tensors(right)
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def interrupt_at(monkeypatch, number: int, error: BaseException) -> None:
    """Raises an error in place of the n-th meta-iteration."""
    original, calls = maml_rl.experiments.runs.supervised_training.meta_iteration, []

    def counting(*arguments):
        calls.append(None)
        if len(calls) == number:
            raise error
        return original(*arguments)

    monkeypatch.setattr(maml_rl.experiments.runs.supervised_training, "meta_iteration", counting)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """A run of twelve iterations. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train(SHRUNK, out, threads=1)
    return out


def test_a_run_directory_has_the_layout_of_reinforcement_learning(uninterrupted):
    names = {path.name for path in uninterrupted.iterdir()}
    assert names == {CONFIG, CHECKPOINT, METRICS, MACHINES, "tensorboard", ".lock"}
    record = json.loads((uninterrupted / CONFIG).read_text())
    assert from_record(SupervisedConfig, record) == SHRUNK
    config, progress = load_config(uninterrupted)
    assert (config, progress.iteration) == (SHRUNK, 12)


def test_a_row_is_the_mean_of_its_iterations(uninterrupted, tmp_path):
    written = rows(uninterrupted)
    assert [int(row["iteration"]) for row in written] == [4, 8, 12]
    assert all(row.keys() == COLUMNS and all(math.isfinite(float(x)) for x in row.values()) for row in written)
    train(replace(SHRUNK, log_every=1), tmp_path / "every", threads=1)
    single = [float(row["loss/after"]) for row in rows(tmp_path / "every")]
    assert float(written[1]["loss/after"]) == pytest.approx(sum(single[4:8]) / 4)


def test_every_metric_is_explained(uninterrupted):
    text = (ROOT / "docs" / "metrics.md").read_text()
    for name in [*rows(uninterrupted)[0], "accuracy/before", "accuracy/after"]:
        assert f"`{name}`" in text, name


def test_the_same_seed_gives_the_same_run_and_another_seed_another(uninterrupted, tmp_path):
    torch.manual_seed(7)
    train(SHRUNK, tmp_path / "same", threads=2)
    assert same_tensors(tmp_path / "same", uninterrupted)
    assert timeless(tmp_path / "same") == timeless(uninterrupted)
    train(replace(SHRUNK, seed=1), tmp_path / "other", threads=1)
    assert not same_tensors(tmp_path / "other", uninterrupted)


@pytest.mark.parametrize("number", [1, 4, 8])
def test_ctrl_c_saves_and_the_run_goes_on_bit_for_bit(uninterrupted, tmp_path, monkeypatch, number):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        interrupt_at(patched, number, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(SHRUNK, out, threads=1)
    assert load_config(out)[1].iteration == number - 1
    resume(out, threads=1)
    assert same_tensors(out, uninterrupted)
    assert timeless(out) == timeless(uninterrupted)


def test_a_killed_run_goes_on_from_its_last_checkpoint(uninterrupted, tmp_path, monkeypatch):
    out, killed = tmp_path / "run", tmp_path / "killed"
    with monkeypatch.context() as patched:
        interrupt_at(patched, 10, NonFiniteError("killed"))  # nothing is saved
        with pytest.raises(NonFiniteError):
            train(SHRUNK, out, threads=1)
    shutil.copytree(out, killed)
    assert load_config(killed)[1].iteration == 5
    resume(killed, threads=1)
    assert same_tensors(killed, uninterrupted)
    assert timeless(killed) == timeless(uninterrupted)


def test_a_run_that_is_extended_is_the_longer_run(uninterrupted, tmp_path):
    out = tmp_path / "run"
    train(replace(SHRUNK, iterations=6), out, threads=1)
    resume(out, 12, threads=1)
    assert same_tensors(out, uninterrupted)
    assert timeless(out) == timeless(uninterrupted)


def test_divergence_stops_and_names_the_iteration(tmp_path):
    with pytest.raises(NonFiniteError, match="iteration 1: loss/after is not finite"):
        train(replace(SHRUNK, method=replace(SHRUNK.method, inner_lr=1e30)), tmp_path / "run", threads=1)
    assert all(value.isfinite().all() for value in tensors(tmp_path / "run").values())


def test_a_run_that_began_in_the_same_directory_meanwhile_is_kept(tmp_path, monkeypatch):
    original = maml_rl.experiments.runs.supervised_training.new_run

    def slower(config, source):
        monkeypatch.undo()
        train(replace(SHRUNK, iterations=0), tmp_path / "run", threads=1)
        return original(config, source)

    monkeypatch.setattr(maml_rl.experiments.runs.supervised_training, "new_run", slower)
    with pytest.raises(InputError, match="exists: resume it"):
        train(SHRUNK, tmp_path / "run", threads=1)
    assert load_config(tmp_path / "run")[0].iterations == 0


def test_a_meta_batch_depends_on_its_iteration_only():
    source = task_source(SHRUNK.tasks, None)
    batches = training_batches(source, 3, 4, 0)
    passed = [next(batches) for _ in range(7)]
    for iteration in (1, 5):
        again = next(training_batches(source, 3, 4, iteration))
        assert all(torch.equal(a, b) for a, b in zip(again, passed[iteration], strict=True))
    expected = source.batch(3, Phase.TRAINING, range(20, 24))
    assert torch.equal(passed[5].support_x, expected.support_x)


# Kinds of runs


def test_a_run_of_one_kind_is_refused_where_the_other_is_expected(uninterrupted):
    with pytest.raises(InputError, match="is a run of supervised learning"):
        load_policy_config(uninterrupted)
    with pytest.raises(InputError, match="is no run of supervised learning"):
        load_config(ROOT / "trained" / "navigation")


def test_a_run_without_moments_is_evaluated_alike_and_cannot_go_on(uninterrupted, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    save_checkpoint(out / CHECKPOINT, without_moments(load_checkpoint(out / CHECKPOINT)))
    source = task_source(SHRUNK.tasks, None)
    states = [load_run(run, source).state for run in (uninterrupted, out)]
    assert all(torch.equal(value, states[1].meta[name]) for name, value in states[0].meta.items())
    with pytest.raises(InputError, match="holds no moments of Adam"):
        resume(out, 20, threads=1)


def test_a_checkpoint_of_another_network_is_refused(uninterrupted, tmp_path):
    run = load_run(uninterrupted, task_source(SHRUNK.tasks, None))
    save_run(tmp_path, run._replace(config=replace(SHRUNK, model=ModelConfig("mlp", hidden_sizes=(7, 7)))))
    with pytest.raises(InputError, match="does not fit"):
        load_run(tmp_path, task_source(SHRUNK.tasks, None))


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_come_back_from_json(name):
    config = PRESETS[name].config
    assert from_record(SupervisedConfig, json.loads(json.dumps(asdict(config)))) == config


def test_the_published_step_sizes_are_converted_to_a_mean():
    # A sum over the ways, of means over the shots: ways times a mean.
    for name, published in (
        ("omniglot-5way-1shot", 0.4),
        ("omniglot-20way-1shot", 0.1),
        ("mini-imagenet-5way-5shot", 0.01),
    ):
        config = PRESETS[name].config
        assert config.method.inner_lr == pytest.approx(published * config.tasks.ways)


# The command


SMALL = ["--iterations=3", "--method.meta-batch-size=2", "--threads=1"]


def test_the_command_trains_resumes_and_evaluates_a_sinusoid(maml_rl, tmp_path):
    out = tmp_path / "run"
    code, _, err = maml_rl("train", "sinusoid", *SMALL, "--out", out)
    assert code == 0
    assert "iteration 3/3: loss" in err
    code, output, _ = maml_rl("train", "--resume", out, "--iterations", 5, "--threads", 1)
    assert (code, "5 iterations in" in output) == (0, True)
    code, output, _ = maml_rl("evaluate", out, "--tasks", 3, "--threads", 1)
    assert (code, "10-shot error" in output, "5-shot error" in output) == (0, True, True)
    assert {"evaluation.json", "adaptation.png"} <= {path.name for path in out.iterdir()}
    code, output, _ = maml_rl("visualize", out, "--figure", "fits.svg", "--threads", 1)
    assert (code, [line.split(":")[0] for line in output.splitlines()]) == (0, ["report", "figure"])
    assert (out / "report.html").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "fits.svg").read_text()


def images(directory: Path) -> Path:
    """Twelve classes of six images, each class of its own shade."""
    for c in range(12):
        for i in range(6):
            path = directory / f"class{c}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), 15 * c + i).save(path)
    return directory


def test_the_command_trains_on_a_folder_of_images_and_remembers_where_it_is(maml_rl, tmp_path):
    out, data = tmp_path / "run", images(tmp_path / "images")
    options = ["--tasks.family=images", "--tasks.ways=2", "--tasks.colours=grey", "--tasks.image-size=16"]
    options += ["--model.filters=4", "--method.chunk-size=1", "--data", data]
    code, _, err = maml_rl("train", "omniglot-5way-1shot", *SMALL, *options, "--out", out)
    assert (code, "accuracy" in err) == (0, True)
    moved = data.rename(tmp_path / "moved")
    code, _, err = maml_rl("evaluate", out, "--tasks=3", "--json")
    assert (code, str(data) in err, err.count("\n")) == (2, True, 1)
    code, output, _ = maml_rl("evaluate", out, "--tasks=3", "--json", "--data", moved)
    record = json.loads(output)
    assert code == 0
    assert (record["batch_norm"], record["further"][0]["batch_norm"]) == ("transductive", "support")
    assert len(record["mean_accuracy"]) == len(record["gradient_steps"]) == 4
    code, _, _ = maml_rl("train", "--resume", out, "--iterations=4", "--data", moved)
    assert (code, load_config(out)[0].data) == (0, str(moved))


def test_the_classes_of_a_folder_are_divided_as_the_settings_say(tmp_path):
    config = TasksConfig("images", ways=2, shots=1, queries=1, image_size=16, fractions=(0.5, 0.25, 0.25))
    data = str(images(tmp_path / "images"))
    source, other = task_source(config, data), task_source(replace(config, split_seed=1), data)
    assert isinstance(source, FewShot)
    assert isinstance(other, FewShot)
    assert [len(classes) for classes in source.data.classes.values()] == [6, 3, 3]
    assert source.data.classes[Phase.TRAINING].keys() != other.data.classes[Phase.TRAINING].keys()
    with pytest.raises(InputError, match=r"fractions must be three numbers above 0 that add up to 1"):
        task_source(replace(config, fractions=(0.5, 0.5, 0.5)), data)


@pytest.mark.parametrize(
    ("family", "settings", "told"),
    [
        (
            "sinusoid",
            {"ways": 2},
            "ways is a setting of omniglot and mini-imagenet and images, not of the family sinusoid",
        ),
        ("omniglot", {"image_size": 28}, "image_size is a setting of images, not"),
        ("mini-imagenet", {"split": "vinyals"}, "split is a setting of omniglot, not"),
        ("images", {"observe_task": True}, "observe_task is a setting of sinusoid, not"),
        ("images", {"split_seed": -1}, "split_seed must be at least 0"),
    ],
)
def test_settings_of_other_families_are_refused(family, settings, told):
    with pytest.raises(InputError, match=told):
        TasksConfig(family, **settings)


def test_the_command_trains_on_a_function_of_the_users(maml_rl, monkeypatch, tmp_path):
    (tmp_path / "lines.py").write_text(
        "import numpy as np\n"
        "def line(seed, index):\n"
        "    slope, x = np.random.default_rng([seed, index]).standard_normal(), np.linspace(-1, 1, 8)\n"
        "    return x[:5], slope * x[:5], x[5:], slope * x[5:]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--tasks.family=function", "--tasks.function=lines:line", "--out", tmp_path / "run"]
    code, _, _ = maml_rl("train", "sinusoid", *SMALL, *options)
    assert code == 0
    code, output, _ = maml_rl("evaluate", tmp_path / "run", "--tasks=3", "--json")
    assert (code, len(json.loads(output)["mean_squared_error"])) == (0, 11)
    assert (json.loads(output)["shots"], json.loads(output)["further"]) == (5, [])  # as many as the function returned
    code, _, err = maml_rl("evaluate", tmp_path / "run", "--shots", 3)
    assert (code, "leave --shots out" in err) == (2, True)


def test_a_run_is_evaluated_from_within_its_directory(uninterrupted, maml_rl, monkeypatch, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "run")
    shutil.copytree(uninterrupted, tmp_path / "run-pretrained")
    monkeypatch.chdir(tmp_path / "run")
    for place in (".", CHECKPOINT):
        code, output, err = maml_rl("evaluate", place, "--json")
        assert (code, list(json.loads(output)["beside"])) == (0, ["pretrained"]), err


def test_a_training_that_diverges_tells_what_to_lower(maml_rl):
    code, _, err = maml_rl("train", "sinusoid", *SMALL, "--method.inner-lr", "1e30", "--out", "run")
    assert code == 2
    assert "train again with a lower --method.inner-lr or --method.outer-lr" in err


def test_a_row_of_the_log_that_was_cut_off_is_left_out(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "run")
    log = tmp_path / "run" / METRICS
    whole = read_log(log)
    log.write_text(log.read_text()[:-60])
    assert read_log(log) == whole[:-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "RUN"], "is a run of supervised learning"),
        (["adapt", "RUN", "--out", "x.zip"], "is a run of supervised learning"),
        (["evaluate-metaworld", "RUN"], "is a run of supervised learning"),
        (["evaluate", "RUN", "--episodes", "3"], "has no --episodes"),
        (["visualize", "RUN", "--video", "adaptation.webp"], "has no --video"),
        (["visualize", "RUN", "--record"], "has no --record"),
        (["visualize", "RUN", "--figure", "fits.bmp"], "must end in one of .png, .pdf, .svg"),
        (["visualize", "RUN", "--tasks", "0"], "tasks must be at least 1"),
        (["visualize", str(ROOT / "trained/navigation"), "--data", "here"], "has no --data"),
        (["train", "--resume", "RUN", "--processes", "2"], "has no --processes"),
        (["evaluate", str(ROOT / "trained/navigation"), "--shots", "3"], "has no --shots"),
        (["train", "omniglot-5way-1shot", "--data", "absent"], "there is no Omniglot in absent"),
        (["train", "mini-imagenet-5way-1shot", "--data", "absent"], "there is no MiniImagenet in absent"),
        (["train", "sinusoid", "--method.inner-lr", "-1"], "inner_lr must be above 0"),
        (["train", "sinusoid", "--tasks.family", "function"], "needs --tasks.function"),
        (["train", "omniglot-5way-1shot", "--tasks.family", "images"], "the family images needs --data DIR"),
        (["train", "sinusoid", "--tasks.family=function", "--tasks.function=./wave.py:line"], "give module:function"),
        (["train", "sinusoid", "--tasks.family=function", "--tasks.function=math:pi"], "is no function but 3.14"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(uninterrupted, maml_rl, tmp_path, arguments, message):
    given = [str(uninterrupted) if a == "RUN" else a for a in arguments]
    code, output, err = maml_rl(*given)
    assert (output, code, err.count("\n")) == ("", 2, 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_the_presets_are_listed(maml_rl):
    _, output, _ = maml_rl("presets")
    assert set(PRESETS) <= set(output.splitlines())
