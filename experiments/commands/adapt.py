"""`maml-rl adapt`: a policy for one task, for Stable-Baselines3, NumPy or ONNX."""

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from maml_rl.errors import InputError
from maml_rl.experiments.commands.options import RunOptions, joined, parse


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(RunOptions):
    """Adapts a run to one task (reinforcement learning) and saves the policy for Stable-Baselines3, NumPy or ONNX.

    The task is one of the environment's, or unknown and seen only through logged episodes, for example from a robot.
    docs/real_robot.md shows the way from training to logged episodes.

    examples:
      maml-rl adapt runs/navigation --task 0.3,-0.2 --out policy.zip
      maml-rl adapt runs/half-cheetah-vel --task 1.5 --gradient-steps 1 --out policy.onnx
      maml-rl adapt runs/half-cheetah-vel --gradient-steps 0 --out explorer.npz     the policy that collects episodes
      maml-rl adapt runs/half-cheetah-vel --episodes-from logs.npz --out adapted.npz
    """

    out: Path
    """File for the policy, which must not exist yet: .zip for Stable-Baselines3's PPO, .npz for NumPy alone, .onnx."""
    task: str | None = None
    """The task as JSON; brackets around numbers can be omitted: 1.5 or 0.3,-0.2. Default: drawn at random."""
    episodes_from: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LOG ...", help_behavior_hint="(optional)")] = ()
    """Logged episodes to adapt to instead of sampled ones: an npz file (docs/real_robot.md), or minari: followed by the
    id of a data set. Each gives one gradient step; list them in the order in which they were collected."""
    gradient_steps: int | None = None
    """Gradient steps, each with fresh episodes. Default: those of the run's evaluation (paper: 3)."""
    episodes: int | None = None
    """Episodes per gradient step. Default: those of the run's evaluation (paper: 20; navigation 40)."""
    seed: int = 0
    """Seed of a randomly drawn task and of everything random in the adaptation."""
    record: bool = False
    """Record an episode after each number of gradient steps as the run's recording.npz, for maml-rl visualize RUN."""
    opset: int | None = None
    """Operator set version of an ONNX model. Default: 17."""
    json: bool = False
    """Print one JSON object and nothing else."""


def run(arguments: Sequence[str]) -> None:
    """Adapts a run to one task, prints a table and saves the policy."""
    options = parse(AdaptOptions, joined("--task", arguments), "maml-rl adapt")
    _check(options)
    from maml_rl.experiments.runs.exporting import check_new_file
    from maml_rl.experiments.runs.trust import check_runs

    check_new_file(options.out, options.opset)
    check_runs([options.run], options.trust.trust_module)
    shown = _to_logs(options) if options.episodes_from else _to_task(options)
    if not options.json:
        print(f"{shown.printed}\n\npolicy: {options.out}\nnext, in Python:\n")
        print(textwrap.indent(shown.code, "    "))


class _Shown(NamedTuple):
    """What the command prints about an adaptation."""

    printed: str
    code: str  # what to do next


def _check(options: AdaptOptions) -> None:
    """Raises InputError for options that cannot be combined with logged episodes."""
    names = ("task", "gradient_steps", "episodes", "record")
    if options.episodes_from and (given := [name for name in names if getattr(options, name) not in (None, False)]):
        raise InputError(
            f"--{given[0].replace('_', '-')} is for sampled episodes, and --episodes-from gives logged ones: "
            "leave one of them out"
        )


def _to_task(options: AdaptOptions) -> _Shown:
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.media.recording import RECORDING, save_recording
    from maml_rl.experiments.runs.adapting import Extra, adapt_run, next_steps
    from maml_rl.experiments.runs.exporting import SB3, save
    from maml_rl.run import run_directory

    directory = run_directory(options.run)
    with computing(options.json) as show:
        given = (options.task, options.gradient_steps, options.episodes, options.seed)
        wanted: dict[Extra, bool] = {"sb3": options.out.suffix == SB3, "recording": options.record}
        adapted = adapt_run(options.run, *given, options.machine, [extra for extra, is_on in wanted.items() if is_on])
        save(options.out, adapted.policy, adapted.model, options.opset)
        record = adapted.to_json() | {"policy": str(options.out)}
        if adapted.recording:
            save_recording(directory / RECORDING, adapted.recording)
            record["recording"] = str(directory / RECORDING)
        show(record)
    printed = f"{record['env_id']}, {adapted.task_name}: return of {record['episodes']} episodes\n\n{adapted.table()}"
    if adapted.recording:
        printed += f"\n\nrecording: {directory / RECORDING}; maml-rl visualize {directory} shows it"
    return _Shown(printed, next_steps(adapted, options.out))


def _to_logs(options: AdaptOptions) -> _Shown:
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.runs.adapting import adapt_to_logs
    from maml_rl.experiments.runs.exporting import SB3, save, use_of

    with computing(options.json) as show:
        adapted = adapt_to_logs(options.run, options.episodes_from, options.machine, options.out.suffix == SB3)
        for line in adapted.adaptation.warnings:
            print(f"warning: {line}", file=sys.stderr)
        save(options.out, adapted.policy, adapted.model, options.opset)
        record = adapted.to_json() | {"policy": str(options.out)}
        show(record)
    return _Shown(
        f"{record['env_id']}: the logged episodes\n\n{adapted.table()}", use_of(options.out, adapted.observations)
    )
