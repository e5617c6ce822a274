"""Figures and the page of results, from files that a comparison of made-up numbers leaves."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageSequence

from maml_rl.checkpoint import load_checkpoint, save_checkpoint
from maml_rl.config import RLEvaluation
from maml_rl.errors import InputError
from maml_rl.experiments.media.filming import film_held_out
from maml_rl.experiments.media.plots import draw_comparison
from maml_rl.experiments.paper import figure4, figure5, readme_pictures, results_page, train_runs
from maml_rl.experiments.paper.headline_table import headline_table
from maml_rl.experiments.paper.published import published
from maml_rl.experiments.paper.train_runs import RUNS, SEEDS, configurations, directory, further_runs, is_finished
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.presets.rl_presets import RL_PRESETS
from maml_rl.experiments.runs.comparison_files import (
    COMPARISON,
    ComparedRun,
    Comparison,
    Estimate,
    Method,
    MethodCurve,
    PaperPoint,
    read_comparison,
    write_comparison,
)
from maml_rl.experiments.runs.evaluations import TaskSet, file_of
from maml_rl.experiments.runs.training import train
from maml_rl.json_types import read_typed
from maml_rl.machine import Machine
from maml_rl.run import CHECKPOINT, load_run

ROOT = Path(__file__).parents[3]
LABELS = ("maml", "pretrained", "oracle", "random")
ONE = Machine(threads=1)


def comparison(task: str, task_set: TaskSet = "held-out") -> Comparison:
    """Two runs of each method, whose values rise by gradient step."""
    config = PRESETS[task].config
    is_policy = config.kind == "reinforcement"
    conditions = [""] if is_policy else ["10-shot", "5-shot"]
    methods = []
    for i, label in enumerate(LABELS):
        first = np.arange(1 if label == "oracle" else 4) - 10.0 * i
        values = [Estimate(value, value - 1, value + 2) for value in first.tolist()]
        curves = []
        for condition in conditions:
            paper = published(config, condition, label)
            points = [PaperPoint(step, *value) for step, value in paper.items() if step <= 3]
            curves.append(MethodCurve(condition, values, values, points))
        run = ComparedRun(
            directory="runs/it",
            seed=0,
            iterations=3,
            env_steps=1234567 if is_policy else 0,
            seconds=120.0,
            machines=[{"processor": "Abacus", "cores": 2}],
            command=f"maml-rl train {task}",
            inner_lr=dict.fromkeys(conditions, [0.5, 0.25] if is_policy else [0.5, 0.5]),
            values=dict.fromkeys(conditions, [[0.0, 1.0]] * len(values)),
        )
        methods.append(Method(label, label, "tasks", curves, [run, replace(run, seed=1, machines=[])]))
    return Comparison(
        problem=config.problem,
        name=task,
        quantity="return" if is_policy else "squared error",
        conditions=conditions,
        gradient_steps=3,
        task_set=task_set,
        num_tasks=2,
        episodes=3 if is_policy else None,
        seed=0,
        tasks=[[0.1, 0.2], [0.3, -0.2]],
        strata=None,
        methods=methods,
    )


def write(compared: Comparison, out: Path) -> None:
    write_comparison(compared, out, lambda *_: None)


@pytest.fixture
def results(tmp_path) -> Path:
    for task in ("navigation", "half-cheetah-dir", "ant-vel"):
        for task_set in get_args(TaskSet):
            write(comparison(task, task_set), tmp_path / task)
    walk = np.cumsum(np.random.default_rng(0).normal(0, 0.02, (4, 20, 2)), axis=1).tolist()
    paths = {name: {"run": name, "paths": [walk] * 4} for name in ("maml", "pretrained")}
    goals = np.random.default_rng(1).uniform(-0.5, 0.5, (4, 2)).tolist()
    (tmp_path / figure4.PATHS).write_text(json.dumps({"tasks": goals, **paths}))
    return tmp_path


def width(path: Path) -> int:
    """Width of a picture that has something coloured on it."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=-1) > 60).any()
    return pixels.shape[1]


