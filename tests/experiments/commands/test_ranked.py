"""Commands on several ranks, in processes as torchrun starts them."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import PrefixStore, TCPStore

from maml_rl.experiments.commands.ranked import code_digest, several_ranks
from maml_rl.experiments.runs.provenance import trained_on
from maml_rl.ranks import SILENCE
from maml_rl.run import load_run

SMALL = (
    "navigation",
    "--meta.meta-batch-size=3",
    "--meta.episodes=4",
    "--max-episode-steps=10",
    "--checkpoint-every=1",
    "--network.hidden-sizes=8",
    "--evaluation.tasks=3",
    "--evaluation.episodes=5",
)
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
PROGRAM = ("-m", "maml_rl.experiments")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ALONE = {name: value for name, value in os.environ.items() if name not in VARIABLES}
HOST = socket.gethostname()
LONGEST = 240.0  # seconds, on a machine that is busy with other things


def started(directory: Path, program: tuple[str, ...] = PROGRAM) -> "subprocess.Popen[str]":
    """A training on two ranks that runs until it is stopped, with at least one iteration done."""
    command = (*LAUNCHER, *program, "train", *SMALL, "--iterations=100000", "--out=run")
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + LONGEST
    while not rows(directory / "run"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def rows(run: Path) -> list[dict[str, str]]:
    """Rows of the log, without the times."""
    path = run / "metrics.csv"
    read = csv.DictReader(path.read_text().splitlines()) if path.exists() else []
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in read]


def ranks_of(launcher: int) -> dict[int, int]:
    """Process of each rank."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        process = status.parent
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == launcher:
                variables = (process / "environ").read_text().split("\0")
                found[int(next(v for v in variables if v.startswith("RANK=")).partition("=")[2])] = int(process.name)
        except (OSError, StopIteration):
            continue
    return found


def assert_ended(processes: dict[int, int]) -> None:
    """Checks that no process is left over."""
    left = [process for process in processes.values() if Path(f"/proc/{process}").exists()]
    assert left == []


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


@needs_proc
def test_an_interruption_saves_once_and_a_single_process_resumes_bit_for_bit(tmp_path, run_command):
    process = started(tmp_path)
    processes = ranks_of(process.pid)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LONGEST)
    assert_ended(processes)
    assert out == ""
    assert [line for line in err.splitlines() if "maml-rl" in line and "torch/distributed" not in line] == [
        "interrupted; the finished iterations are saved, resume with: maml-rl train --resume run"
    ]
    finished = load_run(tmp_path / "run").state.iteration
    assert len(rows(tmp_path / "run")) - finished in (0, 1)  # an iteration may be logged and not finished
    iterations = f"--iterations={finished + 1}"
    assert run_command("train", "--resume", "run", iterations).code == 0
    assert run_command("train", *SMALL, iterations, "--out=uninterrupted").code == 0
    resumed, uninterrupted = (load_run(tmp_path / name) for name in ("run", "uninterrupted"))
    assert resumed.progress.env_steps == uninterrupted.progress.env_steps
    assert all(value.equal(uninterrupted.state.meta[name]) for name, value in resumed.state.meta.items())
    assert rows(tmp_path / "run") == rows(tmp_path / "uninterrupted")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_rank_that_joins_one_that_has_just_died_ends_at_once_when_interrupted(tmp_path, sent):
    """It waits in C++ then, where an exception of a signal handler does not end it."""
    port = free_port()
    place = dict(zip(VARIABLES, ("0", "2", "0", "2", "localhost", port), strict=True))
    command = (sys.executable, *PROGRAM, "train", *SMALL, "--out=run")
    with subprocess.Popen(command, cwd=tmp_path, env={**ALONE, **place}, stderr=subprocess.PIPE, text=True) as process:
        try:
            store = PrefixStore(
                "maml-rl/0", TCPStore("localhost", int(port), 2, is_master=False, timeout=timedelta(seconds=LONGEST))
            )
            store.wait(["process/0"])
            store.set("host/1", HOST)
            store.wait(["0//cpu//0/0"])  # of gloo, which now waits for rank 1
            process.send_signal(sent)
            _, err = process.communicate(timeout=20)  # torchrun would kill it after 30 seconds
        finally:
            process.kill()
    assert (process.returncode, err) == (-sent, "")
    assert not (tmp_path / "run").exists()


