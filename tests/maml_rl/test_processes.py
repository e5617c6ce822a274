"""Environments in separate processes: real processes and real crashes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from time import sleep

import numpy as np
import pytest
import torch

import maml_rl.processes
from maml_rl.config import PolicyConfig
from maml_rl.errors import InputError, WorkerError
from maml_rl.initial import build_policy, parameters
from maml_rl.processes import Processes, ProcessVectorEnv, StartMethod
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import TaskVectorEnv, assign_tasks, evaluation_tasks, resets_itself, task_space, vectorize
from maml_rl.types import Trajectories, repeat
from maml_rl.waiting import report_waiting, reporting_waits

WALK = "plain_environments:WalkForTests-v0"
FAILING = "plain_environments:FailingForTests-v0"
TASKS, EPISODES = 3, 4


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Lets this process and those that it starts import `plain_environments`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "environments")


@pytest.fixture
def processes() -> Iterator[Callable[..., ProcessVectorEnv]]:
    """Starts sub-environments in processes, and checks that none is left behind."""
    started: list[TaskVectorEnv] = []

    def start(
        env_id: str, count: int, each: int = 1, method: StartMethod = "spawn", **settings: object
    ) -> ProcessVectorEnv:
        envs = vectorize(env_id, 100, Processes(count, method, envs_each=each), **settings)
        assert isinstance(envs, ProcessVectorEnv)
        started.append(envs)
        return envs

    yield start
    for envs in started:
        envs.close()
        assert all(process.exitcode is not None for process in envs.processes)


def sampled(envs: TaskVectorEnv) -> Trajectories:
    policy = build_policy(envs, PolicyConfig(hidden_sizes=(8,)), seed=0)
    tasks = evaluation_tasks(task_space(envs), TASKS)
    return collect(envs, policy, repeat(parameters(policy), TASKS), tasks, EPISODES, Draw(0, Phase.TRAINING))


FORKED = [(count, each, "fork") for count, each in ((1, 1), (2, 1), (5, 1), (1, 5), (2, 4), (3, 16))]


@pytest.mark.parametrize(("name", "ways"), [("Walk", [(2, 1, "spawn"), (2, 4, "spawn")]), ("Choice", FORKED)])
def test_episodes_are_bit_for_bit_the_same_in_any_number_of_processes(processes, name, ways):
    env_id = f"plain_environments:{name}ForTests-v0"
    # One process for each episode: it never comes to an environment's second episode, or to a spare one.
    expected = sampled(processes(env_id, TASKS * EPISODES, method="fork"))
    lengths = expected.mask.sum(-1)
    assert lengths.min() < lengths.max() == 10  # some end early; they must not be stepped on, nor do they cost anything
    for count, each, method in ways:
        envs = processes(env_id, count, each, method)
        assert (envs.num_envs, len(envs.processes)) == (count * each, count)
        for field, a, b in zip(Trajectories._fields, sampled(envs), expected, strict=True):
            assert torch.equal(a, b), field


def test_there_are_no_more_processes_than_sub_environments_asked_for():
    envs = vectorize(WALK, 2, Processes(64))
    assert (envs.num_envs, len(envs.processes)) == (2, 2)
    envs.close()
    envs = vectorize(WALK, 5, Processes(2, envs_each=16))
    assert (envs.num_envs, len(envs.processes)) == (5, 2)
    assert sampled(envs).mask.shape[:2] == (TASKS, EPISODES)
    envs.close()


def test_an_observation_is_not_changed_by_later_steps(processes):
    envs = processes(WALK, 1)
    first, _ = envs.reset(seed=[0])
    kept = first.copy()
    second = envs.step(np.ones((1, 1), np.float32))[0]
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)
    assert first.dtype == np.float64


def test_only_numbers_of_info_are_returned(processes):
    envs = processes(WALK, 2)
    assert envs.reset(seed=[0, 1])[1] == {}
    infos = envs.step(np.zeros((2, 1), np.float32))[-1]
    assert {name for name in infos if not name.startswith("_")} == {"number"}
    assert infos["number"].tolist() == [1.0, 1.0]


def test_a_finished_environment_stays_as_it_ended_until_its_reset(processes):
    envs = processes(WALK, 2)
    assert not resets_itself(envs)
    assign_tasks(envs, [np.zeros(1, np.float32)] * 2)
    envs.reset(seed=[0, 1])
    right_left = np.array([[1.0], [-1.0]], np.float32)
    for _ in range(5):
        observations, _, terminated, truncated, _ = envs.step(right_left)
    assert terminated.tolist() == [True, False]
    again = envs.step(right_left)
    assert np.array_equal(again[0][0], observations[0])
    assert again[1][0] == 0
    assert again[2].tolist() == [True, False]
    assert not truncated.any()
    assert again[1][1] < 0
    for _ in range(4):
        *_, terminated, truncated, _ = envs.step(right_left)
    assert terminated.tolist() == [True, False]
    assert truncated.tolist() == [False, True]
    observations, _ = envs.reset(seed=[5, 6], options={"reset_mask": np.array([False, True])})
    assert observations[0, 1] > 0  # not reset
    assert observations[1, 1] == 0


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("raise", "raised plain_environments.UnpicklableError: 100 % broken: %s %d"),
        ("lines", "raised ValueError: the leg is broken: buy a new one"),
        ("shape", "an observation has shape (5,), observation_space has (2,)"),
        ("reward", "raised TypeError: "),
        ("exit", "exited with code 3"),
    ],
)
@pytest.mark.parametrize(("count", "each", "method"), [(2, 1, "fork"), (1, 2, "spawn")])
def test_a_failure_names_the_process_and_its_task(processes, way, expected, count, each, method):
    envs = processes(FAILING, count, each, method, way=way)
    tasks = [np.array([-0.5], np.float32), np.array([0.25], np.float32)]
    assign_tasks(envs, tasks)
    envs.reset(seed=[0, 1])
    step = np.zeros((2, 1), np.float32)
    envs.step(step)
    envs.step(step)
    with pytest.raises(WorkerError) as raised:
        envs.step(step)
    assert str(raised.value).startswith(f"process {count - 1} of FailingForTests-v0 (task [0.25]) ")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
    assert ("Traceback" in raised.value.trace) == (way != "exit")
    if way == "raise":
        assert "plain_environments.py" in raised.value.trace


@pytest.mark.parametrize("method", ["step", "reset", "set_attr", "call"])
def test_a_killed_process_is_reported_with_its_task_whatever_is_asked_next(processes, method):
    envs = processes(WALK, 3, method="fork")
    assign_tasks(envs, [np.array([x], np.float32) for x in (-0.5, 0.0, 0.5)])
    envs.reset(seed=[0, 1, 2])
    os.kill(envs.processes[1].pid, signal.SIGKILL)
    envs.processes[1].join()
    with pytest.raises(WorkerError, match=r"process 1 of .*task \[0\.0\]\) was killed by SIGKILL") as raised:
        {
            "step": lambda: envs.step(np.zeros((3, 1), np.float32)),
            "reset": lambda: envs.reset(seed=[0, 1, 2]),
            "set_attr": lambda: envs.set_attr("seconds", 1.0),
            "call": lambda: envs.call("task_space"),
        }[method]()
    assert raised.value.trace == ""


def test_a_process_killed_in_the_middle_of_a_step_is_reported(processes):
    envs = processes(WALK, 2, seconds=30.0)
    envs.reset(seed=[0, 1])
    killing = Timer(0.3, os.kill, (envs.processes[0].pid, signal.SIGKILL))
    killing.start()
    with pytest.raises(WorkerError, match=r"process 0 of .* was killed by SIGKILL"):
        envs.step(np.zeros((2, 1), np.float32))
    killing.join()
    envs.close(terminate=True)


def test_a_process_that_cannot_make_its_environment_is_reported(capfd):
    place = r"process \d of FailingForTests-v0 \(no task yet\)"
    with pytest.raises(WorkerError, match=f"{place} raised RuntimeError: the port is in use") as raised:
        vectorize(FAILING, 2, Processes(2), way="construct")
    assert "plain_environments.py" in raised.value.trace
    assert capfd.readouterr().err == ""


SCRIPT = """\
import sys
from maml_rl.processes import Processes
from maml_rl.tasks import vectorize
{first}
vectorize("plain_environments:WalkForTests-v0", 2, Processes(2))
"""


@pytest.mark.parametrize(
    ("first", "end"),
    [
        ("", "exited with code 1"),
        ("if __name__ != '__main__': sys.exit(3)", "exited with code 3"),
        ("if __name__ != '__main__': sys.exit()", "exited with code 0"),
    ],
    ids=["starts processes", "fails", "ends"],
)
def test_a_script_that_spawned_processes_run_again_is_named_in_the_last_line(tmp_path, first, end):
    script = tmp_path / "my_script.py"
    script.write_text(SCRIPT.format(first=first))
    path = str(Path(__file__).parents[1] / "environments")
    done = subprocess.run(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert f"process 0 of WalkForTests-v0 (no task yet) {end} while it imported my_script.py" in last
    assert last.endswith('put what the script does under if __name__ == "__main__":')


def test_a_process_that_ends_while_it_makes_its_environment_is_not_blamed_on_the_script():
    with pytest.raises(WorkerError, match=r"process \d of FailingForTests-v0 \(no task yet\) exited with code 4$"):
        vectorize(FAILING, 2, Processes(2), way="exit at once")


def interrupt_at_third_report(monkeypatch, call: str) -> list[tuple[str, float]]:
    """Reports of waiting for a call; the third one raises KeyboardInterrupt."""
    reports: list[tuple[str, float]] = []

    def report(what: str, seconds: float) -> None:
        if what.endswith(f"come back from {call}"):
            reports.append((what, seconds))
        if len(reports) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(maml_rl.processes, "report_waiting", report)
    return reports


@pytest.mark.parametrize("call", ["step", "reset"])
def test_an_environment_that_hangs_is_named_with_its_task_and_a_growing_time(monkeypatch, call):
    reports = interrupt_at_third_report(monkeypatch, call)
    envs = vectorize(FAILING, 2, Processes(2, report_hang_after=0.05), way=f"hang in {call}")
    assign_tasks(envs, [np.array([x], np.float32) for x in (-0.5, 0.5)])

    def episode() -> None:
        envs.reset(seed=[0, 1])
        for _ in range(10):
            envs.step(np.zeros((2, 1), np.float32))

    with pytest.raises(KeyboardInterrupt):
        episode()
    envs.close(terminate=True)
    named = f"process 1 of FailingForTests-v0 (task [0.5]) has not come back from {call}"
    assert reports[-2:] == [(named, 0.1), (named, 0.2)]


def test_environments_that_are_never_made_are_named(monkeypatch):
    reports = interrupt_at_third_report(monkeypatch, "making its environment")
    monkeypatch.setattr(maml_rl.processes, "_GRACE_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt):
        vectorize(FAILING, 2, Processes(2, report_hang_after=0.05), way="hang at once")
    assert reports[-1][0].startswith("process 0 of FailingForTests-v0 (no task yet) and 1 more have not come back")


def test_a_wait_is_reported_on_stderr_unless_that_is_turned_off(capsys):
    report_waiting("an environment has not been made", 120.0)
    expected = "maml-rl: an environment has not been made for 120 s: is it hanging? Ctrl-C stops\n"
    assert capsys.readouterr().err == expected
    with reporting_waits("an environment has not been made", float("inf")):
        pass
    with reporting_waits("an environment has not been made", 1e-3):
        while not (err := capsys.readouterr().err):
            sleep(1e-3)
    assert err.startswith("maml-rl: an environment has not been made for 0.001 s")


def test_a_process_that_hangs_is_killed_when_it_has_to_end(processes):
    envs = processes(WALK, 1, seconds=600.0)
    envs.reset(seed=[0])
    envs.parent_pipes[0].send(("step", ()))
    envs.close(terminate=True)
    assert envs.processes[0].exitcode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["WithoutTask", "EndlessWalk"])
def test_an_environment_that_cannot_be_trained_is_refused_and_its_processes_end(name):
    with pytest.raises(InputError) as raised:
        vectorize(f"plain_environments:{name}ForTests-v0", 2, Processes(2))
    assert ("attribute task" if name == "WithoutTask" else "max_episode_steps") in str(raised.value)


def test_a_batched_environment_keeps_its_batch():
    envs = vectorize("maml_rl.envs:finn2017/Navigation2D-v0", 7, Processes(2))
    assert envs.num_envs == 7
    assert not isinstance(envs, ProcessVectorEnv)


def test_a_time_limit_in_the_entry_point_is_that_of_the_episodes(processes):
    assert sampled(processes("plain_environments:LimitedWalkForTests-v0", 1)).mask.sum(-1).max() == 4


def test_settings_reach_the_environment_and_its_time_limit(processes):
    envs = processes(WALK, 1, max_episode_steps=3)
    assert sampled(envs).mask.shape[-1] == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"count": 0}, "at least 1, got 0"),
        ({"envs_each": 0}, "envs_per_process must be at least 1, got 0"),
        ({"start_method": "no"}, "'no'"),
        ({"report_hang_after": 0.0}, "above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, expected):
    with pytest.raises(InputError, match=expected):
        Processes(**settings)