@pytest.mark.parametrize(("task_set", "stem"), [("held-out", "comparison"), ("paper", "comparison-paper")])
def test_a_comparison_is_kept_as_three_files(tmp_path, task_set, stem):
    write_comparison(comparison("ant-vel", task_set), tmp_path, draw_comparison)
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.{ending}" for ending in ("json", "csv", "png")}
    assert read_comparison(tmp_path / f"{stem}.json") == comparison("ant-vel", task_set)
    width(tmp_path / f"{stem}.png")


def test_figure_4_is_drawn_from_files(results):
    path = figure4.draw_figure4(results)
    assert path.parent == results / "navigation"
    assert width(path) > 1000


def test_figure_5_has_a_panel_for_each_task_with_results(results):
    two = width(figure5.draw_figure5(results))
    write(comparison("ant-dir"), results / "ant-dir")  # not on the paper's tasks
    assert width(figure5.draw_figure5(results)) == two
    write(comparison("ant-dir", "paper"), results / "ant-dir")
    assert width(figure5.draw_figure5(results)) == pytest.approx(two * 1.5, rel=0.01)


def test_figure_5_without_results_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="half-cheetah-vel"):
        figure5.draw_figure5(tmp_path)


def test_paths_are_those_of_the_evaluation(tmp_path):
    run = ROOT / "trained" / "navigation"
    figure4.write_paths(run, run, tmp_path)
    record = json.loads((tmp_path / figure4.PATHS).read_text())
    held_out = json.loads((run / "evaluation.json").read_text())["tasks"]
    np.testing.assert_allclose(record["tasks"], held_out[:4])
    assert record["maml"]["paths"] == record["pretrained"]["paths"]
    steps = record["maml"]["paths"]
    assert (len(steps), len(steps[0])) == (4, 4)
    ends = [np.linalg.norm(np.subtract(step[0][-1], record["tasks"][0])) for step in steps]
    assert ends[-1] < ends[0]


def test_the_page_shows_our_results_and_the_papers_for_every_task(results):
    text = results_page.page(results)
    assert re.findall("^## (.*)$", text, re.M) == ["navigation", "half-cheetah-dir", "ant-vel"]
    assert "| **maml** | 2 | tasks | 0.0 [-1.0, 2.0] | 1.0 [0.0, 3.0] | 2.0 [1.0, 4.0] | 3.0 [2.0, 5.0] |" in text
    assert "| paper | 1 |  | -40.4 ± 2.1 | -11.7 ± 1.1 | -3.3 ± 0.3 | -3.2 ± 0.3 |" in text
    assert "| **oracle** | 2 | tasks | -20.0 [-21.0, -18.0] | - | - | - |" in text
    assert "| `maml-rl train ant-vel` | 1.2 M | 2 min | 0.5, 0.25 | 2 cores, Abacus |" in text
    assert "not noted" in text


def test_the_page_has_a_task_that_was_compared_on_the_papers_tasks_only(tmp_path):
    write(comparison("ant-dir", "paper"), tmp_path / "ant-dir")
    text = results_page.page(tmp_path)
    assert re.findall("^## (.*)$", text, re.M) == ["ant-dir"]


def test_the_papers_returns_stand_next_to_returns_on_its_own_tasks_only(results):
    section = results_page.page(results).split("## ")[1]
    on_paper, held_out = section.split(" on 2 held-out tasks")
    assert "on the paper's own 2 tasks, 3 episodes of each" in on_paper
    assert "| paper |" in on_paper
    assert "| **maml** |" in held_out
    assert "paper" not in held_out


