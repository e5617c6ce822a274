"""The comparison of the family from its start to its files."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_rl.errors import InputError
from maml_rl.experiments.family.ceilings import planned_returns
from maml_rl.experiments.family.family_table import (
    CeilingPoint,
    FamilyComparison,
    merged,
    read_family,
)
from maml_rl.experiments.family.measuring import (
    MeasuredRun,
    gradient_qualities,
    iteration_times,
    measured_run,
    opened,
    run_directory_of,
)
from maml_rl.experiments.family.variants import MAML, METHODS, PROBLEMS, configuration, held_out, methods_of
from maml_rl.run import CHECKPOINT, load_run
from maml_rl.statistics import mean_with_interval
from maml_rl.tasks import evaluation_tasks, make


class Effort(NamedTuple):
    """What is measured of each method at the parameters of MAML's run with seed 0, which must exist."""

    rounds: int  # iterations whose time is measured; 0 for none
    draws: int  # meta-gradients whose noise is measured; 0 for none


def compared_family(
    start: FamilyComparison, methods: Sequence[str], seeds: int, runs: Path, effort: Effort
) -> FamilyComparison:
    """Trains the missing runs of the methods on a problem, and measures all runs.

    Args:
        start: What is known before (`planned_comparison`). Methods and seeds that it has in addition stay.
        methods: Keys of `METHODS`; those that cannot learn the problem are left out.
        seeds: Seeds of each method: 0, 1, ...
        runs: Where runs are, or will be.
        effort: What else is measured.

    Raises:
        InputError: If a run with other settings is in the place of one.
    """
    problem, measured = start.problem, list[MeasuredRun]()
    methods = [method for method in methods if method in methods_of(problem)]
    for seed in range(seeds):  # all methods with one seed first: an early table compares like with like
        for method in methods:
            directory = run_directory_of(runs, problem, method, seed)
            print(
                f"{problem}, run {len(measured) + 1} of {len(methods) * seeds}: {directory}",
                file=sys.stderr,
                flush=True,
            )
            measured.append(measured_run(problem, method, seed, directory, start.iterations))
    new = start._replace(runs=measured)
    place = run_directory_of(runs, problem, MAML, 0)
    if any(effort) and (not seeds or (place / CHECKPOINT).exists()):
        configs = {
            method: configuration(problem, method, 0, start.iterations) for method in dict.fromkeys([MAML, *methods])
        }
        with opened(configs, load_run(place)) as learners:
            new = new._replace(
                times=iteration_times(learners, effort.rounds) if effort.rounds else {},
                gradients=gradient_qualities(learners, effort.draws) if effort.draws else {},
            )
    return merged(start, new)


def planned_comparison(problem: str, iterations: int | None, stored: Path) -> FamilyComparison:
    """A comparison before its runs: what is compared, the ceiling, and the runs of a stored one, if there is one.

    Args:
        problem: A key of `PROBLEMS`.
        iterations: Meta-iterations; those of the problem if None.
        stored: A file of `write_family`, which need not exist.

    Raises:
        InputError: If the stored one has runs of another length, or other held-out tasks; or if it is damaged.
    """
    config = configuration(problem, MAML, 0, iterations)
    settings = held_out(config, problem)
    about = (problem, config.env_id, config.iterations, settings.tasks, settings.episodes)
    comparison = FamilyComparison(*about, [], {}, {}, ceiling(problem))
    return merged(read_family(stored), comparison) if stored.exists() else comparison


def ceiling(problem: str) -> list[CeilingPoint]:
    """What a planner returns on the held-out tasks after 0, 1, 2, 3 times the episodes of a gradient step."""
    config = configuration(problem, MAML, 0)
    settings = held_out(config, problem)
    env = make(config.env_id)
    tasks = evaluation_tasks(env.unwrapped.task_space, settings.tasks, settings.seed)  # type: ignore[attr-defined]
    env.close()
    episodes = [settings.episodes * step for step in range(settings.gradient_steps + 1)]
    returns = planned_returns(config.env_id, tasks, episodes)
    if returns is None:
        return []
    means = [mean_with_interval(values) for values in returns]
    return [CeilingPoint(k, mean.value, mean.standard_error) for k, mean in zip(episodes, means, strict=True)]


def check_names(problems: Sequence[str], methods: Sequence[str]) -> None:
    """Checks names that a user gave.

    Raises:
        InputError: If one is unknown.
    """
    for kind, given, known in (("problem", problems, PROBLEMS), ("method", methods, METHODS)):
        for name in given:
            if name not in known:
                raise InputError(f"there is no {kind} {name!r}: expected some of {', '.join(known)}")
