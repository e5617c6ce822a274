"""RL^2 in a comparison: the return of its first, second, ... episode of a task, where others have gradient steps."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.config import RLConfig
from maml_rl.errors import InputError
from maml_rl.experiments.runs.comparison_files import (
    ComparedRun,
    Comparison,
    Method,
    MethodCurve,
    estimate,
    interval_over,
)
from maml_rl.experiments.runs.recurrent_ppo import RL2Config, evaluate_rl2, load_rl2, read_rl2, trial_envs
from maml_rl.experiments.runs.task_input import read_tasks
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.statistics import interquartile_mean, interval, mean
from maml_rl.tasks import task_space

_SCRIPT = "python -m maml_rl.experiments.paper.rl2 train"


class _Evaluated(NamedTuple):
    """A policy of RL^2 on the tasks of a comparison."""

    directory: Path
    config: RL2Config
    env_steps: int
    returns: NDArray[np.float64]  # [tasks, n]


def with_trials(
    comparison: Comparison, of: RLConfig, directories: Sequence[Path], machine: Machine = THIS_MACHINE
) -> Comparison:
    """A comparison with policies of RL^2 added; those that differ only in their seed are one method.

    Args:
        comparison: The other methods, which decide the tasks and how many episodes of a trial are shown.
        of: Settings of one of their runs.
        directories: What RL^2 was trained in.
        machine: Processes of an environment that is not batched.

    Raises:
        InputError: If a policy cannot be loaded, was trained on another environment or with another time limit, or is
            given twice.
    """
    groups: dict[RL2Config, list[_Evaluated]] = {}
    for directory in directories:
        evaluated = _evaluated(comparison, of, directory, machine)
        groups.setdefault(replace(evaluated.config, seed=0), []).append(evaluated)
    names = Counter(_name(config) for config in groups)
    labels = [_name(config) if names[_name(config)] == 1 else _label(config, list(groups)) for config in groups]
    methods = [
        _method(f"{label}, by episode", group, comparison) for label, group in zip(labels, groups.values(), strict=True)
    ]
    return replace(comparison, methods=[*comparison.methods, *methods])


def _evaluated(comparison: Comparison, of: RLConfig, directory: Path, machine: Machine) -> _Evaluated:
    _, config = read_rl2(directory)
    for name in ("env_id", "max_episode_steps"):
        if (ours := getattr(of, name)) != (own := getattr(config, name)):
            raise InputError(
                f"{directory} has {name} {own}, the other runs have {ours}: compare runs of one task distribution, "
                "with the same time limit"
            )
    print(f"evaluating {directory}", file=sys.stderr)
    model, _ = load_rl2(directory)  # only now: it imports the environment, which the other runs may do
    with closing(trial_envs(config, 1)) as envs:
        tasks = read_tasks(task_space(envs), comparison.tasks, "the comparison")
    returns = evaluate_rl2(model, config, tasks, comparison.seed, machine=machine)
    return _Evaluated(directory, config, model.num_timesteps, returns)


def _name(config: RL2Config) -> str:
    return "rl2" if config.memory else "rl2-no-memory"


def _label(config: RL2Config, all_configs: Sequence[RL2Config]) -> str:
    """The name, and the settings that differ from others of this name."""
    others = [asdict(other) for other in all_configs if _name(other) == _name(config)]
    own = asdict(config)
    differing = [f"{name} {own[name]}" for name in own if len({str(other[name]) for other in others}) > 1]
    return f"{_name(config)} ({', '.join(differing)})"


def _method(label: str, group: Sequence[_Evaluated], comparison: Comparison) -> Method:
    group = sorted(group, key=lambda evaluated: evaluated.config.seed)
    seeds = Counter(evaluated.config.seed for evaluated in group)
    if (twice := seeds.most_common(1)[0])[1] > 1:
        both = " and ".join(str(one.directory) for one in group if one.config.seed == twice[0])
        raise InputError(f"{both} have the same settings and the same seed, {twice[0]}: give one of them")
    (condition,) = comparison.conditions
    returns = np.stack([evaluated.returns for evaluated in group])[..., : comparison.gradient_steps + 1]
    means, middle_means = (
        [estimate(interval(returns[..., i], of, comparison.strata)) for i in range(returns.shape[-1])]
        for of in (mean, interquartile_mean)
    )
    runs = [_run(evaluated, condition, comparison.gradient_steps) for evaluated in group]
    curve = MethodCurve(condition, means, middle_means, [])
    return Method(label, _name(group[0].config), interval_over(len(group)), [curve], runs)


def _run(evaluated: _Evaluated, condition: str, gradient_steps: int) -> ComparedRun:
    return ComparedRun(
        directory=evaluated.directory.as_posix(),
        seed=evaluated.config.seed,
        iterations=0,
        env_steps=evaluated.env_steps,
        seconds=0.0,
        machines=[],
        command=_command(evaluated.config, evaluated.env_steps),
        inner_lr={condition: []},
        values={condition: evaluated.returns.T[: gradient_steps + 1].tolist()},
    )


def _command(config: RL2Config, env_steps: int) -> str:
    """The shortest command that trains such a policy."""
    options: list[Any] = []
    for field in fields(config):
        name, value = field.name.replace("_", "-"), getattr(config, field.name)
        if field.name != "env_id" and value != field.default:
            options += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", value]
    return f"{_SCRIPT} {shlex.join(map(str, [config.env_id, *options, '--env-steps', env_steps]))}"