def test_the_page_says_how_long_ppo_takes_to_match_one_gradient_step(results):
    curve = {"env_steps": [0, 2048, 4096], "mean_return": [1.0, 2.0, 3.5], "standard_error": [0.1, 0.2, 0.25]}
    record = {"env_id": "maml_rl.envs:finn2017/HalfCheetahDir-v0", "method": "from-scratch", "task": 1, "curve": curve}
    record |= {"adapted": {"env_steps": [0, 400], "mean_return": [0.0, 1.5]}, "env_steps_to_reach": [0, 2048]}
    (results / "half-cheetah-dir" / "sb3-from-scratch.json").write_text(json.dumps(record))
    oracle = {"env_id": "maml_rl.envs:finn2017/Navigation2D-v0", "method": "oracle", "task": "any", "curve": curve}
    (results / "navigation" / "sb3-oracle.json").write_text(json.dumps(oracle))
    text = results_page.page(results)
    start = "| `maml_rl.envs:finn2017/HalfCheetahDir-v0` | 1 | PPO, from-scratch | 4,096 | 3.5 ± 0.2 "
    assert f"{start}| 2,048 | 1.5 after 400 |" in text
    assert "| `maml_rl.envs:finn2017/Navigation2D-v0` | any | PPO, oracle | 4,096 | 3.5 ± 0.2 | - | - |" in text


