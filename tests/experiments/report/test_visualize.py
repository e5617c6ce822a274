"""The command that makes reports, videos and figures of a run, and the content of a report."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maml_rl import evaluation as evaluation_module
from maml_rl.checkpoint import write_json
from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.errors import InputError
from maml_rl.experiments.media.charts import Axis, Chart, Series
from maml_rl.experiments.media.recording import RECORDING, load_recording
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.report import player
from maml_rl.experiments.report.page import Fact, Section, html_page
from maml_rl.experiments.report.reporting import Outputs
from maml_rl.experiments.report.reporting import visualize as visualize_run
from maml_rl.experiments.report.svg import svg_figure
from maml_rl.experiments.runs.comparison_files import (
    COMPARISON,
    ComparedRun,
    Comparison,
    Estimate,
    Method,
    MethodCurve,
)
from maml_rl.experiments.runs.evaluations import EVALUATION, PICTURE, Evaluation
from maml_rl.experiments.runs.training import train
from maml_rl.machine import Machine
from maml_rl.run import load_run

pytestmark = pytest.mark.usefixtures("quick_pictures")

TRAINED = Path(__file__).parents[3] / "trained"
ENVIRONMENTS = Path(__file__).parents[2] / "environments"
ONE_THREAD = Machine(threads=1, processes=1, start_method="fork")
MINUS = "\N{MINUS SIGN}"
ANY_RUN = ComparedRun("runs/it", 0, 5, 700, 1.5, [], "maml-rl train navigation", {"": [0.1]}, {"": [[0.0] * 5]})
SMALL = RLConfig(
    env_id="maml_rl.envs:finn2017/Navigation2D-v0",
    iterations=2,
    meta=RLMeta(meta_batch_size=2, episodes=3),
    network=PolicyConfig(hidden_sizes=(8,)),
    evaluation=RLEvaluation(tasks=5, gradient_steps=1, episodes=3, validation_tasks=2, inner_lrs=(0.1,)),
)


@pytest.fixture
def visualize(run_command, monkeypatch, tmp_path) -> Callable[..., Any]:
    """Runs `maml-rl visualize` in this process, in an empty directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: run_command("visualize", *arguments, "--threads=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A small run. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train(SMALL, out, ONE_THREAD)
    return out


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of that run."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


# The command


def test_a_run_without_recording_and_evaluation_gets_both_and_they_are_reused(visualize, run):
    result = visualize(run)
    assert result.code == 0, result.err
    assert f"report: {run / 'report.html'} (" in result.out
    recording = load_recording(run / RECORDING)
    assert (len(recording.tasks), recording.gradient_steps) == (4, 1)
    whole = {name: (run / name).read_bytes() for name in (RECORDING, EVALUATION, "report.html")}
    again = visualize(run)
    assert again.err == ""
    assert {name: (run / name).read_bytes() for name in whole} == whole


def store(run: Path, made: Evaluation) -> None:
    """Stores a made-up evaluation as the current one of a run."""
    there = load_run(run)
    reached = {"iteration": there.state.iteration, "training_seed": there.config.seed}
    write_json(run / EVALUATION, made._replace(**reached, env_steps=there.progress.env_steps).to_json())


def settings_of(run: Path) -> dict[str, Any]:
    """Settings of a run's evaluation."""
    settings: dict[str, Any] = json.loads((run / EVALUATION).read_text())["settings"]
    return settings


def files_of(run: Path, *names: str) -> list[bytes]:
    return [(run / name).read_bytes() for name in names]


def test_an_evaluation_that_was_just_made_with_other_settings_is_shown_and_not_made_again(
    run_command, visualize, run, monkeypatch
):
    assert run_command("evaluate", run, "--tasks=3", "--episodes=2", "--threads=1").code == 0
    made = files_of(run, EVALUATION, PICTURE)
    monkeypatch.setattr("maml_rl.experiments.report.reporting.evaluate", None)  # calling it fails
    result = visualize(run, "--tasks=2", "--gradient-steps=1")
    assert (result.code, result.err.startswith("recording: 12 episodes, about ")) == (0, True), result.err
    assert files_of(run, EVALUATION, PICTURE) == made
    text = (run / "report.html").read_text()
    assert "Mean return on 3 held-out tasks" in text
    assert "settings other than the run's own: tasks 3 instead of 5, episodes 2 instead of 3.</p>" in text
    recording, evaluation = load_recording(run / RECORDING), json.loads((run / EVALUATION).read_text())
    assert (recording.episodes, recording.inner_lrs) == (2, evaluation["curves"][0]["inner_lr"])
    assert all(task in evaluation["tasks"] for task in recording.tasks)


def test_without_an_evaluation_it_says_what_it_will_do_and_how_long(visualize, run):
    said = [line for line in visualize(run).err.splitlines() if not line.startswith("warning: a task has 3 episodes")]
    assert said[0].startswith(
        f"evaluating {run}, since it has no evaluation: 5 tasks x 3 episodes after 0 to 1 gradient"
    )
    assert "60 episodes, about " in said[0]  # 5 x 3 x 2, of two policies
    assert said[0].endswith(f"For fewer: maml-rl evaluate {run} --tasks 8")
    assert said[1].startswith("recording: 32 episodes, about ")  # 4 x (3 + 1) x 2
    assert len(said) == 2
    assert (run / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert "other settings" not in (run / "report.html").read_text()


def test_an_evaluation_of_another_checkpoint_is_made_again_with_its_own_settings_and_its_picture(
    run_command, visualize, run
):
    run_command("evaluate", run, "--tasks=3", "--episodes=2", "--seed=4", "--later-lr-factor=0.3", "--gradient-steps=2")
    before = json.loads((run / EVALUATION).read_text())
    picture = (run / PICTURE).read_bytes()
    assert run_command("train", "--resume", run, "--iterations=3", "--threads=1").code == 0
    said = visualize(run).err
    assert "since its evaluation is of another checkpoint: 3 tasks x 2 episodes after 0 to 2 gradient steps" in said
    after = json.loads((run / EVALUATION).read_text())
    for name in ("settings", "gradient_steps", "tasks"):
        assert after[name] == before[name], name
    assert after["settings"]["later_lr_factor"] == 0.3
    assert (before["iteration"], after["iteration"]) == (2, 3)
    assert (run / PICTURE).read_bytes() != picture


def test_an_evaluation_with_the_runs_own_settings_is_not_replaced_by_others(run_command, run, tmp_path):
    assert run_command("evaluate", run, "--tasks=3", "--threads=1").code == 0
    assert run_command("evaluate", run, "--tasks=2", "--threads=1").code == 0  # neither is the run's own
    assert settings_of(run)["tasks"] == 2
    assert run_command("evaluate", run, "--tasks=5", "--threads=1").code == 0  # as many as the run's own
    own = files_of(run, EVALUATION, PICTURE)
    result = run_command("evaluate", run, "--tasks=3", "--threads=1")
    assert f"{run / EVALUATION} has the run's own settings and was left unchanged" in result.out
    assert files_of(run, EVALUATION, PICTURE) == own
    assert run_command("train", "--resume", run, "--iterations=3", "--threads=1").code == 0
    run_command("evaluate", run, "--tasks=3", "--threads=1")  # the one before is of another checkpoint
    assert settings_of(run)["tasks"] == 3
    said = run_command("compare", run, "--out", tmp_path / "compared", "--threads=1").err
    assert "since its evaluation, 3 tasks x 3 episodes, has other settings: 5 tasks x 3 episodes" in said
    assert settings_of(run)["tasks"] == 5
    replaced = (run / PICTURE).read_bytes()
    run_command("evaluate", run, "--threads=1")
    assert (run / PICTURE).read_bytes() == replaced


def test_a_picture_that_cannot_be_drawn_leaves_record_and_picture_as_they_were(run_command, run, monkeypatch):
    run_command("evaluate", run, "--tasks=3", "--threads=1")
    before = files_of(run, EVALUATION, PICTURE)
    monkeypatch.setattr("maml_rl.experiments.media.charts.save_figure", refuse)
    assert run_command("evaluate", run, "--tasks=2", "--threads=1").code == 2
    assert files_of(run, EVALUATION, PICTURE) == before


def refuse(*_: object) -> None:
    raise OSError("no space left on device")


# Tasks with names


@pytest.fixture(scope="module")
def cart(tmp_path_factory) -> Path:
    """The report of a run whose tasks are dicts of numbers, choices and switches."""
    out = tmp_path_factory.mktemp("runs") / "cart"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ENVIRONMENTS)
        config = replace(SMALL, env_id="dict_environments:CartForTests-v0", iterations=1)
        train(replace(config, evaluation=replace(SMALL.evaluation, tasks=12)), out, ONE_THREAD)
        outputs = Outputs(out / "report.html", out / "video.gif", out / "figure.svg")
        visualize_run(out, outputs, tasks=3, machine=ONE_THREAD)
    return out


@pytest.mark.parametrize("name", ["payload", "friction", "motors[0]", "motors[1]", "broken"])
def test_a_report_and_its_figure_have_every_component_of_the_tasks(cart, name):
    text = (cart / "report.html").read_text()
    assert f">Return by {name}<" in text
    assert f"Return by {name}<" in (cart / "figure.svg").read_text()
    assert "explains " not in text  # 12 tasks are too few for 5 shares


def test_the_tasks_of_a_report_are_shown_with_keys_and_values(cart):
    recording, text = load_recording(cart / RECORDING), (cart / "report.html").read_text()
    for task, name in zip(recording.tasks, recording.task_names, strict=True):
        motors = ", ".join(f"{value:.3g}" for value in task["motors"])
        expected = f"payload {task['payload']:.3g}, friction {task['friction']}, motors ({motors}), "
        assert name == f"{expected}broken {task['broken'][0]}"
        assert f"<span>{name}</span>" in text
    assert data_of(text)["tasks"] == recording.task_names
    assert "<title>payload " in text  # of the points of the charts


def test_a_long_name_is_broken_into_lines_above_a_video(cart):
    with Image.open(cart / "video.gif") as video:
        assert video.size == (640, 64 + 240)


def test_other_settings_and_another_checkpoint_are_recorded_again(visualize, run):
    visualize(run)
    result = visualize(run, "--tasks=2", "--gradient-steps=2", "--out=there.html")
    assert "recording again" in result.err
    assert Path("there.html").exists()
    recording = load_recording(run / RECORDING)
    assert (len(recording.tasks), recording.gradient_steps) == (2, 2)
    for arguments, said in (([], False), (["--tasks=2"], False), (["--tasks=3"], True), (["--record"], False)):
        assert ("recording again" in visualize(run, *arguments).err) == said
    train(replace(SMALL, iterations=3), run.parent / "longer", ONE_THREAD)
    shutil.copy(run / RECORDING, run.parent / "longer" / RECORDING)
    assert "recording again" in visualize(run.parent / "longer").err
    assert load_recording(run.parent / "longer" / RECORDING).iteration == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-run"], "no checkpoint at no-run"),
        (["RUN", "--video=video.avi"], "--video video.avi must end in one of .gif, .webp, .mp4"),
        (["RUN", "--figure=figure.doc"], "--figure figure.doc must end in one of .png, .pdf, .svg"),
        (["RUN", "--out=no/report.html"], "there is no directory no"),
        (["RUN", "--video=no/video.gif"], "there is no directory no"),
        (["RUN", "--tasks=0"], "tasks must be at least 1, got 0"),
        (["RUN", "--gradient-steps=-1"], "gradient_steps must be at least 0"),
        (["RUN", "--device=toaster"], "toaster"),
    ],
)
def test_unusable_input_is_reported_in_one_line(visualize, run, arguments, message):
    result = visualize(*[str(run) if argument == "RUN" else argument for argument in arguments])
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("maml-rl: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert list(Path().iterdir()) == []
    assert not (run / "report.html").exists()


def test_a_broken_recording_is_reported_in_one_line_and_can_be_replaced(visualize, run):
    (run / RECORDING).write_bytes(b"broken")
    result = visualize(run)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert f"{run / RECORDING} is damaged or not a maml-rl recording" in result.err
    assert visualize(run, "--record").code == 0
    load_recording(run / RECORDING)


def test_a_video_of_navigation_needs_no_opengl_and_a_figure_has_any_format(visualize, run):
    result = visualize(run, "--tasks=1", "--video=video.gif", "--figure=figure.svg")
    assert result.code == 0, result.err
    assert [line.partition(":")[0] for line in result.out.splitlines()] == ["report", "video", "figure"]
    for ending, start in ((".svg", b"<?xml"), (".pdf", b"%PDF"), (".png", b"\x89PNG")):
        visualize(run, f"--figure=again{ending}")
        assert Path(f"again{ending}").read_bytes().startswith(start)
    assert Path("again.svg").read_bytes() == Path("figure.svg").read_bytes()
    with Image.open("video.gif") as video:
        assert video.size == (640, 284)
        assert video.n_frames > 50
    assert "before adaptation" in Path("figure.svg").read_text()


def test_without_opengl_the_report_is_made_and_a_video_is_refused_in_one_line(
    visualize, tmp_path, evaluation_of, monkeypatch
):
    """First in a separate process, since MuJoCo chooses its OpenGL when it is imported."""
    run, video = tmp_path / "half-cheetah-dir", tmp_path / "video.webp"
    shutil.copytree(TRAINED / "half-cheetah-dir", run)
    store(run, evaluation_of("half-cheetah-dir", tasks=[0, 1]))
    command = [sys.executable, "-m", "maml_rl.experiments", "visualize", run, "--gradient-steps=1", "--video", video]
    environment = {**os.environ, "MUJOCO_GL": "disabled"}
    refused = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    said = refused.stderr.splitlines()
    assert [line.partition(":")[0] for line in said] == ["recording", "maml-rl"]
    assert not video.exists()
    reason = re.search(r"--video .*video\.webp cannot be made: (rendering needs OpenGL.*) \(made without", said[1])[1]
    assert "apt install libegl1 libgl1-mesa-dri libopengl0" in reason
    assert f"(made without it: {run / 'report.html'})" in said[1]
    made = (run / "report.html").read_text()
    assert "rendering needs OpenGL" in made
    assert data_of(made)["kind"] == "lines"
    assert data_of(made)["names"][:3] == ["rootx", "rootz", "rooty"]

    def refuse_to_draw(*_: object) -> None:
        raise InputError(reason)

    monkeypatch.setattr(player, "Drawing", refuse_to_draw)
    done = visualize(run, "--gradient-steps=1")
    assert done.code == 0, done.err
    assert "plots instead of moving pictures: rendering needs OpenGL" in done.err
    assert data_of((run / "report.html").read_text())["kind"] == "lines"


# Content of a report


def data_of(text: str) -> dict:
    """Data of the player in a report."""
    found = re.search(r'<script type="application/json" id="rollouts-data">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def test_a_report_has_the_numbers_of_run_evaluation_paper_and_recording(visualize, run):
    visualize(run)
    text = (run / "report.html").read_text()
    evaluation, recording = json.loads((run / EVALUATION).read_text()), load_recording(run / RECORDING)
    for mean in evaluation["curves"][0]["mean"]:
        assert f"{mean:.1f}".replace("-", MINUS) in text
    assert f">{MINUS}40.4<" in text  # the paper's, before adaptation
    assert "Train it again: <code>maml-rl train " in text
    assert "meta.step.max_kl" in text
    data = data_of(text)
    assert data["kind"] == "paths"
    assert data["tasks"] == recording.task_names
    np.testing.assert_allclose(data["returns"], recording.returns, atol=1e-3)
    np.testing.assert_allclose(data["goals"], recording.tasks)
    for step, task in np.ndindex(2, 4):
        np.testing.assert_allclose(data["motion"][step][task], recording.episode(task, step), atol=1e-4)


def test_a_report_shows_the_other_methods_of_a_stored_comparison(visualize, run):
    one = [Estimate(-33.25, -35.0, -31.0)]
    curves = {"maml": [MethodCurve("", one * 2, one * 2, [])], "oracle": [MethodCurve("", one, one, [])]}
    methods = [Method(name, name, "tasks", own, [ANY_RUN]) for name, own in curves.items()]
    compared = Comparison(SMALL.problem, "navigation", "return", [""], 1, "held-out", 5, 3, 0, [], None, methods)
    Path("results/navigation").mkdir(parents=True)
    path = Path("results/navigation") / COMPARISON
    path.write_text(json.dumps(asdict(compared)))
    visualize(run)
    text = (run / "report.html").read_text()
    assert text.count(">oracle<") == 2  # in the legend and in the table
    assert text.count(f"{MINUS}33.2") >= 2
    path.write_text("{")
    result = visualize(run)
    assert result.code == 2
    assert "comparison.json is damaged" in result.err


def test_a_run_without_rows_of_metrics_or_with_a_cut_one_is_reported(visualize, run):
    rows = (run / "metrics.csv").read_text().splitlines()
    (run / "metrics.csv").write_text("\n".join([*rows[:2], rows[2][:20]]))
    assert visualize(run).code == 0
    (run / "metrics.csv").unlink()
    assert visualize(run).code == 0
    assert "metrics.csv has no rows" in (run / "report.html").read_text()


def test_an_oracle_and_a_discrete_environment_are_reported(visualize, tmp_path):
    oracle = replace(SMALL, observe_task=True, meta=replace(SMALL.meta, inner_steps=0))
    for name, config in {
        "oracle": replace(oracle, evaluation=replace(oracle.evaluation, gradient_steps=0)),
        "bandit": replace(SMALL, env_id="maml_rl.envs:duan2016/BernoulliBandit-v0"),
        "tabular": replace(SMALL, env_id="maml_rl.envs:duan2016/TabularMDP-v0"),
    }.items():
        train(config, tmp_path / name, ONE_THREAD)
        result = visualize(tmp_path / name)
        said = [line.partition(" ")[0] for line in result.err.splitlines()]
        warned = ["warning:"] if name != "oracle" else []  # of 3 episodes for a gradient step
        assert (result.code, said) == (0, ["evaluating", *warned, "recording:"])
        kind = data_of((tmp_path / name / "report.html").read_text())["kind"]
        assert kind == ("paths" if name == "oracle" else "clips")


def test_a_step_size_that_the_evaluation_chose_is_not_chosen_again(visualize, tmp_path, monkeypatch):
    """Choosing takes as long as an evaluation for each step size."""
    meta = replace(SMALL.meta, inner_steps=0)
    evaluation = replace(SMALL.evaluation, inner_lrs=(0.1, 5.0))
    train(replace(SMALL, meta=meta, evaluation=evaluation), tmp_path / "pretrained", ONE_THREAD)
    choose, calls = evaluation_module.validated, []
    monkeypatch.setattr(evaluation_module, "validated", lambda *a, **k: (calls.append(a), choose(*a, **k))[1])
    visualize(tmp_path / "pretrained")
    chosen = json.loads((tmp_path / "pretrained" / EVALUATION).read_text())["curves"][0]["inner_lr"]
    assert load_recording(tmp_path / "pretrained" / RECORDING).inner_lrs == chosen
    assert len(calls) == 1


def test_pictures_keep_within_the_budget_by_a_lower_quality(visualize, tmp_path, monkeypatch):
    train(replace(SMALL, env_id="maml_rl.envs:duan2016/TabularMDP-v0"), tmp_path / "tabular", ONE_THREAD)
    sizes = []
    for budget in (1_000_000, 60_000, 1):
        monkeypatch.setattr(player, "_BUDGET", budget)
        assert visualize(tmp_path / "tabular").code == 0
        data = data_of((tmp_path / "tabular" / "report.html").read_text())
        sizes.append(sum(len(sheet) for stage in data["sheets"] for sheet in stage))
        assert data["counts"][0][0] == 1 + 10 // data["stride"]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[1] < 60_000 * 4 / 3 + 1000


def test_text_in_a_page_is_escaped():
    hostile = "</script><script>alert(1)</script><b>&"
    section = Section(hostile, "", "", (("d", {"name": hostile}),))
    made = html_page(hostile, "", [Fact(hostile, hostile)], [section])
    assert "alert(1)</script>" not in made.replace("&lt;/script&gt;", "")
    assert made.count("<script") == 1
    (found,) = re.findall(r'id="d">(.*?)</script>', made, re.S)
    assert json.loads(found) == {"name": hostile}


def test_a_chart_puts_values_where_its_axis_says():
    series = Series("a", "after", [0.0, 10.0], [5.0, 15.0], low=[4.0, 14.0], high=[6.0, 16.0], marks="point")
    svg = svg_figure(Chart("title", "", Axis("x"), Axis("y"), [series]))
    places = [tuple(map(float, found)) for found in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    ticks = {
        text: float(x) for x, text in re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<]*)<', svg)
    }
    assert places[0][0] == pytest.approx(ticks["0"])
    assert places[1][0] == pytest.approx(ticks["10"])
    assert places[0][1] > places[1][1]


# Supervised runs


@pytest.fixture
def wave(tmp_path, evaluation_of) -> Path:
    """A run on sinusoids with a baseline next to it, and a made-up evaluation."""
    for name, preset in (("wave", "sinusoid"), ("wave-oracle", "sinusoid-oracle")):
        config = replace(PRESETS[preset].config, iterations=2, log_every=1)
        train(replace(config, evaluation=replace(config.evaluation, tasks=3, shots=(10,))), tmp_path / name, ONE_THREAD)
    made = evaluation_of("sinusoid", tasks=[0.1] * 4, steps=2)
    store(tmp_path / "wave", made._replace(baselines={"oracle": 2}))
    return tmp_path / "wave"


def test_a_report_of_a_supervised_run_shows_the_evaluation_that_is_there(visualize, wave):
    before = (wave / EVALUATION).read_bytes()
    result = visualize(wave, "--gradient-steps=3", "--tasks=2", "--figure=fits.svg")
    assert (result.code, result.err) == (0, "")
    text = (wave / "report.html").read_text()
    assert "on 4 held-out tasks" in text
    assert text.count(">Task ") == 2
    assert text.count('data-step="3"') == 2
    assert "after 2 gradient steps" in Path("fits.svg").read_text()
    assert (wave / EVALUATION).read_bytes() == before


def test_a_supervised_run_is_evaluated_again_where_a_baseline_was_trained_longer(run_command, visualize, wave):
    run_command("train", "--resume", f"{wave}-oracle", "--iterations=3", "--threads=1")
    said = visualize(wave).err
    assert said.startswith(f"evaluating {wave}, since its evaluation is of other checkpoints of the runs")
    assert "4 tasks" in said  # as the one before
    record = json.loads((wave / EVALUATION).read_text())
    assert (record["baselines"], record["settings"]["tasks"]) == ({"oracle": 3}, 4)
    assert (wave / PICTURE).exists()
    assert visualize(wave).err == ""


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"curves": 1}'])
def test_a_damaged_evaluation_is_reported_in_one_line(visualize, run, content):
    (run / EVALUATION).write_text(content)
    result = visualize(run)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "remove it, to evaluate the run again" in result.err
