"""`maml-rl rl2`: RL^2, a policy with a memory that adapts without gradients, to compare with."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from maml_rl.config import require
from maml_rl.errors import InputError
from maml_rl.experiments.commands.ending import Saved, naming_what_is_saved
from maml_rl.experiments.commands.options import (
    NO_OTHERS,
    GivenMachine,
    GivenTrust,
    check_directory,
    chosen_tasks,
    parse,
)
from maml_rl.experiments.runs.rl2_files import POLICY, is_rl2, stored_training
from maml_rl.experiments.runs.rl2_settings import RL2Config, Schedule
from maml_rl.machine import THIS_MACHINE

if TYPE_CHECKING:
    from maml_rl.statistics import Mean

_HELP = """\
usage: maml-rl rl2 train ENV_ID ... | resume DIR ... | evaluate DIR ...

RL^2 (Duan et al. 2016): a policy with a memory, which acts for several episodes of one task in a row and keeps its
hidden state across them. It adapts without gradients. PPO of sb3-contrib trains it (extra rl2).

  train ENV_ID    train on the trials of an environment
  resume DIR      resume a training that was stopped, or train for longer
  evaluate DIR    measure the return by episode on new tasks

examples:
  maml-rl rl2 train maml_rl.envs:duan2016/BernoulliBandit-v0 --max-episode-steps 1 --episodes 10
  maml-rl rl2 resume runs/rl2-BernoulliBandit-v0 --env-steps 2000000
  maml-rl rl2 evaluate runs/rl2-BernoulliBandit-v0
  maml-rl compare runs/half-cheetah-dir runs/rl2-HalfCheetahDir-v0      next to other runs