def test_all_rows_of_a_table_have_the_same_number_of_cells(results):
    for table in re.findall(r"(?:^\|.*\n)+", results_page.page(results), re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_supervised_runs_have_a_table_for_each_condition(tmp_path):
    write(comparison("sinusoid"), tmp_path / "sinusoid")
    text = results_page.page(tmp_path)
    assert "`sinusoid` on 2 held-out tasks, squared error, 5-shot:" in text
    assert "| **maml** | 2 | tasks | 0.000 [-1.000, 2.000] | 1.000 [0.000, 3.000] |" in text
    assert text.count("| paper | 1 |  | - | 0.67 | - | - |") == 1  # of 5 shots alone
    assert "| `maml-rl train sinusoid` | 3 | 2 min | 0.5 | 2 cores, Abacus |" in text


def test_the_readme_has_every_result_next_to_the_papers(results):
    write(comparison("sinusoid"), results / "sinusoid")
    rows = headline_table(results, ROOT / "trained").splitlines()
    assert "| navigation | maml | 2 | 1.2 M | 0.0 | **1.0** | 8.0 M | -40.4 | -11.7 |" in rows
    assert "|  | oracle | 2 | 1.2 M | -20.0 |  |  | -2.3 |  |" in rows
    sinusoid = "sinusoid, 5-shot: squared error, 1 gradient step"
    assert f"| {sinusoid} | maml | 2 |  | 0.000 | **1.000** |  |  | 0.670 |" in rows
    assert "pretrained" not in " ".join(rows)
    (promp,) = (row for row in rows if row.startswith("| promp-half-cheetah-dir |"))
    assert promp.endswith("| 120.0 M |  | about 312 |")


def test_the_table_of_the_readme_shows_what_its_text_claims():
    """MAML passes four of the paper's five tasks; on the fifth, ant direction, it needs CAVIA."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "MAML does better on four of five tasks" in readme
    assert "On the fifth, ant direction, MAML had a ninth of the paper's env steps" in readme
    lines = headline_table(ROOT / "results", ROOT / "trained").splitlines()[2:]
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines]
    published = {row[0]: float(row[8]) for row in rows if row[0] in ("navigation", *figure5.TASKS)}
    ours = {row[0]: float(row[5]) for row in rows if row[0] in published}
    assert [name for name in published if ours[name] < published[name]] == ["ant-dir"]
    assert len(published) == 5
    (ant,) = (index for index, row in enumerate(rows) if row[0] == "ant-dir")
    assert float(rows[ant][3].split()[0]) < float(rows[ant][6].split()[0]) / 9
    (cavia,) = (row for row in rows[ant : ant + 4] if row[1].startswith("cavia"))
    assert float(cavia[5]) > published["ant-dir"]


def place(path, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def test_returns_by_number_of_episodes_are_means_over_seeds(tmp_path):
    for seed, gain in ((0, 1.0), (1, 3.0)):
        for file, task_set in (("evaluation.json", "held-out"), ("evaluation-given.json", "given")):
            curves = [{"mean": [-10.0 * gain, 100.0 * gain]}, {"mean": [-10.0 * gain, 200.0 * gain]}]
            record = {
                "curves": curves,
                "settings": {"episodes_used": [1, 20]},
                "task_set": task_set,
                "tasks": [0, 1, 2],
                "strata": None,
            }
            place(tmp_path / f"episodes-seed{seed}" / file, record)
    head, _, held_out, given = results_page.episodes_table(tmp_path).splitlines()
    assert head == "| episodes | seeds | 0 | 1 | 20 |"
    assert held_out == "| 3 held-out tasks | 2 | -20 | 200 | 400 |"
    assert given == "| 3 given tasks | 2 | -20 | 200 | 400 |"


def test_where_the_tasks_are_all_there_are_a_trials_interval_is_over_returns_of_the_same_task(tmp_path):
    record = {"env_id": "my:two-v0", "memory": True, "env_steps": 100, "task_set": "held-out", "tasks": 4}
    record |= {"strata": [0, 1, 0, 1], "returns": [[1.0, 2.0], [5.0, 6.0], [1.0, 2.0], [5.0, 6.0]]}
    place(tmp_path / "rl2" / "two" / "evaluation.json", record)
    row = results_page.trials_table(tmp_path).splitlines()[-1]
    cells = "4 tasks (all 2 there are, repeated) | 1 | 100 | 2 | 3.0 [3.0, 3.0] | 4.0 [4.0, 4.0] | 7.0 [7.0, 7.0] |"
    assert row == f"| `my:two-v0` | yes | {cells}"


def test_trials_have_a_row_for_all_seeds_with_their_first_and_last_episode_and_all(tmp_path):
    one_seed, three_seeds = [[[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]], [[[-1.0, 2.0], [1.0, 2.0]]] * 3
    for name, of_seeds in (("bandit", one_seed), ("robot", three_seeds)):
        for seed, returns in enumerate(of_seeds):
            record = {"env_id": f"my:{name}-v0", "memory": name == "robot", "env_steps": 4_000_000}
            record |= {"task_set": "given", "tasks": 2, "strata": None}
            directory = tmp_path / "rl2" / (f"{name}-seed{seed}" if seed else name)
            place(directory / "evaluation-given.json", record | {"by_episode": returns[0], "returns": returns})
    head, _, bandit, robot = results_page.trials_table(tmp_path).splitlines()
    assert head == (
        "| environment | memory | tasks | seeds | env steps | episodes | return of the first | of the last | of all |"
    )
    # Over two tasks: Student's quantile with one degree of freedom, 12.706, times a standard error of 1.
    means = "2.0 [-10.7, 14.7] | 4.0 [-8.7, 16.7] | 9.0 [-29.1, 47.1]"  # of all three, a standard error of 3
    assert bandit == f"| `my:bandit-v0` | no | 2 given tasks | 1 | 4.0 M | 3 | {means} |"
    # Seeds that are alike add nothing to the interval over tasks.
    means = "0.0 [-12.7, 12.7] | 2.0 [2.0, 2.0] | 2.0 [-10.7, 14.7]"
    assert robot == f"| `my:robot-v0` | yes | 2 given tasks | 3 | 4.0 M | 2 | {means} |"


def test_a_student_has_the_env_steps_of_its_experts_next_to_its_own(tmp_path):
    for task in ("half-cheetah-dir", "half-cheetah-vel", "ant-vel"):
        compared = comparison(task, "paper")
        student = replace(compared.methods[1], label="mimic")
        student = replace(student, runs=[replace(run, env_steps=run.env_steps // 2) for run in student.runs])
        write(replace(compared, methods=[*compared.methods, student]), tmp_path / task)
    head, _, mimic, _, maml, oracle, *others = results_page.students_table(tmp_path).splitlines()
    assert head == "| task | method | seeds | interval over | env steps | 0 | 1 | 2 | 3 |"
    assert mimic.startswith("| `half-cheetah-dir` | **mimic** | 2 | tasks | 0.6 M, and 1.2 M of its experts | -10.0 [")
    assert maml.endswith("| 1.2 M | 0.0 [-1.0, 2.0] | 1.0 [0.0, 3.0] | 2.0 [1.0, 4.0] | 3.0 [2.0, 5.0] |")
    assert (
        oracle == "| `half-cheetah-dir` | oracle: the experts | 2 | tasks | 1.2 M | -20.0 [-21.0, -18.0] | - | - | - |"
    )
    assert len(others) == 8


def test_a_learning_curve_of_trials_has_a_row_for_each_part_of_the_training(tmp_path):
    points = [
        {"env_steps": 1_000_000 * i, "mean_return": float(i), "standard_error": 0.25, "by_episode": [1.0, i - 1.0]}
        for i in range(101)
    ]
    schedule = {"env_steps": 100_000_000, "every": 1_000_000, "tasks": 9}
    place(tmp_path / "rl2.json", {"config": {}, "schedule": schedule, "curve": points})
    head, _, *rows = results_page.learning_table(tmp_path).splitlines()
    assert head == "| env steps | trial | by episode, 1 to 2 |"
    assert rows[0] == "| 0 | 0.0 ± 0.2 | 1.0 -1.0 |"
    assert rows[1] == "| 4.0 M | 4.0 ± 0.2 | 1.0 3.0 |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 12.0 M", "| 25.0 M", "| 50.0 M", "| 75.0 M", "| 100.0 M"]


def test_the_tables_of_the_repository_are_written_from_its_results():
    for path, text in results_page.pages(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, path


# The runs behind the figures


def test_every_task_has_the_seeds_that_the_tables_need():
    assert [len(configurations(task)) for task in SEEDS] == [20, 6, 4, 4]
    for task in SEEDS:
        methods = {config.method for config in configurations(task).values()}
        assert methods == set(LABELS)


def test_runs_that_come_with_the_repository_are_not_trained_again(monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = {name: directory(name, config) for name, config in configurations("half-cheetah-dir").items()}
    assert runs["half-cheetah-dir-seed1"] == Path("trained/half-cheetah-dir")
    assert is_finished(runs["half-cheetah-dir-seed1"])
    assert runs["half-cheetah-dir-random-seed0"] == Path("runs/figures/half-cheetah-dir-random-seed0")


def test_further_runs_of_the_repository_are_compared_too(monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = [directory(name, config) for name, config in configurations("half-cheetah-dir").items()]
    names = [path.as_posix() for path in further_runs("half-cheetah-dir", runs)]
    assert "trained/half-cheetah-dir-cavia-seed2" in names
    assert "trained/half-cheetah-dir-pretrained" not in names  # already among the runs
    assert names[-1].startswith("results/rl2/half-cheetah-dir")
    navigation = [directory(name, config) for name, config in configurations("navigation").items()]
    assert further_runs("navigation", navigation) == []


@pytest.fixture
def small(monkeypatch, tmp_path) -> Path:
    """An empty directory, and navigation with one short run of each method."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SEEDS, "navigation", dict.fromkeys(SEEDS["navigation"], 1))
    for suffix in SEEDS["navigation"]:
        preset = RL_PRESETS[f"navigation{suffix}"]
        config = preset.config
        steps = min(1, config.evaluation.gradient_steps)
        shrunk = replace(
            config,
            iterations=min(1, config.iterations),
            meta=replace(config.meta, meta_batch_size=2, episodes=2),
            network=replace(config.network, hidden_sizes=(8,)),
            evaluation=RLEvaluation(tasks=2, gradient_steps=steps, episodes=2, validation_tasks=1, inner_lrs=(0.1,)),
        )
        monkeypatch.setitem(RL_PRESETS, f"navigation{suffix}", preset._replace(config=shrunk))
    return tmp_path


def test_all_runs_are_trained_and_compared_and_then_nothing_is_left_to_do(small, capsys):
    train_runs.main(["navigation"])
    assert "maml-rl train navigation" in capsys.readouterr().out
    for task_set in get_args(TaskSet):
        record = json.loads((small / "results" / "navigation" / file_of(COMPARISON, task_set)).read_text())
        assert record["task_set"] == task_set
        assert [(group["label"], len(group["runs"])) for group in record["methods"]] == [(label, 1) for label in LABELS]
    assert (small / "results" / figure4.PATHS).exists()
    assert all(is_finished(run) for run in (small / "runs" / "figures").iterdir())
    train_runs.main(["navigation"])
    assert "maml-rl train navigation" not in capsys.readouterr().out


class ComparedError(Exception):
    """Raised instead of comparing."""


def compared(*_: object, **__: object) -> None:
    raise ComparedError


@pytest.mark.usefixtures("small")
def test_an_interrupted_run_is_resumed(monkeypatch):
    monkeypatch.setattr(train_runs, "compare", compared)
    config = configurations("navigation")["navigation-seed0"]
    train(replace(config, iterations=2), RUNS / "navigation-seed0", ONE)
    checkpoint = load_checkpoint(RUNS / "navigation-seed0" / CHECKPOINT)
    checkpoint.record["config"]["iterations"] = 3
    save_checkpoint(RUNS / "navigation-seed0" / CHECKPOINT, checkpoint)
    assert not is_finished(RUNS / "navigation-seed0")
    with pytest.raises(ComparedError):
        train_runs.main(["navigation"])
    assert load_run(RUNS / "navigation-seed0").state.iteration == 3


def test_list_prints_commands_and_trains_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    train_runs.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 34
    assert "maml-rl train navigation-oracle --seed 2 --out runs/figures/navigation-oracle-seed2" in lines
    assert not list(tmp_path.iterdir())


def test_an_unknown_task_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        train_runs.main(["navigatoin"])
    assert stop.value.code == 2
    assert "navigatoin" in capsys.readouterr().err


def test_the_pictures_of_the_readme_exist_are_small_and_match_the_code(tmp_path):
    """The stored clip shows a robot in every frame, and the code draws a clip of the expected size."""
    for name in (readme_pictures.CLIP, readme_pictures.GAIN_CLIP, readme_pictures.FIGURE):
        assert f"(docs/pictures/{name})" in (ROOT / "README.md").read_text()
        assert (ROOT / "docs" / "pictures" / name).stat().st_size < 500_000
    with Image.open(ROOT / "docs" / "pictures" / readme_pictures.CLIP) as clip:
        frames = [np.asarray(frame.convert("RGB"))[44:].astype(int) for frame in ImageSequence.Iterator(clip)]
    assert len(frames) == 102
    for frame in frames:
        for panel in (frame[:, :300], frame[:, 300:]):
            assert ((panel[..., 0] - panel[..., 2]) > 25).mean() > 0.01
    run = load_run(ROOT / "trained" / "half-cheetah-dir")
    recording = film_held_out(run, replace(run.rl_config.evaluation, gradient_steps=1), 1, ONE)
    try:
        readme_pictures.draw_clip(recording, tmp_path / "clip.webp")
    except InputError as error:
        pytest.skip(str(error))
    with Image.open(tmp_path / "clip.webp") as drawn:
        assert (drawn.n_frames, drawn.size) == (51, (600, 244))


def test_hostile_paths_are_refused_in_one_line(tmp_path, check_reader):
    paths = {"run": "a", "paths": [[[[0.0, 1.0]]]]}
    record = {"tasks": [[0.1, 0.2]], "maml": paths, "pretrained": paths}
    check_reader(tmp_path / "paths.json", record, lambda path: read_typed(path, figure4.PathsRecord))