def test_two_machines_resume_and_evaluate_the_run_of_one(tmp_path, run_command):
    """As in docs/many_machines.md, with two launchers on this machine."""
    assert run_command("train", *SMALL, "--iterations=1", "--out=run").code == 0
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    assert run_command("train", "--resume", "alone", "--iterations=2").code == 0
    endpoint = f"--rdzv-endpoint=localhost:{free_port()}"
    machines = (*LAUNCHER[:3], "--nnodes=2", "--nproc-per-node=1", "--rdzv-id=1", "--rdzv-backend=c10d", endpoint)
    train = (*machines, *PROGRAM, "train", "--resume=run", "--iterations=2", "--tracker=trackio")
    tracked = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    options: dict[str, Any] = {"cwd": tmp_path, "env": tracked, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(train, **options) for _ in range(2)]
    outputs = [process.communicate(timeout=LONGEST)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    (printed,) = filter(None, outputs)  # rank 0 alone prints
    assert re.match(r"2 iterations, [\d,]+ env steps in ", printed)
    assert printed.endswith("the report, in the tracker too: maml-rl visualize run --tracker trackio\n")
    with closing(sqlite3.connect(tmp_path / "trackio" / "maml-rl.db")) as database:  # rank 0 alone has a tracker
        assert len(database.execute("SELECT run_id FROM configs").fetchall()) == 1
    assert rows(tmp_path / "run") == rows(tmp_path / "alone")
    assert [noted.get("ranks") for noted in trained_on(tmp_path / "run")] == [None, 2]

    settings = ("--tasks=3", "--episodes=5", "--gradient-steps=1", "--json")
    program = ("--no-python", str(Path(sys.executable).with_name("maml-rl")), "evaluate", "run", *settings)
    done = subprocess.run([*LAUNCHER, *program], cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0
    assert json.loads(done.stdout)["curves"] == json.loads(run_command("evaluate", "run", *settings).out)["curves"]

    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    command = (*LAUNCHER, *PROGRAM, "compare", "copy", "--out=copy")
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=LONGEST)
    assert run_command("compare", "run", "--out=run").code == 0
    together, single = (json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("copy", "run"))
    assert together["methods"][0]["runs"][0].pop("directory") == "copy"
    assert single["methods"][0]["runs"][0].pop("directory") == "run"
    assert together == single


@needs_proc
def test_a_rank_that_is_stopped_ends_the_job_and_is_named(tmp_path):
    impatient = tmp_path / "impatient.py"
    run = "runpy.run_module('maml_rl.experiments', run_name='__main__')"
    impatient.write_text(f"import runpy, maml_rl.ranks as ranks; ranks.SILENCE = {SILENCE / 3}; {run}")
    process = started(tmp_path, (str(impatient),))
    processes = ranks_of(process.pid)
    os.kill(processes[1], signal.SIGSTOP)
    _, err = process.communicate(timeout=LONGEST)
    assert_ended(processes)
    assert process.returncode == 1
    assert f"maml-rl: training stopped: rank 1 ({HOST}) has ended, or does not answer; the finished iterations" in err


@needs_proc
def test_a_rank_that_is_killed_ends_the_job_and_is_named(tmp_path):
    process = started(tmp_path)
    processes = ranks_of(process.pid)
    assert len(processes) == 2
    os.kill(processes[1], signal.SIGKILL)
    _, err = process.communicate(timeout=LONGEST)
    assert_ended(processes)
    assert process.returncode == 1
    assert (
        f"maml-rl: training stopped: rank 1 ({HOST}) has ended, or does not answer; the finished iterations are saved, "
        "resume with: maml-rl train --resume run\n"
    ) in err
    assert len(rows(tmp_path / "run")) - load_run(tmp_path / "run").state.iteration in (0, 1)


def free_port() -> str:
    """A port that nothing listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def pair(directory: Path, *commands: tuple[str, ...]) -> list[tuple[int, str]]:
    """Exit code and errors of two ranks with a command each, without torchrun."""
    processes, port = [], free_port()
    for rank, command in enumerate(commands):
        values = (str(rank), "2", str(rank), "2", "127.0.0.1", port)
        environment = ALONE | dict(zip(VARIABLES, values, strict=True))
        arguments = (sys.executable, *PROGRAM, *command)
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(arguments, cwd=directory, env=environment, **pipes))
    errors = [process.communicate(timeout=LONGEST)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


def test_ranks_with_different_settings_are_refused_before_the_run_begins(tmp_path):
    first, second = pair(tmp_path, ("train", *SMALL), ("train", *SMALL, "--seed=3"))
    message = f"the ranks differ: --seed is 3 on rank 1 ({HOST}) and 0 on rank 0 ({HOST}); start all of them alike"
    assert first == (2, f"maml-rl: {message}\n")
    assert second == (2, "")
    assert not (tmp_path / "runs").exists()


def test_a_code_digest_depends_on_the_code_and_not_on_its_place(tmp_path):
    for place in ("first", "second"):
        for file in ("core.py", "inner/part.py", "notes.txt"):
            (tmp_path / place / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place / file).write_text(f"{file}\n")

    def digest(place: str) -> str:
        return code_digest({"package": tmp_path / place, "package.inner": tmp_path / place / "inner"})

    assert digest("first") == digest("second")
    apart = {"package": tmp_path / "second", "package.inner": tmp_path / "first" / "inner"}
    (tmp_path / "second" / "inner" / "part.py").unlink()
    assert code_digest(apart) == digest("first")  # as in an editable installation
    (tmp_path / "second" / "notes.txt").write_text("other notes\n")
    assert code_digest(apart) == digest("first")
    (tmp_path / "second" / "core.py").write_text("another line\n")
    assert code_digest(apart) != digest("first")


def test_more_ranks_than_chunks_are_refused_before_the_run_begins(tmp_path):
    command = ("train", "sinusoid", "--iterations=1")
    first, second = pair(tmp_path, command, command)
    assert first == (
        2,
        "maml-rl: 2 ranks cannot share a meta-iteration of 1 chunk (25 tasks, 25 at once): start at most 1, or set "
        "meta.chunk_size to at most 12, which changes how sums are rounded\n",
    )
    assert second[1] == ""
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def variables(monkeypatch):
    """Sets the launcher's variables."""

    def given(**values: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    given()
    return given


WHOLE = dict(zip(VARIABLES, ("0", "2", "0", "2", "localhost", "29500"), strict=True))


def test_without_variables_or_with_one_rank_a_command_runs_alone(variables):
    assert not several_ranks()
    variables(MASTER_ADDR="localhost", MASTER_PORT="29500")
    assert not several_ranks()
    variables(**WHOLE | {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"})
    assert not several_ranks()
    variables(**WHOLE)
    assert several_ranks()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "RANK, WORLD_SIZE set, but not LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR"),
        (WHOLE | {"RANK": "first"}, "RANK should be a whole number, is 'first': start with torchrun"),
        (WHOLE | {"RANK": "2"}, "RANK 2 should be below WORLD_SIZE 2"),
    ],
)
def test_incomplete_launcher_variables_are_named(variables, run_command, given, message):
    variables(**given)
    result = run_command("train", *SMALL)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"maml-rl: {message}")
    assert result.err.count("\n") == 1


def test_a_command_for_one_process_says_so_once(variables, run_command):
    variables(**WHOLE)
    assert run_command("presets").err == "maml-rl: maml-rl presets runs in one process: start it without torchrun\n"
    variables(**WHOLE | {"RANK": "1", "LOCAL_RANK": "1"})
    assert run_command("presets").err == ""