maml-rl rl2 train --help lists the options of train, and likewise for the others.
"""
_NOT_USED = ("device", "threads")  # of the machine: PPO takes its updates on one core


@dataclass(frozen=True, kw_only=True)
class TrialTraining(RL2Config):
    """Trains RL^2 on the trials of an environment with a task distribution. Evaluates on held-out tasks at regular
    intervals, and saves after each evaluation.

    examples:
      maml-rl rl2 train maml_rl.envs:duan2016/BernoulliBandit-v0 --max-episode-steps 1 --episodes 10
      maml-rl rl2 train my_module:My-v0 --standardise --normalise-rewards --env-steps 5000000
    """

    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID")]
    """Environment with a task distribution, for example my_module:My-v0."""
    env_steps: int = 1_000_000
    """Env steps of the training."""
    every: int = 100_000
    """Env steps from one evaluation to the next."""
    tasks: int = 1000
    """Held-out tasks of an evaluation."""
    out: Path | None = None
    """Directory of policy and learning curve, which must not exist yet. Default: runs/rl2-My-v0, with -no-memory or
    -seedN appended."""
    machine: GivenMachine = THIS_MACHINE

    @property
    def config(self) -> RL2Config:
        """The settings of RL^2 alone."""
        return RL2Config(**{field.name: getattr(self, field.name) for field in fields(RL2Config)})

    @property
    def directory(self) -> Path:
        """Where it is trained."""
        if self.out is not None:
            return self.out
        memory, seed = "" if self.memory else "-no-memory", f"-seed{self.seed}" if self.seed else ""
        return Path("runs") / f"rl2-{self.env_id.rpartition(':')[2].rpartition('/')[2]}{memory}{seed}"


@dataclass(frozen=True, kw_only=True)
class ResumedTrials:
    """Resumes a training from its last evaluation, bit for bit.

    examples:
      maml-rl rl2 resume runs/rl2-My-v0                          up to its planned --env-steps
      maml-rl rl2 resume runs/rl2-My-v0 --env-steps 2000000      train for longer
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Directory written by maml-rl rl2 train."""
    env_steps: int | None = None
    """Env steps of the training, counted from its beginning. Default: as planned. A longer training is bit for bit one
    that was planned so, if its old length is a multiple of --every."""
    trust: GivenTrust = NO_OTHERS
    machine: GivenMachine = THIS_MACHINE


@dataclass(frozen=True, kw_only=True)
class TrialEvaluation:
    """Measures the return of each episode of a trial on new tasks, and draws it.

    examples:
      maml-rl rl2 evaluate runs/rl2-My-v0
      maml-rl rl2 evaluate runs/rl2-My-v0 --tasks far.json      a list of tasks, also outside the training range
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Directory written by maml-rl rl2 train."""
    tasks: Annotated[str, tyro.conf.arg(metavar="INT|paper|FILE.json")] = "1000"
    """Number of held-out tasks. Or paper, for the tasks on which the paper's policies were tested. Or a JSON file with
    a list of tasks, which may be outside the training range. With paper, the files are evaluation-paper.json and
    adaptation-paper.png; with a list, evaluation-given.json and adaptation-given.png."""
    seed: int = 0
    """Seed of tasks, first states and actions."""
    greedy: bool = False
    """Take the most likely actions instead of sampling them."""
    json: bool = False
    """Print one JSON object and nothing else; write no files."""
    out: Path | None = None
    """Directory for evaluation.json and adaptation.png. Default: the directory of the policy."""
    trust: GivenTrust = NO_OTHERS
    machine: GivenMachine = THIS_MACHINE

    def __post_init__(self) -> None:
        """Raises InputError for a seed that cannot be."""
        require("seed", self.seed, self.seed >= 0, "at least 0")


def run(arguments: Sequence[str]) -> None:
    """Trains, resumes or evaluates RL^2."""
    name, *others = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(_HELP, end="")
    elif name in _ACTIONS:
        _ACTIONS[name](others)
    else:
        raise InputError(f"rl2: expected {', '.join(_ACTIONS)}, got {name!r} (see maml-rl rl2 --help)")


def _train(arguments: Sequence[str]) -> None:
    options = parse(TrialTraining, arguments, "maml-rl rl2 train", without=_NOT_USED)
    schedule, out = Schedule(options.env_steps, options.every, options.tasks), options.directory
    check_directory(out)
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.runs.loop import check_new, new_in
    from maml_rl.experiments.runs.measured_trials import measure_training
    from maml_rl.experiments.runs.recurrent_ppo import train_rl2
    from maml_rl.experiments.runs.trust import allow

    allow([options.env_id.rpartition(":")[0]])
    remedy = f"resume it with {_resume_command(out)}, or give another --out" if is_rl2(out) else "give another --out"
    check_new(out, remedy)
    with computing(), new_in(out, remedy), _explained(out):
        points = train_rl2(options.config, schedule, out, options.machine)
        means = measure_training(points, options.config, schedule, out, options.machine)
    _finish(options.env_id, means, out)


def _resume_training(arguments: Sequence[str]) -> None:
    options = parse(ResumedTrials, arguments, "maml-rl rl2 resume", without=_NOT_USED)
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.runs.loop import alone_in
    from maml_rl.experiments.runs.measured_trials import measure_training
    from maml_rl.experiments.runs.recurrent_ppo import resume_rl2

    out = options.directory
    config = _trusted(out, options.trust.trust_module)
    schedule = stored_training(out).schedule
    if options.env_steps is not None:
        schedule = schedule._replace(env_steps=options.env_steps)
    with computing(), alone_in(out), _explained(out):
        points = resume_rl2(out, schedule, options.machine)
        means = measure_training(points, config, schedule, out, options.machine, resumed=True)
    _finish(config.env_id, means, out)


def _evaluate(arguments: Sequence[str]) -> None:
    options = parse(TrialEvaluation, arguments, "maml-rl rl2 evaluate", without=_NOT_USED)
    asked = chosen_tasks(options.tasks, numbers=True)
    if asked.number is not None and asked.number < 2:
        raise InputError(f"--tasks: expected at least 2, got {asked.number}")
    check_directory(options.out)
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.media.charts import draw_charts
    from maml_rl.experiments.media.trial_charts import evaluated_chart
    from maml_rl.experiments.runs.evaluations import PICTURE, file_of
    from maml_rl.experiments.runs.measured_trials import episode_means, evaluation_record, store_returns

    _trusted(options.directory, options.trust.trust_module)
    with computing(options.json) as show:
        on: int | Path | Literal["paper"] = asked.file or asked.number or "paper"
        record = evaluation_record(options.directory, on, options.seed, options.greedy, options.machine)
        show(record)
    if not options.json:
        _print(record["env_id"], len(record["returns"]), episode_means(record["returns"], record["strata"]))
        path = store_returns(options.out or options.directory, record)
        picture = path.with_name(file_of(PICTURE, record["task_set"]))
        draw_charts([evaluated_chart(record)], picture)
        print(f"\npicture: {picture}")


_ACTIONS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": _train,
    "resume": _resume_training,
    "evaluate": _evaluate,
}


def _trusted(directory: Path, named: Sequence[str]) -> RL2Config:
    """Settings of what was trained in a directory, if the module of its environment may be imported."""
    from maml_rl.experiments.runs.recurrent_ppo import read_rl2
    from maml_rl.experiments.runs.trust import check_modules

    _, config = read_rl2(directory)
    check_modules([(directory, config.env_id.rpartition(":")[0])], named)
    return config


def _resume_command(out: Path) -> str:
    return f"maml-rl rl2 resume {shlex.quote(str(out))}"


def _explained(out: Path) -> AbstractContextManager[None]:
    """Adds to what ends a training how to continue it."""
    policy = "the policy of the last evaluation"
    saved = Saved(out / POLICY, "the env steps until the last evaluation", policy, _resume_command(out))
    remedy = (
        "maml-rl check shows what is wrong with an environment; if nothing is, train again with a lower --lr, or "
        "--standardise and --normalise-rewards, and another --out"
    )
    return naming_what_is_saved(saved, lambda _: remedy)


def _finish(env_id: str, means: "Sequence[Mean]", out: Path) -> None:
    """Prints what a training has reached, draws its learning curve, and names the next command."""
    from maml_rl.experiments.media.charts import draw_charts
    from maml_rl.experiments.media.trial_charts import LEARNING_CURVE, trial_charts

    training = stored_training(out)
    _print(env_id, training.schedule.tasks, means)
    draw_charts(trial_charts(training), out / LEARNING_CURVE)
    print(f"\npicture: {out / LEARNING_CURVE}\nnext: maml-rl rl2 evaluate {shlex.quote(str(out))}")


def _print(env_id: str, tasks: int, means: "Sequence[Mean]") -> None:
    """Prints the means of an evaluation."""
    from maml_rl.experiments.runs.measured_trials import episode_table

    print(f"{env_id}, {tasks} tasks\n{episode_table(means)}")
