"""Time of a meta-iteration by the number of ranks: measured on this machine, and predicted for 1 to 64 machines.

Measured: one process with a thread for each core, and torchrun's ranks, which share the cores. They take turns, each in
new processes; medians over the rounds are quoted. All must reach the same bits. What is gathered is counted: in a
ring, as gloo gathers, a rank sends its block to the others once each.

Predicted: an iteration is what every rank does, plus its tasks, plus the gatherings.

    seconds = fixed + tasks of the largest share x (update + steps x seconds of a step) + gatherings

The first terms are fitted to one process with all tasks and with half of them. For environments without a batch, a step
costs its own time, shared by the cores, plus what sampling adds to it, which is measured with an environment that does
nothing. A gathering among R machines takes R - 1 messages of one share each. Each message costs a latency plus its
bytes divided by the bandwidth. All machines are assumed to be like this one.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

PRESET = "half-cheetah-dir"
MACHINES = (1, 2, 4, 8, 16, 32, 64)
STEP_SECONDS = (1e-4, 1e-3, 1e-2)
LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
NULL_ID = "NullForBenchmarks-v0"


class Null(gymnasium.Env[Any, Any]):
    """An environment without a batched form, whose step does nothing."""

    observation_space = Box(-1.0, 1.0, (20,), np.float32)
    action_space = Box(-1.0, 1.0, (6,), np.float32)
    task_space = Box(0.0, 1.0, (1,), np.float32)
    task = np.zeros(1, np.float32)
    observed = np.zeros(20, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        super().reset(seed=seed)
        return self.observed, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Does nothing."""
        return self.observed, 0.0, False, False, {}


@dataclass(frozen=True)
class Network:
    """What a message between two machines costs."""

    latency: float  # seconds
    bandwidth: float  # bytes per second

    def seconds(self, size: int, share: float) -> float:
        """Time of a gathering among `size` ranks, where each contributes `share` bytes."""
        return (size - 1) * (self.latency + share / self.bandwidth)


@dataclass(frozen=True)
class Cost:
    """What an iteration consists of, in one process on all cores of a machine; times in seconds."""

    fixed: float
    update: float  # of one task
    sampling: float  # of one task
    steps: int  # of one task
    gatherings: list[int]  # bytes of one task in each of them

    def predicted(self, tasks: int, size: int, network: Network, sampling: float | None = None) -> float:
        """Seconds of an iteration with `tasks` tasks on `size` machines."""
        share = -(-tasks // size)
        of_task = self.update + (self.sampling if sampling is None else sampling)
        return self.fixed + share * of_task + sum(network.seconds(size, share * n) for n in self.gatherings)


def watched() -> list[tuple[int, float]]:
    """Bytes and seconds of each gathering of this rank, from now on."""
    from maml_rl.ranks import Ranks

    found: list[tuple[int, float]] = []
    original = Ranks.all_gather

    def all_gather(self: Ranks, block: Any) -> Any:
        started = time.perf_counter()
        blocks = original(self, block)
        found.append((block.nbytes, time.perf_counter() - started))
        return blocks

    Ranks.all_gather = all_gather  # type: ignore[method-assign]
    return found


def work(out: Path, tasks: int, iterations: int) -> None:
    """Runs iterations, alone or as one of several ranks, and writes what they cost."""
    import torch

    from maml_rl.experiments.presets.rl_presets import RL_PRESETS
    from maml_rl.machine import Machine
    from maml_rl.processes import available_cores
    from maml_rl.ranks import ALONE, Launch, join
    from maml_rl.run import open_learner

    torch.set_num_threads(1)
    ranks = join(Launch(*(int(os.environ[name]) for name in LAUNCH))) if "RANK" in os.environ else ALONE
    gatherings, done = watched(), []
    config = RL_PRESETS[PRESET].config
    config = replace(config, meta=replace(config.meta, meta_batch_size=tasks))
    with open_learner(config, Machine()) as learner:
        state = learner.initial()
        for _ in range(iterations + 1):
            gatherings.clear()
            started = time.perf_counter()
            state, metrics = learner.iterate(state)
            ranks.check_same_bits(state)
            seconds = time.perf_counter() - started
            done.append({"seconds": seconds, "sampling": metrics.values["time/sampling_seconds"]})
            done[-1]["gathering"] = sum(each for _, each in gatherings)
        sizes = [size for size, _ in gatherings]
        in_step = sum(gathered_in_step(ranks, size) for size in sizes) if ranks.size > 1 else 0.0
    sha = hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.meta.values()))
    record = {"iterations": done[1:], "sizes": sizes, "in_step": in_step, "digest": sha.hexdigest()}
    record |= {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, "cores": available_cores()}
    record["steps"] = int(metrics.values["sampling/env_steps"]) // tasks
    (out / f"{ranks.rank}.json").write_text(json.dumps(record))
    ranks.close()


