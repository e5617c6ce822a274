"""Trains the runs of the comparison and measures each: returns, env steps, times."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.checkpoint import write_json
from maml_rl.config import RLConfig, RLEvaluation
from maml_rl.errors import InputError
from maml_rl.evaluation import task_returns
from maml_rl.experiments.family.variants import MAML, configuration, held_out
from maml_rl.experiments.media.learning_curves import read_log
from maml_rl.experiments.runs.provenance import training_command
from maml_rl.experiments.runs.training import resume, train
from maml_rl.gradient_noise import gradient_noise
from maml_rl.json_types import read_typed
from maml_rl.machine import Machine
from maml_rl.rates import theta
from maml_rl.reinforcement import RLLearner, open_rl
from maml_rl.run import CHECKPOINT, METRICS, Run, load_run
from maml_rl.tasks import evaluation_tasks
from maml_rl.types import State

MEASUREMENT = "measurement.json"
ONE_THREAD = Machine(threads=1)
"""Times are compared, so nothing else runs at the same time."""
_POINTS = 40  # of a learning curve that is kept


class MeasuredRun(NamedTuple):
    """What a finished run did: a row of the comparison."""

    method: str
    seed: int
    command: str  # that trains it alone
    iterations: int
    env_steps: int
    returns: list[float]  # after 0, 1, 2, 3 gradient steps, mean over the held-out tasks
    sampling_seconds: float  # of an iteration, mean over the training
    update_seconds: float
    curve: list[float]  # return after the inner steps on the training tasks, means of consecutive iterations


class StoredMeasurement(NamedTuple):
    """What a run's directory keeps of it, so that it is not evaluated twice."""

    evaluation: RLEvaluation
    run: MeasuredRun


class Times(NamedTuple):
    """Median time of an iteration, and the median of its ratio to MAML's in the same round."""

    sampling_seconds: float
    update_seconds: float
    iteration_ratio: float
    update_ratio: float


class GradientQuality(NamedTuple):
    """How noisy a method's meta-gradient is (`maml_rl.gradient_noise`), at the parameters that MAML reached."""

    signal: float  # length of its expectation; 0 where the draws show none
    noise: float  # root mean square length of what one iteration's gradient has in addition
    cosine: float  # of the angle between two draws, mean over all pairs


def run_directory_of(runs: Path, problem: str, method: str, seed: int) -> Path:
    """Where a run of the comparison is, or will be."""
    return runs / problem / f"{method}-seed{seed}"


def trained_run(config: RLConfig, directory: Path) -> Run:
    """A finished run: an existing one, resumed if it was interrupted, or a new one.

    Raises:
        InputError: If a run with other settings is there.
    """
    if not (directory / CHECKPOINT).exists():
        return train(config, directory, ONE_THREAD)
    there = load_run(directory)
    if there.config != config:
        raise InputError(
            f"{directory} is a run of other settings ({training_command(there.config)}): remove it, or give another "
            "--runs"
        )
    if there.state.iteration < config.iterations:
        return resume(directory, machine=ONE_THREAD)
    return there


def measured_run(problem: str, method: str, seed: int, directory: Path, iterations: int | None = None) -> MeasuredRun:
    """Trains a run if necessary and evaluates it. What was measured before, on the same tasks, is only read.

    Raises:
        InputError: See `trained_run`; or if what was measured is damaged.
    """
    config = configuration(problem, method, seed, iterations)
    run, evaluation, stored = trained_run(config, directory), held_out(config, problem), directory / MEASUREMENT
    if stored.exists():
        measured: StoredMeasurement = read_typed(stored, StoredMeasurement, "remove it")
        if measured.evaluation == evaluation:
            return measured.run
    returns = held_out_returns(run, evaluation)
    adapted = f"return/after_{config.meta.inner_steps}_steps"
    log = read_log(directory / METRICS, adapted, "time/sampling_seconds", "time/update_seconds")
    sampling, update = (float(np.mean([row[f"time/{part}_seconds"] for row in log])) for part in ("sampling", "update"))
    row = MeasuredRun(
        *(method, seed, training_command(config), config.iterations, run.progress.env_steps, returns),
        *(sampling, update, _means([row[adapted] for row in log], _POINTS)),
    )
    write_json(stored, {"evaluation": asdict(evaluation), "run": row._asdict()})
    return row


