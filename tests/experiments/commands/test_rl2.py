"""`maml-rl rl2`: trains, resumes and evaluates, and refuses what cannot be, in one line."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from maml_rl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maml_rl.experiments.runs import recurrent_ppo
from maml_rl.experiments.runs.loop import alone_in
from maml_rl.experiments.runs.measured_trials import episode_means
from maml_rl.experiments.runs.provenance import trained_on
from maml_rl.experiments.runs.rl2_files import CURVE, POLICY, stored_training

pytest.importorskip("sb3_contrib", reason="RL^2 needs the extra rl2")

ROOT = Path(__file__).parents[3]
BANDIT = "maml_rl.envs:duan2016/BernoulliBandit-v0"
NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
SMALL = ("--max-episode-steps=1", "--episodes=3", "--units=8", "--num-envs=20", "--every=60", "--tasks=50")


def test_it_trains_and_continues_and_evaluates(run_command, tmp_path):
    trained = run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=120")
    assert trained.code == 0, trained.err
    out = tmp_path / "runs" / "rl2-BernoulliBandit-v0"
    table = trained.out.splitlines()
    assert table[0] == f"{BANDIT}, 50 tasks"
    assert [line.split()[0] for line in table[3:7]] == ["1", "2", "3", "trial"]
    assert table[-1] == "next: maml-rl rl2 evaluate runs/rl2-BernoulliBandit-v0"
    assert (out / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert "env step 60/120: return of a trial" in trained.err
    last = stored_training(out).curve[-1]
    assert sum(last["by_episode"]) == pytest.approx(last["mean_return"])
    assert f"{last['mean_return']:.3f}" in table[6]

    evaluated = run_command("rl2", "evaluate", out, "--tasks=50")
    assert evaluated.out.splitlines()[:7] == table[:7]  # on the same tasks
    record = json.loads((out / "evaluation.json").read_text())
    assert record["env_steps"] == 120
    assert [mean["value"] for mean in record["by_episode"]] == pytest.approx(last["by_episode"])
    assert np.mean(record["returns"], 0) == pytest.approx(last["by_episode"])

    resumed = run_command("rl2", "resume", out, "--env-steps=180")
    assert resumed.code == 0, resumed.err
    training = stored_training(out)
    assert training.schedule == (180, 60, 50)
    assert [point["env_steps"] for point in training.curve] == [0, 60, 120, 180]
    seconds = [point["seconds"] for point in training.curve]
    assert seconds == sorted(seconds)
    assert seconds[-1] == training.seconds > 0
    (machine,) = trained_on(out)
    assert (machine["from_iteration"], machine["torch"]) == (0, torch.__version__)


def test_two_directions_are_evaluated_within_each(run_command):
    evaluated = run_command("rl2", "evaluate", ROOT / "results" / "rl2" / "half-cheetah-dir", "--tasks=4", "--json")
    record = json.loads(evaluated.out)
    assert record["strata"] == [0, 1, 0, 1]
    expected = episode_means(record["returns"], [0, 1, 0, 1])
    assert [mean["low"] for mean in record["by_episode"]] == pytest.approx([mean.low for mean in expected[:-1]])
    assert min(min(returns) for returns in record["returns"]) > 500  # it runs both ways


@pytest.mark.parametrize(
    ("options", "name"),
    [(["--seed=2"], "rl2-BernoulliBandit-v0-seed2"), (["--no-memory"], "rl2-BernoulliBandit-v0-no-memory")],
)
def test_seeds_and_policies_without_memory_have_directories_of_their_own(run_command, tmp_path, options, name):
    assert run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=1", *options).code == 0
    assert (tmp_path / "runs" / name / POLICY).is_file()


def test_what_was_trained_is_not_overwritten(run_command, tmp_path):
    arguments = ("rl2", "train", BANDIT, *SMALL, "--env-steps=60", "--out=out")
    assert run_command(*arguments).code == 0
    before = (tmp_path / "out" / POLICY).read_bytes()
    again = run_command(*arguments)
    assert (again.code, again.err) == (
        2,
        "maml-rl: out exists: resume it with maml-rl rl2 resume out, or give another --out\n",
    )
    assert (tmp_path / "out" / POLICY).read_bytes() == before


@pytest.fixture
def at_evaluation(monkeypatch):
    """Lets the n-th evaluation of a training raise an exception, once."""

    def set_up(number, error):
        evaluate, evaluations = recurrent_ppo.evaluate_rl2, []

        def stopped(*args, **kwargs):
            evaluations.append(args)
            if len(evaluations) == number:
                raise error
            return evaluate(*args, **kwargs)

        monkeypatch.setattr(recurrent_ppo, "evaluate_rl2", stopped)

    return set_up


def test_a_training_that_is_interrupted_before_its_first_evaluation_leaves_nothing(run_command, at_evaluation):
    arguments = ("rl2", "train", BANDIT, *SMALL, "--env-steps=60", "--out=out")
    at_evaluation(1, KeyboardInterrupt())
    stopped = run_command(*arguments)
    assert (stopped.code, stopped.err) == (130, "maml-rl: interrupted\n")
    assert run_command(*arguments).code == 0


@pytest.mark.parametrize("number", [2, 3, 4])
def test_an_interrupted_training_resumes_up_to_its_planned_length(run_command, tmp_path, at_evaluation, number):
    small = (*SMALL, "--every=120", "--chrono=3", "--env-steps=300")  # the last part is shorter
    whole = run_command("rl2", "train", BANDIT, *small, "--out=whole")
    at_evaluation(number, KeyboardInterrupt())
    stopped = run_command("rl2", "train", BANDIT, *small, "--out=parts")
    assert stopped.code == 130
    assert stopped.err.endswith(
        "\ninterrupted; the env steps until the last evaluation are saved, resume with: maml-rl rl2 resume parts\n"
    )
    resumed = run_command("rl2", "resume", "parts")
    assert resumed.out.splitlines()[:7] == whole.out.splitlines()[:7]
    curve = stored_training(tmp_path / "parts").curve
    assert [point["env_steps"] for point in curve] == [0, 120, 240, 300]
    one, other = (load_checkpoint(tmp_path / name / POLICY).tensors for name in ("parts", "whole"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_an_error_of_the_operating_system_says_how_to_resume(run_command, at_evaluation):
    at_evaluation(2, OSError(28, "No space left on device"))
    stopped = run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=60", "--out=out")
    assert stopped.code == 2
    assert stopped.err.splitlines()[-1] == (
        "maml-rl: training stopped: [Errno 28] No space left on device; the policy of the last evaluation is intact, "
        "resume with: maml-rl rl2 resume out"
    )


def test_a_directory_that_holds_something_else_is_left_alone(run_command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    result = run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=1", "--out=out")
    assert (result.code, result.err) == (2, "maml-rl: out exists: give another --out\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_two_processes_cannot_train_in_one_directory(run_command, tmp_path):
    run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=1", "--out=out")
    with alone_in(tmp_path / "out"):
        result = run_command("rl2", "resume", "out", "--env-steps=60")
    assert (result.code, result.err) == (
        2,
        "maml-rl: another process is training in out: wait for it, or give another --out\n",
    )


def test_it_evaluates_on_the_papers_tasks_and_outside_the_training_range(run_command, tmp_path):
    small = ("--max-episode-steps=3", "--units=8", "--num-envs=2", "--env-steps=1", "--every=1", "--tasks=2")
    assert run_command("rl2", "train", NAVIGATION, *small, "--out=out").code == 0
    (tmp_path / "far.json").write_text("[[5.0, 0.0], [0.0, 7.0], [9.0, 0.0]]")
    assert "picture: out/adaptation-paper.png" in run_command("rl2", "evaluate", "out", "--tasks=paper").out
    assert (tmp_path / "out" / "adaptation-paper.png").read_bytes().startswith(b"\x89PNG")
    far = run_command("rl2", "evaluate", "out", "--tasks=far.json")
    assert f"{NAVIGATION}, 3 tasks" in far.out
    assert "3 of 3 tasks are outside the task space of the training" in far.err
    paper, given = (
        json.loads((tmp_path / "out" / f"evaluation-{name}.json").read_text()) for name in ("paper", "given")
    )
    assert (paper["tasks"], given["tasks"]) == (40, 3)
    # Six steps, each of at most 0.1 in each direction; the reward is minus the distance.
    assert given["trial"]["value"] == pytest.approx(-6 * (5 + 7 + 9) / 3, rel=0.05)


def test_an_evaluation_can_be_written_elsewhere(run_command, tmp_path):
    run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=1", "--out=out")
    assert (
        "picture: greedy/adaptation.png"
        in run_command("rl2", "evaluate", "out", "--tasks=50", "--greedy", "--out=greedy").out
    )
    assert sorted(path.name for path in (tmp_path / "greedy").iterdir()) == ["adaptation.png", "evaluation.json"]
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_json_is_the_record_of_the_evaluation_and_writes_no_file(run_command, tmp_path):
    run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=1", "--out=out")
    sampled, greedy = (
        run_command("rl2", "evaluate", "out", "--tasks=50", "--json", *more) for more in ((), ("--greedy",))
    )
    assert not (tmp_path / "out" / "evaluation.json").exists()
    run_command("rl2", "evaluate", "out", "--tasks=50")
    assert json.loads(sampled.out) == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert json.loads(greedy.out)["greedy"]
    assert json.loads(greedy.out)["returns"] != json.loads(sampled.out)["returns"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--tasks=1", "--tasks: expected at least 2, got 1"),
        ("--tasks=some", "--tasks: expected a number, paper or a file .json, got 'some'"),
        ("--tasks=nowhere.json", "there is no file"),
        ("--seed=-1", "seed must be at least 0, got -1"),
    ],
)
def test_evaluations_that_cannot_be_are_refused_in_one_line(run_command, option, message):
    run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=1", "--out=out")
    result = run_command("rl2", "evaluate", "out", option)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert message in result.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 10}, r"multiple of a trial's 3 steps \(3 episodes of 1\), got 10: set it to 12"),
        ({"minibatches": 3}, "minibatches must divide the 20 trials of an update, got 3"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"gae_lambda": 1.5}, "gae-lambda must be from 0 to 1"),
        ({"entropy_decay": 0}, "entropy-decay must be at least 1 or None, got 0"),
        ({"lr_decay": 0}, "lr-decay must be at least 1 or None, got 0"),
        ({"lr_decay": 999}, "env_steps must be at most 999, after which lr_decay leaves no step size, got 1000000"),
        ({"chrono": 2}, "chrono must be at least 3 or None, got 2"),
        ({"chrono": 9, "memory": False}, "chrono must be left out without memory, got 9"),
        ({"reward_scale": "nan"}, "reward-scale must be finite, got nan"),
        ({"seed": 2**32}, r"seed must be at least 0 and below 2\^32, got 4294967296"),
        ({"lr": 1e38}, r"lr must be above 0 and at most 1e\+36, got 1e\+38"),
        ({"lr": "fast"}, "--lr needs a number, got 'fast'"),
        ({"learning_rate": 1}, "Unrecognized options: --learning-rate"),
        ({"tasks": 1}, "tasks must be at least 2, got 1"),
        ({"env_id": "maml_rl.envs:duan2016/Nothing-v0"}, "there is no environment"),
        ({"env_id": "CartPole-v1"}, "task_space"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(run_command, settings, message):
    options = [
        f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if name not in ("env_id", "memory")
    ]
    options += [] if settings.get("memory", True) else ["--no-memory"]
    base = ["--max-episode-steps=1", "--num-envs=20"] + (["--episodes=3"] if "episodes" not in settings else [])
    result = run_command("rl2", "train", settings.get("env_id", BANDIT), *base, *options)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert re.search(message, result.err)


@pytest.mark.parametrize("arguments", [["learn"], ["resume", "nowhere"], ["evaluate", "nowhere"], ["train"]])
def test_actions_and_directories_that_are_not_there_are_refused_in_one_line(run_command, arguments):
    result = run_command("rl2", *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
    assert re.search("expected train, resume, evaluate|there is no policy.safetensors in nowhere|ENV_ID", result.err)


def test_a_training_that_diverges_ends_in_one_line_and_keeps_what_was_saved(run_command, tmp_path):
    result = run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=6000", "--every=60", "--lr=1e30", "--out=out")
    assert result.code == 2
    last = result.err.splitlines()[-1]
    assert last.startswith("maml-rl: training stopped: a parameter is NaN or infinite after ")
    assert "the policy of the last evaluation in out is intact" in last
    assert "train again with a lower --lr" in last
    tensors = load_checkpoint(tmp_path / "out" / POLICY).tensors
    assert all(value.isfinite().all() for value in tensors.values())


@pytest.mark.parametrize("action", ["evaluate", "resume"])
def test_the_module_that_a_policy_names_is_not_imported_unless_the_user_names_it(
    run_command, action, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delitem(sys.modules, "strange", raising=False)
    (tmp_path / "strange.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=1", "--out=out")
    tensors, record = load_checkpoint(tmp_path / "out" / POLICY)
    record["config"]["env_id"] = "strange:Bandit-v0"
    save_checkpoint(tmp_path / "out" / POLICY, Checkpoint(tensors, record))
    refused = run_command("rl2", action, "out")
    assert refused.code == 2
    assert "out names the module strange in" in refused.err
    assert not Path("imported").exists()
    allowed = run_command("rl2", action, "out", "--trust-module=strange")
    assert "there is no environment 'strange:Bandit-v0'" in allowed.err
    assert Path("imported").exists()


def test_a_damaged_curve_is_refused_in_one_line(run_command, tmp_path):
    run_command("rl2", "train", BANDIT, *SMALL, "--env-steps=1", "--out=out")
    (tmp_path / "out" / CURVE).write_text('{"curve": []}')
    result = run_command("rl2", "resume", "out")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "rl2.json is damaged" in result.err


def test_the_code_and_the_commands_of_the_page_run(run_command, tmp_path):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "rl2.md").read_text(), re.M | re.S)
    assert [language for language, _ in blocks] == ["python", *["sh"] * 3]
    exec(compile(blocks[0][1], "rl2.md", "exec"), {})
    (tmp_path / "results").symlink_to(ROOT / "results")
    lines = "".join(block.replace("\\\n", "") for _, block in blocks[1:]).splitlines()
    commands = [shlex.split(line)[1:] for line in lines]
    assert {command[1] for command in commands if command[0] == "rl2"} == {"train", "resume", "evaluate"}
    shorter = {
        "train": ["--env-steps=1", "--num-envs=20", "--units=4", "--epochs=1", "--tasks=5", "--minibatches=1"],
        "resume": ["--env-steps=201"],  # one update more
        "evaluate": ["--tasks=5"],
    }
    for command in (command for command in commands if command[0] == "rl2"):
        result = run_command(*command, *shorter[command[1]])
        assert result.code == 0, (command, result.err)