def gathered_in_step(ranks: Any, size: int, repeats: int = 20) -> float:
    """Median time of a gathering whose ranks begin together: the transfer, without waiting for others' tasks."""
    import torch

    seconds = []
    for _ in range(repeats):
        ranks.all_gather(torch.zeros(1))
        started = time.perf_counter()
        ranks.all_gather(torch.zeros(size, dtype=torch.uint8))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measured(size: int, tasks: int, iterations: int) -> list[dict[str, Any]]:
    """What each of `size` ranks measured; if it is 0, what a process without torchrun measured."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"] if size else []
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, *launcher, __file__, "--work", directory, "--tasks", str(tasks)]
        subprocess.run([*command, "--iterations", str(iterations)], check=True, stderr=subprocess.DEVNULL)
        return [json.loads((Path(directory) / f"{rank}.json").read_text()) for rank in range(max(size, 1))]


def added_by_sampling(repeats: int = 5) -> float:
    """Seconds that sampling adds to each step of an environment without a batch, on all cores; the median."""
    import torch

    from maml_rl.config import PolicyConfig
    from maml_rl.initial import build_policy, parameters
    from maml_rl.processes import Processes, available_cores
    from maml_rl.rollouts import collect
    from maml_rl.seeding import Draw, Phase
    from maml_rl.tasks import evaluation_tasks, task_space, vectorize
    from maml_rl.types import repeat

    torch.set_num_threads(1)
    gymnasium.register(NULL_ID, Null, max_episode_steps=200)  # type: ignore[arg-type]
    tasks, episodes, seconds = 2, 4, []
    envs = vectorize(NULL_ID, tasks * episodes, Processes(available_cores()))
    try:
        policy, drawn = build_policy(envs, PolicyConfig(), seed=0), evaluation_tasks(task_space(envs), tasks)
        for index in range(repeats + 1):
            started = time.perf_counter()
            collect(envs, policy, repeat(parameters(policy), tasks), drawn, episodes, Draw(0, Phase.TRAINING, index))
            seconds.append((time.perf_counter() - started) / (tasks * episodes * 200))
    finally:
        envs.close()
    return statistics.median(seconds[1:])


def seconds_of(records: list[dict[str, Any]], name: str = "seconds") -> float:
    """Median over the iterations of the slowest rank's value."""
    iterations = zip(*(record["iterations"] for record in records), strict=True)
    return statistics.median([max(float(one[name]) for one in of_all) for of_all in iterations])


