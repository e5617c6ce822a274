"""RL^2 by PPO of sb3-contrib: trained on trials of several episodes, and evaluated by episode of the trial.

    python -m maml_rl.experiments.paper.rl2 train maml_rl.envs:duan2016/TabularMDP-v0 --episodes 10 --out runs/rl2-mdp
    python -m maml_rl.experiments.paper.rl2 resume runs/rl2-mdp --env-steps 2000000
    python -m maml_rl.experiments.paper.rl2 evaluate runs/rl2-mdp --tasks 1000

A directory has the policy after the last evaluation (`policy.safetensors`) and the learning curve so far (`rl2.json`),
so that `resume` continues from there after Ctrl-C. docs/rl2.md has more.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from maml_rl.checkpoint import write_json
from maml_rl.errors import InputError
from maml_rl.experiments.commands.options import chosen_tasks
from maml_rl.experiments.paper.published import paper_tasks
from maml_rl.experiments.runs.evaluations import EVALUATION, EvaluatedTasks, file_of
from maml_rl.experiments.runs.ppo_baselines import Point
from maml_rl.experiments.runs.recurrent_ppo import (
    RL2Config,
    Schedule,
    evaluate_rl2,
    load_rl2,
    read_rl2,
    resume_rl2,
    train_rl2,
    trial_envs,
)
from maml_rl.experiments.runs.rl2_files import CURVE, training_seconds
from maml_rl.experiments.runs.task_input import task_list, usable_tasks
from maml_rl.experiments.runs.text import env_steps_text, text_table
from maml_rl.experiments.runs.trust import allow, check_modules
from maml_rl.json_values import read_json
from maml_rl.statistics import Mean, mean_with_interval
from maml_rl.tasks import Task


def by_episode(returns: NDArray[np.float64]) -> list[Mean]:
    """Mean over tasks of each episode's return, and of their sum over the trial, from returns `[tasks, n]`."""
    return [mean_with_interval(values) for values in (*returns.T, returns.sum(1))]


def episode_table(returns: NDArray[np.float64]) -> str:
    """`by_episode` as a table."""
    names = [*(str(i + 1) for i in range(returns.shape[1])), "trial"]
    rows = [
        [name, f"{mean.value:.3f}", f"[{mean.low:.3f}, {mean.high:.3f}]"]
        for name, mean in zip(names, by_episode(returns), strict=True)
    ]
    return text_table([["episode", "return", "95 % interval"], *rows])