def held_out_returns(run: Run, settings: RLEvaluation) -> list[float]:
    """Return after 0, 1, 2, ... gradient steps, mean over the held-out tasks."""
    with run.open_rl(ONE_THREAD, settings.tasks * settings.episodes) as learner:
        tasks = evaluation_tasks(learner.task_space, settings.tasks, settings.seed)
        steps = learner.adaptation(run.state, tasks, settings, run.rl_config.meta)
        return [float(task_returns(sampled).mean()) for _, sampled in steps]


def _means(values: Sequence[float], count: int) -> list[float]:
    """Means of consecutive values."""
    return [round(float(part.mean()), 3) for part in np.array_split(values, min(count, len(values)))]


@contextmanager
def opened(configs: Mapping[str, RLConfig], reached: Run) -> Iterator[dict[str, tuple[RLLearner, State]]]:
    """A learner of each method with its state at another run's parameters, or its initial state if they do not fit.

    They do not fit a network of another form, such as CAVIA's. The rest of a state, such as learned step sizes and an
    optimizer's moments, is as in the beginning.

    Args:
        configs: Settings of each method.
        reached: The run.
    """
    with ExitStack() as stack:
        learners = {method: stack.enter_context(open_rl(config, ONE_THREAD)) for method, config in configs.items()}
        yield {method: (learner, _at(learner.initial(), reached.state)) for method, learner in learners.items()}


def _at(state: State, reached: State) -> State:
    found = theta(reached.meta)
    if any(name not in found or found[name].shape != value.shape for name, value in theta(state.meta).items()):
        return state
    return state._replace(meta=state.meta | found, iteration=reached.iteration)


def iteration_times(learners: Mapping[str, tuple[RLLearner, State]], rounds: int) -> dict[str, Times]:
    """Times of an iteration, by method.

    The methods take turns, so that other load on the machine affects all of them. In each round every method does one
    iteration, and its times are divided by MAML's in that round.

    Args:
        learners: A learner of each method with its state, one of them MAML's.
        rounds: How many.
    """
    seconds: dict[str, list[tuple[float, float]]] = {method: [] for method in learners}
    for _ in range(rounds):
        for method, (learner, state) in learners.items():
            started = time.perf_counter()
            _, metrics = learner.iterate(state)
            sampling = metrics.values["time/sampling_seconds"]
            seconds[method].append((sampling, time.perf_counter() - started - sampling))
    return relative_times({method: np.array(values) for method, values in seconds.items()})


def relative_times(seconds: Mapping[str, NDArray[np.float64]]) -> dict[str, Times]:
    """Medians of times of sampling and update, `[rounds, 2]` of each method, and of their ratios to MAML's."""
    ours, times = seconds[MAML], {}
    for method, theirs in seconds.items():
        sampling, update = np.median(theirs, axis=0).tolist()
        whole = np.median(theirs.sum(1) / ours.sum(1))
        times[method] = Times(sampling, update, float(whole), float(np.median(theirs[:, 1] / ours[:, 1])))
    return times


def gradient_qualities(learners: Mapping[str, tuple[RLLearner, State]], draws: int) -> dict[str, GradientQuality]:
    """Noise of each method's meta-gradient, by method, on the same draws of tasks.

    Methods that are not at MAML's parameters (`opened`) are left out. So are those that adapt by learned or measured
    step sizes: with their initial step sizes they are MAML.

    Args:
        learners: A learner of each method with its state, one of them MAML's.
        draws: Independent meta-gradients of each.
    """
    place, qualities = learners[MAML][1].iteration, {}
    for method, (learner, state) in learners.items():
        rates = learner.config.meta
        if state.iteration == place and rates.learned_lr == "no" and not rates.filtered_lr:
            noise = gradient_noise(learner, state, draws)
            qualities[method] = GradientQuality(noise.signal, noise.noise, noise.cosine)
    return qualities
