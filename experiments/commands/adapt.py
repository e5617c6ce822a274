"""`maml-rl adapt`: a policy for one task, as Stable-Baselines3's PPO takes it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maml_rl.experiments.commands.options import RunOptions, joined, parse


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(RunOptions):
    """Adapts a run to one task (reinforcement), and saves the policy for Stable-Baselines3's PPO.

    examples:
      maml-rl adapt runs/navigation --task 0.3,-0.2 --out policy.zip
      maml-rl adapt runs/half-cheetah-vel --task 1.5 --gradient-steps 1 --out policy.zip
    """

    out: Path
    """File for the policy, which must not exist yet, for example policy.zip."""
    task: str | None = None
    """The task, as JSON, where brackets around numbers may be left out: 1.5 or 0.3,-0.2; drawn at random if not
    given."""
    gradient_steps: int | None = None
    """Gradient steps, with fresh episodes for each; those of the run's evaluation if not given (paper: 3)."""
    episodes: int | None = None
    """Episodes for each gradient step; those of the run's evaluation if not given (paper: 20; navigation 40)."""
    seed: int = 0
    """Seed of the task, if none is given, and of everything random in the adaptation."""
    record: bool = False
    """Record an episode after each number of gradient steps as the run's recording.npz, for maml-rl visualize RUN."""
    json: bool = False
    """Print one JSON object and nothing else."""


def run(arguments: Sequence[str]) -> None:
    """Adapts a run to one task, prints a table and saves the policy."""
    options = parse(AdaptOptions, joined("--task", arguments), "maml-rl adapt")
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.media.recording import RECORDING, save_recording
    from maml_rl.experiments.runs.adapting import adapt_run, check_new_file, next_steps, save
    from maml_rl.experiments.runs.trust import check_runs
    from maml_rl.run import run_directory

    check_new_file(options.out)
    check_runs([options.run], options.trust.trust_module)
    directory = run_directory(options.run)
    with computing(options.json) as show:
        given = (options.task, options.gradient_steps, options.episodes, options.seed)
        adapted = adapt_run(options.run, *given, options.machine, options.record)
        save(adapted, options.out)
        record = adapted.to_json() | {"policy": str(options.out)}
        if adapted.recording:
            save_recording(directory / RECORDING, adapted.recording)
            record["recording"] = str(directory / RECORDING)
        show(record)
    if options.json:
        return
    print(f"{record['env_id']}, {adapted.task_name}: return of {record['episodes']} episodes\n")
    print(adapted.table())
    if adapted.recording:
        print(f"\nrecording: {directory / RECORDING}; maml-rl visualize {directory} shows it")
    print(f"\npolicy: {options.out}\nnext, in Python:\n")
    print(textwrap.indent(next_steps(adapted, options.out), "    "))
