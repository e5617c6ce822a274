"""PPO of Stable-Baselines3 compared with a run: from scratch on one task, or as an oracle on all.

    python -m maml_rl.experiments.paper.sb3_baselines from-scratch trained/half-cheetah-dir --task 1 --env-steps 1000000
    python -m maml_rl.experiments.paper.sb3_baselines oracle trained/half-cheetah-dir --env-steps 5000000

They write `sb3-from-scratch` or `sb3-oracle` as .json, .csv and .png in `results/TASK` after each evaluation, so that
Ctrl-C keeps what has been measured.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from maml_rl.checkpoint import write_atomically, write_json
from maml_rl.errors import InputError
from maml_rl.experiments.runs.adapting import adapt_run
from maml_rl.experiments.runs.comparison import problem_name
from maml_rl.experiments.runs.ppo_baselines import Point, PPOTraining, env_steps_to_reach, from_scratch, oracle
from maml_rl.experiments.runs.progress import ProgressBar
from maml_rl.experiments.runs.trust import check_runs
from maml_rl.json_types import read_typed
from maml_rl.run import load_run

RESULTS = Path("results")


def curve(points: Sequence[Point]) -> dict[str, list[float]]:
    """Learning curve as JSON values; the standard error is over tasks, or over episodes of a single one."""
    samples = [p.returns.mean(1) if len(p.returns) > 1 else p.returns[0] for p in points]
    errors = [float(values.std(ddof=1) / len(values) ** 0.5) for values in samples]
    return {
        "env_steps": [point.env_steps for point in points],
        "mean_return": [float(point.returns.mean()) for point in points],
        "standard_error": errors,
    }


def measure(points: Iterator[Point], env_steps: int, record: dict[str, Any], out: Path) -> None:
    """Trains, and writes what has been measured after each evaluation."""
    measured: list[Point] = []
    with ProgressBar("", "env step", env_steps, keep=True, every_update=True) as bar:
        for point in points:
            measured.append(point)
            record["curve"] = curve(measured)
            if "adapted" in record:
                targets = record["adapted"]["mean_return"]
                record["env_steps_to_reach"] = [env_steps_to_reach(measured, target) for target in targets]
            write(record, out)
            bar.until(point.env_steps, f"return {point.returns.mean():.1f}")


class PPOCurve(TypedDict):
    """Return of an ordinary learner over its training."""

    env_steps: list[int]
    mean_return: list[float]
    standard_error: list[float]


class AdaptedReturn(TypedDict):
    """What a meta-trained policy reaches on the same task by gradient step."""

    env_steps: list[int]
    mean_return: list[float]


class LearnerRecord(TypedDict):
    """An ordinary learner as JSON values: `sb3-*.json`."""

    env_id: str
    method: str
    seed: NotRequired[int]
    task: Any
    curve: PPOCurve
    adapted: NotRequired[AdaptedReturn]
    env_steps_to_reach: NotRequired[list[int | None]]


def read_learner(path: Path) -> dict[str, Any]:
    """The record of an ordinary learner (`LearnerRecord`).

    Raises:
        InputError: If the file is damaged.
    """
    remedy = "remove it, or train again"
    record: dict[str, Any] = read_typed(path, LearnerRecord, remedy)
    lengths = {len(values) for values in record["curve"].values()}
    adapted = [len(values) for values in record.get("adapted", {}).values()]
    if len(lengths) != 1 or 0 in lengths or any(length < 2 for length in adapted):
        raise InputError(f"{path} is damaged (its curves should be of one length, none empty): {remedy}")
    return record


def check_same(record: dict[str, Any], out: Path) -> None:
    """Checks that existing files are from the same training, which is then repeated.

    Raises:
        InputError: If they are from another one.
    """
    path = out.with_suffix(".json")
    if not path.exists():
        return
    there = read_learner(path)
    for name in ("env_id", "method", "task", "seed"):
        if there.get(name) != record[name]:
            raise InputError(f"{path} has {name} {there.get(name)}, this would have {record[name]}: give another --out")


def write(record: dict[str, Any], out: Path) -> None:
    """Writes a record and its curve as a table and a picture, at `out` with three endings."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), record)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(record["curve"])
    writer.writerows(zip(*record["curve"].values(), strict=True))
    write_atomically(out.with_suffix(".csv"), table.getvalue().encode())
    draw_ppo(record, out.with_suffix(".png"))


def draw_ppo(record: dict[str, Any], path: Path) -> None:
    """Draws return against env steps, next to the adapted policy's."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(title=f"{record['env_id']}, task {record['task']}", xlabel="env steps", ylabel="mean return")
    mean, error = (np.array(record["curve"][name]) for name in ("mean_return", "standard_error"))
    axes.plot(record["curve"]["env_steps"], mean, color="#7f7f7f", label=f"PPO, {record['method']}")
    axes.fill_between(
        record["curve"]["env_steps"], mean - 1.96 * error, mean + 1.96 * error, color="#7f7f7f", alpha=0.2
    )
    if adapted := record.get("adapted"):
        axes.plot(adapted["env_steps"], adapted["mean_return"], "o-", color="#1f77b4", label="MAML, by gradient step")
        axes.axhline(adapted["mean_return"][1], color="#1f77b4", linestyle=":", linewidth=1)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=["from-scratch", "oracle"])
    parser.add_argument("run", type=Path, help="directory of the run to compare with")
    parser.add_argument(
        "--task", help="task of from-scratch, as JSON; brackets around numbers can be omitted (default: random)"
    )
    parser.add_argument("--env-steps", type=int, default=1_000_000, help="length of the training (%(default)s)")
    parser.add_argument("--every", type=int, default=20_480, help="env steps between evaluations (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (%(default)s)")
    parser.add_argument("--out", type=Path, help="where the files go, without ending (results/TASK/sb3-METHOD)")
    parser.add_argument("--trust-module", action="append", default=[], help="module that the run may import")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        check_runs([chosen.run], chosen.trust_module)
        config = load_run(chosen.run).rl_config
        evaluation, env_id = config.evaluation, config.env_id
        lengths = (chosen.env_steps, chosen.every, evaluation.episodes)
        training = PPOTraining(*lengths, chosen.seed, config.max_episode_steps)
        record: dict[str, Any] = {"env_id": env_id, "method": chosen.method, "seed": chosen.seed, "task": "any"}
        if chosen.method == "oracle":
            points = oracle(env_id, evaluation.tasks, training)
        else:
            adapted = adapt_run(chosen.run, chosen.task, gradient_steps=3, seed=chosen.seed)
            print(f"{adapted.task_name}: MAML\n{adapted.table()}", file=sys.stderr)
            values = adapted.to_json()
            record |= {"task": values["task"], "adapted": {name: values[name] for name in ("env_steps", "mean_return")}}
            points = from_scratch(env_id, adapted.task, training)
        out = chosen.out or RESULTS / problem_name(config) / f"sb3-{chosen.method}"
        check_same(record, out)
        measure(points, chosen.env_steps, record, out)
    except (InputError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print(f"written: {out.with_suffix('.json')}, .csv, .png")


if __name__ == "__main__":
    main()
