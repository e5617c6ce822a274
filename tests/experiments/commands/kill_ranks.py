"""Kills ranks at random, again and again, and checks what is left: python tests/experiments/commands/kill_ranks.py

Each job resumes the run of the one before. After a random time, in its start or its training, a random rank is killed;
now and then it is stopped instead, once the ranks have joined. The job has to end within the limit, leave no process,
and lose nothing but what rank 0 had not saved. In the end, the run has to equal an uninterrupted one of a single
process, bit for bit.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from test_ranked import PROGRAM, SMALL, ranks_of, rows

from maml_rl.run import CHECKPOINT, Run, load_run

LIMIT = 30.0  # seconds
LATEST = 12.0  # seconds after the start of a job


def main() -> None:
    """Kills, checks and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="jobs that lose a rank (30)")
    parser.add_argument("--ranks", type=int, default=3, help="ranks of a job (3)")
    parser.add_argument(
        "--stop-every", type=int, default=6, help="every how many jobs a rank is stopped, not killed (6)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of ranks and moments (0)")
    arguments = parser.parse_args()
    chance, longest = random.Random(arguments.seed), 0.0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for turn in range(arguments.kills):
            stopped = turn % arguments.stop_every == arguments.stop_every - 1
            sent = signal.SIGSTOP if stopped else signal.SIGKILL
            seconds, said = job(directory, arguments.ranks, chance, sent)
            longest = max(longest, seconds)
            print(f"{turn + 1:>3}: {said}, ended after {seconds:.1f} s", flush=True)
        finished = load_run(directory / "run").state.iteration
        run(directory, arguments.ranks, finished + 1).communicate(timeout=600)
        command = [sys.executable, *PROGRAM, "train", *SMALL, f"--iterations={finished + 1}", "--out=uninterrupted"]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
        resumed, uninterrupted = (load_run(directory / name) for name in ("run", "uninterrupted"))
        assert same_bits(resumed, uninterrupted)
        assert rows(directory / "run") == rows(directory / "uninterrupted")
    print(f"{arguments.kills} jobs; the longest took {longest:.1f} s to end; {finished + 1} iterations, the same bits")


def run(directory: Path, size: int, iterations: int) -> "subprocess.Popen[str]":
    """A job that trains the run up to an iteration."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}")
    command = (*launcher, *PROGRAM, "train", *SMALL, f"--iterations={iterations}", "--out=run", "--resume-if-exists")
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def job(directory: Path, size: int, chance: random.Random, sent: signal.Signals) -> tuple[float, str]:
    """Starts a job, hits one of its ranks and checks how it ends. Returns the seconds that took, and a summary."""
    before, known = iteration(directory), len(rows(directory / "run"))  # which may be one more, and is then dropped
    started, process = time.monotonic(), run(directory, size, 100000)
    while len(processes := ranks_of(process.pid)) < size:
        time.sleep(0.02)
    time.sleep(max(0.0, chance.uniform(0.0, LATEST) - (time.monotonic() - started)))
    while sent == signal.SIGSTOP and len(rows(directory / "run")) <= known:  # the ranks have joined by then
        time.sleep(0.02)
    hit, logged = chance.randrange(size), len(rows(directory / "run"))
    os.kill(processes[hit], sent)
    at = time.monotonic()
    _, err = process.communicate(timeout=600)
    seconds, after = time.monotonic() - at, iteration(directory)
    said = f"{sent.name} to rank {hit} {at - started:.1f} s after the start, {after - before} iterations gained"
    if process.returncode == 0 or seconds > LIMIT or any(Path(f"/proc/{one}").exists() for one in processes.values()):
        raise SystemExit(f"{said}: exit code {process.returncode} after {seconds:.1f} s; {err}")
    if logged > known and f"rank {hit} (" not in err:
        raise SystemExit(f"{said}: the rank is not named; {err}")
    if re.search(r'File ".*(maml_rl|experiments)/', err):
        raise SystemExit(f"{said}: a traceback of the package; {err}")
    if after < logged - 2:  # one iteration in work, and one that was logged and not finished
        raise SystemExit(f"{said}: {after} iterations saved of {logged} that were logged; {err}")
    return seconds, said


def iteration(directory: Path) -> int:
    """Number of iterations that the run has finished."""
    there = (directory / "run" / CHECKPOINT).exists()
    return load_run(directory / "run").state.iteration if there else 0


def same_bits(one: Run, other: Run) -> bool:
    """Whether two runs have the same parameters and env steps."""
    alike = all(value.equal(other.state.meta[name]) for name, value in one.state.meta.items())
    return alike and one.progress.env_steps == other.progress.env_steps


if __name__ == "__main__":
    main()