def fitted(whole: list[dict[str, Any]], half: list[dict[str, Any]], tasks: int, sizes: list[int]) -> Cost:
    """The model of an iteration, from measurements with all tasks and with half of them.

    Args:
        whole: Records of one process with all tasks, by round.
        half: With half of them.
        tasks: Number of tasks.
        sizes: Bytes of each gathering of all tasks.
    """
    of_one, of_half = (statistics.median(seconds_of([record]) for record in records) for records in (whole, half))
    sampling = statistics.median(seconds_of([record], "sampling") for record in whole) / tasks
    of_task = (of_one - of_half) / (tasks - tasks // 2)
    gatherings = [size // tasks for size in sizes]
    return Cost(max(of_one - tasks * of_task, 0.0), of_task - sampling, sampling, whole[0]["steps"], gatherings)


def main() -> None:
    """Measures, predicts, prints, and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="numbers of ranks measured (1 2 4)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, in turn (3)")
    parser.add_argument("--iterations", type=int, default=3, help="iterations of each, after one to warm up (3)")
    parser.add_argument("--tasks", type=int, default=40, help="meta-batch size measured (40)")
    parser.add_argument("--predicted-tasks", type=int, default=64, help="meta-batch size predicted (64)")
    parser.add_argument("--latency", type=float, default=1e-4, help="assumed seconds of a message (1e-4)")
    parser.add_argument("--bandwidth", type=float, default=1e9, help="assumed bits per second (1e9)")
    parser.add_argument("--out", type=Path, default=Path("runs/ranks.png"), help="the picture (runs/ranks.png)")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.tasks, arguments.iterations)
        return
    records = all_measured(arguments)
    summary = summarised(arguments, records)
    network = Network(arguments.latency, arguments.bandwidth / 8)
    predictions = predicted(summary, arguments.predicted_tasks, network)
    if arguments.json:
        summary["cost"] = vars(summary["cost"])
        print(json.dumps(summary | {"predicted": predictions}))
    else:
        report(arguments, summary, predictions)
    draw(predictions, arguments.out)


def all_measured(arguments: argparse.Namespace) -> dict[str, list[list[dict[str, Any]]]]:
    """Records of the ranks of each case, by round. All cases of all tasks have to reach the same bits."""
    cases = {"process": (0, arguments.tasks), "half": (0, arguments.tasks // 2)}
    cases |= {f"ranks {n}": (n, arguments.tasks) for n in arguments.ranks}
    records: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in cases}
    for turn in range(arguments.rounds):
        for name, (size, tasks) in cases.items():
            print(f"round {turn + 1} of {arguments.rounds}: {name}", file=sys.stderr, flush=True)
            records[name].append(measured(size, tasks, arguments.iterations))
    digests = {r["digest"] for name, rounds in records.items() if name != "half" for rs in rounds for r in rs}
    assert len(digests) == 1, "the same bits are reached by any number of ranks"
    return records


def summarised(arguments: argparse.Namespace, records: dict[str, list[list[dict[str, Any]]]]) -> dict[str, Any]:
    """Figures of each number of ranks, and the model."""
    alone = [of_round[0] for of_round in records["process"]]
    several = max(arguments.ranks)
    sizes = [n * several for n in records[f"ranks {several}"][0][0]["sizes"]] if several > 1 else []
    cost = fitted(alone, [of_round[0] for of_round in records["half"]], arguments.tasks, sizes)
    rows = [row(0, records["process"], alone)]
    rows += [row(n, records[f"ranks {n}"], alone) for n in arguments.ranks]
    for one in rows:
        one["predicted"] = cost.fixed + arguments.tasks * (cost.update + cost.sampling) + one["transfer"]
    return {"cores": alone[0]["cores"], "measured": rows, "cost": cost, "sampling_adds": added_by_sampling()}


def row(size: int, rounds: list[list[dict[str, Any]]], alone: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of one number of ranks, compared with the process without torchrun in the same round."""
    seconds = [seconds_of(records) for records in rounds]
    efficiency = [seconds_of([record]) / own for record, own in zip(alone, seconds, strict=True)]
    first = rounds[0][0]
    return {
        "ranks": size,
        "seconds": statistics.median(seconds),
        "efficiency": statistics.median(efficiency),
        "bytes_sent": (size - 1) * sum(first["sizes"]) if size > 1 else 0,
        "gatherings": len(first["sizes"]) if size > 1 else 0,
        "waiting_and_transfer": statistics.median(seconds_of(records, "gathering") for records in rounds),
        "transfer": statistics.median(records[0]["in_step"] for records in rounds),
        "peak_mb_of_a_rank": statistics.median(max(r["peak_mb"] for r in records) for records in rounds),
    }


def predicted(summary: dict[str, Any], tasks: int, network: Network) -> dict[str, dict[int, float]]:
    """Seconds of an iteration by environment and number of machines."""
    cost, added, cores = summary["cost"], summary["sampling_adds"], summary["cores"]
    sampling = {f"{PRESET}, {1e6 * cost.sampling / cost.steps:.0f} us (measured)": cost.sampling}
    sampling |= {f"no batch, {1e3 * each:g} ms": cost.steps * (each / cores + added) for each in STEP_SECONDS}
    return {
        name: {size: cost.predicted(tasks, size, network, each) for size in MACHINES if size <= tasks}
        for name, each in sampling.items()
    }


def report(arguments: argparse.Namespace, summary: dict[str, Any], predictions: dict[str, dict[int, float]]) -> None:
    """Prints what was measured, the model and its predictions."""
    cost = summary["cost"]
    print(f"{PRESET}, {arguments.tasks} tasks, {summary['cores']} cores; seconds of an iteration, median of rounds\n")
    print("ranks    seconds  predicted  efficiency  MB sent  gatherings  transfer  with waiting  peak MB of a rank")
    for one in summary["measured"]:
        name = one["ranks"] or "process"
        print(
            f"{name:<8} {one['seconds']:7.2f} {one['predicted']:10.2f} {one['efficiency']:11.2f} "
            f"{one['bytes_sent'] / 1e6:8.1f} {one['gatherings']:11} {one['transfer'] / one['seconds']:9.1%} "
            f"{one['waiting_and_transfer'] / one['seconds']:13.1%} {one['peak_mb_of_a_rank']:18,.0f}"
        )
    print(
        f"\nmodel: fixed {cost.fixed:.2f} s; a task {cost.update:.3f} s of update and {cost.sampling:.3f} s of "
        f"sampling, {cost.steps:,} steps; {len(cost.gatherings)} gatherings with {sum(cost.gatherings) / 1e6:.2f} MB "
        f"of a task (measured). Sampling adds {1e6 * summary['sampling_adds']:.0f} us to a step without a batch "
        f"(measured). A message {1e6 * arguments.latency:.0f} us, {arguments.bandwidth / 1e9:g} Gbit/s (assumed).\n"
    )
    print(f"predicted seconds of an iteration of {arguments.predicted_tasks} tasks, and speed-up, by machines")
    for name, by_size in predictions.items():
        cells = [f"{size}: {seconds:.3g} s x{by_size[1] / seconds:.1f}" for size, seconds in by_size.items()]
        print(f"{name:<36} {', '.join(cells)}")


def draw(predictions: dict[str, dict[int, float]], out: Path) -> None:
    """Draws the predicted speed-up by number of machines."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    sizes = list(next(iter(predictions.values())))
    axes.plot(sizes, sizes, color="0.7", linestyle=":", label="linear speed-up")
    for name, by_size in predictions.items():
        axes.plot(sizes, [by_size[1] / by_size[size] for size in sizes], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="machines", ylabel="times faster than one machine (predicted)")
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_ticks(sizes, [str(size) for size in sizes])
        scale.set_minor_locator(NullLocator())
    axes.legend(frameon=False, fontsize="small")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
