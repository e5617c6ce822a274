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
    curve_of,
    interval_over,
)
from maml_rl.experiments.runs.provenance import Hardware, trained_on
from maml_rl.experiments.runs.recurrent_ppo import evaluate_rl2, load_rl2, read_rl2, trial_envs
from maml_rl.experiments.runs.rl2_files import Training, stored_training
from maml_rl.experiments.runs.rl2_settings import RL2Config
from maml_rl.experiments.runs.task_input import read_tasks
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.tasks import task_space

_COMMAND = "maml-rl rl2 train"


class _Evaluated(NamedTuple):
    """A policy of RL^2 on the tasks of a comparison."""

    directory: Path
    config: RL2Config
    env_steps: int
    training: Training
    machines: list[Hardware]
    returns: NDArray[np.float64]  # [tasks, n]

    @property
    def name(self) -> str:
        """Name of the method."""
        return "rl2" if self.config.memory else "rl2-no-memory"

    @property
    def method(self) -> tuple[RL2Config, int]:
        """What other seeds of the method have too: settings, and env steps of the training."""
        return replace(self.config, seed=0), self.env_steps


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
    groups: dict[tuple[RL2Config, int], list[_Evaluated]] = {}
    for evaluated in (_evaluated(comparison, of, directory, machine) for directory in directories):
        groups.setdefault(evaluated.method, []).append(evaluated)
    firsts = [group[0] for group in groups.values()]
    methods = [_method(_label(group[0], firsts), group, comparison) for group in groups.values()]
    return replace(comparison, methods=[*comparison.methods, *methods])


def _evaluated(comparison: Comparison, of: RLConfig, directory: Path, machine: Machine) -> _Evaluated:
    _, config = read_rl2(directory)
    for name in ("env_id", "max_episode_steps"):
        if (ours := getattr(of, name)) != (own := getattr(config, name)):
            raise InputError(
                f"{directory} has {name} {own}, the other runs have {ours}: compare runs of one task distribution, "
                "with the same time limit"
            )
    training, machines = stored_training(directory), trained_on(directory)
    print(f"evaluating {directory}", file=sys.stderr)
    model, _ = load_rl2(directory, machine)  # only now: it imports the environment, which the other runs may do
    with closing(trial_envs(config, 1, machine)) as envs:
        tasks = read_tasks(task_space(envs), comparison.tasks, "the comparison")
    returns = evaluate_rl2(model, config, tasks, comparison.seed, machine=machine)
    return _Evaluated(directory, config, model.num_timesteps, training, [*machines], returns)


def _label(evaluated: _Evaluated, all_methods: Sequence[_Evaluated]) -> str:
    """The name, and the settings that differ if several methods share it."""
    own, *others = (
        asdict(config) | {"env_steps": env_steps}
        for config, env_steps in (evaluated.method, *(one.method for one in all_methods if one.name == evaluated.name))
    )
    differing = [f"{name} {own[name]}" for name in own if any(other[name] != own[name] for other in others)]
    settings = f" ({', '.join(differing)})" if differing else ""
    return f"{evaluated.name}{settings}, by episode"


def _method(label: str, group: Sequence[_Evaluated], comparison: Comparison) -> Method:
    group = sorted(group, key=lambda evaluated: evaluated.config.seed)
    seeds = Counter(evaluated.config.seed for evaluated in group)
    if (twice := seeds.most_common(1)[0])[1] > 1:
        both = " and ".join(str(one.directory) for one in group if one.config.seed == twice[0])
        raise InputError(f"{both} have the same settings and the same seed, {twice[0]}: give one of them")
    (condition,) = comparison.conditions
    values = np.stack([evaluated.returns.T[: comparison.gradient_steps + 1] for evaluated in group])
    runs = [_run(evaluated, condition, comparison.gradient_steps) for evaluated in group]
    curve = curve_of(condition, values, comparison.strata)
    return Method(label, group[0].name, interval_over(len(group)), [curve], runs)


def _run(evaluated: _Evaluated, condition: str, gradient_steps: int) -> ComparedRun:
    return ComparedRun(
        directory=evaluated.directory.as_posix(),
        seed=evaluated.config.seed,
        iterations=0,
        env_steps=evaluated.env_steps,
        seconds=evaluated.training.seconds,
        machines=evaluated.machines,
        command=_command(evaluated),
        inner_lr={condition: []},
        values={condition: evaluated.returns.T[: gradient_steps + 1].tolist()},
    )


def _command(evaluated: _Evaluated) -> str:
    """The shortest command that trains such a policy."""
    config, options = evaluated.config, list[Any]()
    for field in fields(config):
        name, value = field.name.replace("_", "-"), getattr(config, field.name)
        if field.name != "env_id" and value != field.default:
            options += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", value]
    every = evaluated.training.schedule.every  # each evaluation in training begins new trials
    options += ["--env-steps", evaluated.env_steps, "--every", every]
    return f"{_COMMAND} {shlex.join(map(str, [config.env_id, *options]))}"