def measure_rl2(
    points: Iterator[Point], config: RL2Config, env_steps: int, out: Path, curve: list[dict[str, Any]]
) -> NDArray[np.float64]:
    """Trains, and writes the learning curve after each evaluation; the returns of the last one, `[tasks, n]`."""
    before, started = training_seconds(out) if curve else 0.0, time.perf_counter()
    with tqdm(total=env_steps, unit="env step", unit_scale=True, disable=None) as bar:
        for point in points:
            total = by_episode(point.returns)[-1]
            curve.append(
                {
                    "env_steps": point.env_steps,
                    "seconds": before + time.perf_counter() - started,
                    "mean_return": total.value,
                    "standard_error": total.standard_error,
                    "by_episode": point.returns.mean(0).tolist(),
                }
            )
            write_json(out / CURVE, {"config": asdict(config), "tasks": len(point.returns), "curve": curve})
            bar.set_postfix_str(f"return of a trial {total.value:.2f}", refresh=False)
            bar.update(point.env_steps - bar.n)
            if bar.disable:
                steps = env_steps_text(point.env_steps)
                print(f"{steps} env steps: return of a trial {total.value:.2f}", file=sys.stderr, flush=True)
    return point.returns


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train on the trials of an environment")
    train.add_argument("env_id", help="environment with a task distribution")
    train.add_argument("--out", type=Path, required=True, help="directory of policy and curve")
    resume = commands.add_parser("resume", help="continue a training run, even one that was stopped")
    resume.add_argument("out", type=Path, metavar="directory", help="what train has written")
    for command in (train, resume):
        command.add_argument("--env-steps", type=int, default=1_000_000, help="length of the training (%(default)s)")
        command.add_argument("--every", type=int, default=100_000, help="env steps between evaluations (%(default)s)")
        command.add_argument("--tasks", type=int, default=1000, help="held-out tasks of an evaluation (%(default)s)")
    evaluate = commands.add_parser("evaluate", help="return by episode on new tasks")
    evaluate.add_argument("directory", type=Path, help="what train has written")
    tasks = "number of held-out tasks, paper, or a file .json with a list of tasks (%(default)s)"
    evaluate.add_argument("--tasks", default="1000", help=tasks)
    evaluate.add_argument("--seed", type=int, default=0, help="seed of tasks and actions (%(default)s)")
    evaluate.add_argument("--greedy", action="store_true", help="take the likeliest actions instead of samples")
    for command in (resume, evaluate):
        trusted = "module of the environment that may be imported, if you have not trained with it here"
        command.add_argument("--trust-module", default="", metavar="MODULE", help=trusted)
    hints = get_type_hints(RL2Config)
    for field in fields(RL2Config):
        if field.default is not MISSING:
            kind = get_args(hints[field.name])[0] if isinstance(hints[field.name], UnionType) else hints[field.name]
            how: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
            option = f"--{field.name.replace('_', '-')}"
            train.add_argument(option, default=field.default, help="(%(default)s)", **how)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        if chosen.command == "evaluate":
            config, returns = _evaluated(chosen)
        else:
            config, returns = _trained(chosen)
    except (InputError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print(f"{config.env_id}, {len(returns)} tasks\n{episode_table(returns)}")


def _trained(chosen: argparse.Namespace) -> tuple[RL2Config, NDArray[np.float64]]:
    """What `train` and `resume` have to print."""
    schedule = Schedule(chosen.env_steps, chosen.every, chosen.tasks)
    if chosen.command == "resume":
        config = _trusted(chosen.out, chosen.trust_module)
        curve = read_json(chosen.out / CURVE)["curve"]
        points = resume_rl2(chosen.out, schedule)
    else:
        config = RL2Config(**{field.name: getattr(chosen, field.name) for field in fields(RL2Config)})
        allow([_module(config)])
        curve, points = [], train_rl2(config, schedule, chosen.out)
    return config, measure_rl2(points, config, chosen.env_steps, chosen.out, curve)


def _module(config: RL2Config) -> str:
    return config.env_id.rpartition(":")[0]


def _trusted(directory: Path, named: str) -> RL2Config:
    """Settings of what was trained in a directory, if the module of its environment may be imported."""
    _, config = read_rl2(directory)
    check_modules([(directory, _module(config))], [named])
    return config


def _evaluated(chosen: argparse.Namespace) -> tuple[RL2Config, NDArray[np.float64]]:
    """What `evaluate` has to print, which it also writes into the directory."""
    asked = chosen_tasks(chosen.tasks, numbers=True)
    if asked.number is not None and asked.number < 2:
        raise InputError(f"--tasks: expected at least 2, got {asked.number}")
    _trusted(chosen.directory, chosen.trust_module)
    model, config = load_rl2(chosen.directory)
    tasks: int | Sequence[Task] = asked.number or 0
    if asked.file is not None:
        with closing(trial_envs(config, 1)) as envs:
            tasks = usable_tasks(envs, task_list(asked.file), asked.file, config.env_id)
    elif asked.task_set == "paper":
        tasks = paper_tasks(config.env_id)
    returns = evaluate_rl2(model, config, tasks, chosen.seed, chosen.greedy)
    task_set: EvaluatedTasks = "given" if asked.file else asked.task_set
    means = [mean._asdict() for mean in by_episode(returns)]
    record = {
        "env_id": config.env_id,
        "memory": config.memory,
        "env_steps": model.num_timesteps,
        "task_set": task_set,
        "tasks": len(returns),
        "seed": chosen.seed,
        "greedy": chosen.greedy,
        "by_episode": means[:-1],
        "trial": means[-1],
        "returns": returns.tolist(),
    }
    write_json(chosen.directory / file_of(EVALUATION, task_set), record)
    return config, returns


if __name__ == "__main__":
    main()
