"""A run: settings, the state that training has reached, and the file that stores both::

    run = load_run("trained/navigation")
    with run.open() as learner:
        for params, episodes in learner.adaptation(run.state, [task]):
            ...

A run directory::

    config.json               settings, for people; the checkpoint holds them too
    checkpoint.safetensors    parameters, constants, optimizer state, settings and progress, with their checksum
    metrics.csv, tensorboard  every logged quantity by iteration (docs/metrics.md)
    machines.json             the machines that trained it
    evaluation.json           what it does on held-out tasks, by gradient step
    adaptation.png            the same as a picture, with the learning curve
    evaluation-paper.json     the same on the paper's own tasks, and adaptation-paper.png its picture
    recording.npz             episodes of a few tasks by gradient step
"""

import math
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from torch import Tensor

from maml_rl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_json
from maml_rl.config import EvaluationConfig, PolicyConfig, RLConfig, RLEvaluation, RunConfig, require
from maml_rl.errors import InputError
from maml_rl.hub import is_on_hub, local_copy
from maml_rl.json_types import from_json
from maml_rl.learner import AnyLearner, Metrics
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.rates import begun, theta
from maml_rl.supervised.settings import SupervisedConfig
from maml_rl.types import Params, State

if TYPE_CHECKING:
    from maml_rl.reinforcement import RLLearner

CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"
METRICS = "metrics.csv"
_CONSTANT, _OPTIMIZER = "constant.", "optimizer."
_KINDS: dict[str, type[RLConfig] | type[SupervisedConfig]] = {c.kind: c for c in (RLConfig, SupervisedConfig)}


class Progress(NamedTuple):
    """Effort of training, in addition to the iterations that the state counts."""

    seconds: float = 0.0
    env_steps: int = 0  # of reinforcement learning
    pending: Mapping[str, float | None] = MappingProxyType({})  # sums of metrics since the last row; None: not finite


class Run(NamedTuple):
    """A run as loaded, on the CPU, or as trained."""

    config: RLConfig | SupervisedConfig
    state: State
    constants: Params  # tensors of the network that training never changes
    progress: Progress = Progress()
    directory: Path | None = None  # that it was loaded from

    def open(self, machine: Machine = THIS_MACHINE, evaluation: EvaluationConfig | None = None) -> AnyLearner:
        """The run's learner, a context that closes it; see `open_learner` for the arguments.

        It can do everything except train a run that imitates experts, which needs them: use `open_learner` for that.

        Raises:
            InputError: If the run's tensors do not fit its tasks and network. Otherwise as `open_learner`.
        """
        own = type(self.config.evaluation)
        if evaluation is not None and not isinstance(evaluation, own):
            raise InputError(f"evaluation must be a {own.__name__} for this run, got a {type(evaluation).__name__}")
        return _checked(_opened(self.config, machine, self.constants, evaluation), self)

    def open_rl(self, machine: Machine = THIS_MACHINE, episodes: int | None = None) -> "RLLearner":
        """The learner of a run of reinforcement learning; see `maml_rl.reinforcement.open_rl`.

        Raises:
            InputError: If it is another one. Otherwise as `open`.
        """
        from maml_rl.reinforcement import open_rl

        return _checked(open_rl(self.rl_config, machine, self.constants, episodes), self)

    @property
    def rl_config(self) -> RLConfig:
        """Settings of the run, which has to be one of reinforcement learning.

        Raises:
            InputError: If it is another one.
        """
        if not isinstance(self.config, RLConfig):
            raise InputError(f"{self.directory or 'the run'} is a supervised run: give a run of reinforcement learning")
        return self.config


class _Content(NamedTuple):
    """The record of a checkpoint, without its settings."""

    kind: str
    iteration: int
    progress: Progress
    config: dict[str, Any]


def open_learner(
    config: RunConfig,
    machine: Machine = THIS_MACHINE,
    constants: Params | None = None,
    evaluation: EvaluationConfig | None = None,
) -> AnyLearner:
    """The learner for a run's settings, with all that it needs: use it as a context manager, or close it.

    Args:
        config: Settings of the run.
        machine: Machine resources to use.
        constants: Tensors of the network that training never changes; those of a new run if None.
        evaluation: Settings of the evaluation that it is for; if None, it is for training.

    Raises:
        InputError: If the environment, data, device or a setting cannot be used.
        WorkerError: If a process cannot make the environment.
    """
    if isinstance(config, RLConfig) and config.imitation.experts is not None and evaluation is None:
        return _open_mimic(config, Path(config.imitation.experts), machine, constants)
    return _opened(config, machine, constants, evaluation)


def _open_mimic(config: RLConfig, directory: Path, machine: Machine, constants: Params | None) -> AnyLearner:
    """The learner of an imitation, with the experts of a run."""
    from maml_rl.actor_mimic import MimicLearner, check_experts, experts_of

    run = load_run(directory)
    check_experts(directory, run.rl_config, config)
    # Its own inner loss may be of another module, which nothing here needs and the user need not trust.
    run = run._replace(config=replace(run.rl_config, meta=config.meta))
    learner = _opened_rl(config, machine, constants, None)
    try:
        with run.open_rl(machine, 1) as oracle:
            experts = experts_of(directory, oracle, run.state, learner)
        return MimicLearner(config, learner.envs, learner.policy, experts, machine)
    except BaseException:
        learner.close()
        raise


def _opened(
    config: RunConfig, machine: Machine, constants: Params | None, evaluation: EvaluationConfig | None
) -> AnyLearner:
    """`open_learner`, without the experts of an imitation."""
    if isinstance(config, RLConfig):
        return _opened_rl(config, machine, constants, evaluation)
    if isinstance(config, SupervisedConfig):
        from maml_rl.supervised.supervised_learner import open_supervised

        return open_supervised(config, machine, for_training=evaluation is None)
    raise InputError(f"settings of a run are an RLConfig or a SupervisedConfig, got {type(config).__name__}")


def _opened_rl(
    config: RLConfig, machine: Machine, constants: Params | None, evaluation: EvaluationConfig | None
) -> "RLLearner":
    from maml_rl.reinforcement import open_rl

    if constants is None and config.start_from is not None:
        constants = load_run(config.start_from).constants
    episodes = evaluation.tasks * evaluation.episodes if isinstance(evaluation, RLEvaluation) else None
    return open_rl(config, machine, constants, episodes)


def new_run(learner: AnyLearner, config: RLConfig | SupervisedConfig) -> Run:
    """A run before its first iteration: random weights, or those of the run it starts from.

    Raises:
        InputError: If the run to start from has no usable checkpoint, or does not fit environment and network.
    """
    state = learner.initial()
    if isinstance(config, RLConfig) and config.start_from is not None:
        other = load_run(config.start_from)
        _check_network(config.start_from, other.rl_config.network, config.network)
        state = state._replace(meta=state.meta | begun(theta(other.state.meta), config.meta.adapted))
        check_fits(learner, other._replace(state=state))
    return Run(config, state, learner.constants)


def _check_network(run: str, there: PolicyConfig, here: PolicyConfig) -> None:
    """Checks that a run's weights make the same policy in another network, which their shapes do not show.

    Raises:
        InputError: If a setting of the network would make another policy of them; names it.
    """
    for name in ("module", "arguments", "activation"):
        own, others = getattr(here, name), getattr(there, name)
        if own != others:
            raise InputError(
                f"the network of {run} has the {name} {others}, this one {own}, which turns its weights into another "
                f"policy: set network.{name} to {others}"
            )


def after_iteration(run: Run, state: State, metrics: Metrics, seconds: float) -> tuple[Run, dict[str, float]]:
    """A run after one more meta-iteration, and what to log of it: means since the last row of the log, and totals.

    The log has a row every `log_every` iterations. The sums since the last row are part of the run, so a run that was
    resumed between two rows logs the same row.

    Args:
        run: The run before.
        state: What the iteration reached.
        metrics: What it measured.
        seconds: How long it took.
    """
    before = run.progress
    env_steps = int(metrics.values.get("sampling/env_steps", 0))
    values = metrics.values | {"time/iteration_seconds": seconds}
    values.pop("sampling/env_steps", None)
    if env_steps:
        values["time/env_steps_per_second"] = env_steps / seconds
    pending = {name: math.nan if total is None else total for name, total in before.pending.items()}
    sums = {name: pending.get(name, 0.0) + value for name, value in values.items()}
    count = (state.iteration - 1) % run.config.log_every + 1
    is_row = count == run.config.log_every
    progress = Progress(before.seconds + seconds, before.env_steps + env_steps, {} if is_row else sums)
    means = {name: value / count for name, value in sums.items()}
    means |= {"iteration": state.iteration, "time/seconds": progress.seconds}
    if progress.env_steps:
        means["sampling/env_steps"] = progress.env_steps
    return run._replace(state=state, progress=progress), means


def train(
    config: RLConfig | SupervisedConfig,
    iterations: int | None = None,
    machine: Machine = THIS_MACHINE,
    report: Callable[[str], object] = lambda _: None,
) -> Run:
    """Meta-trains from the start, or from another run's policy, in memory; `save_run` writes the result.

    Args:
        config: Settings: an `RLConfig` or a `SupervisedConfig`.
        iterations: Meta-iterations; those of the settings if None.
        machine: Machine resources to use. None of them changes the result.
        report: Called with a line about each iteration, for example `print`.

    Raises:
        InputError: If environment, data, device or a setting cannot be used.
        NonFiniteError: If training diverges.
        WorkerError: If the environment fails in one of its processes.
    """
    config = overridden(config, iterations=iterations)
    with open_learner(config, machine) as learner:
        run = new_run(learner, config)
        for iteration in range(config.iterations):
            started = time.monotonic()
            state, metrics = learner.iterate(run.state)
            run, values = after_iteration(run, state, metrics, time.monotonic() - started)
            report(f"iteration {iteration + 1}: {learner.summary(values)}")
    return run


def load_run(path: str | Path) -> Run:
    """A run, by its directory, its checkpoint, or its place on the Hugging Face Hub: `hub:owner/name`.

    Raises:
        InputError: If there is no usable checkpoint, or the Hub does not give one (`maml_rl.hub.local_copy`).
    """
    path = checkpoint_file(Path(path))
    _check_shipped(path)
    checkpoint = load_checkpoint(path)
    content, config = _content(path, checkpoint.record)
    tensors = checkpoint.tensors
    constants, optimizer = (_without_prefix(tensors, prefix) for prefix in (_CONSTANT, _OPTIMIZER))
    meta = {name: value for name, value in tensors.items() if not name.startswith((_CONSTANT, _OPTIMIZER))}
    return Run(config, State(meta, optimizer, content.iteration), constants, content.progress, path.parent)


def _check_shipped(path: Path) -> None:
    """Raises InputError, with a command that copies it, if there is no file but the package has a run of this name."""
    shipped = files("maml_rl.trained") / path.name
    if not path.is_file() and (shipped / CHECKPOINT).is_file():
        here = shlex.quote(f"{path.parent}")
        copy = f"mkdir -p {here} && cp -r {shlex.quote(str(shipped))} {here}"
        raise InputError(f"there is no checkpoint at {path}, but the package has a run of this name: {copy}")


def save_run(directory: str | Path, run: Run) -> None:
    """Writes checkpoint and configuration; each file is the old one or the new one, never a part."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    constants = {_CONSTANT + name: value for name, value in run.constants.items()}
    optimizer = {_OPTIMIZER + name: value for name, value in run.state.optimizer.items()}
    tensors = {name: value.detach().cpu() for name, value in (run.state.meta | constants | optimizer).items()}
    settings = asdict(run.config)
    content = _Content(run.config.kind, run.state.iteration, run.progress, settings)
    record = content._asdict() | {"progress": run.progress._asdict() | {"pending": _finite(run.progress.pending)}}
    save_checkpoint(directory / CHECKPOINT, Checkpoint(tensors, record))
    in_order = sorted(settings.items(), key=lambda setting: isinstance(setting[1], dict))  # those of parts come last
    write_json(directory / CONFIG, dict(in_order), indent=2)


def check_fits(learner: AnyLearner, run: Run, *, resumes: bool = False) -> None:
    """Checks that a run's tensors are those of its environment or data, and network.

    Args:
        learner: The learner that is to use it.
        run: The run.
        resumes: Whether training continues, which needs the optimizer's state too.

    Raises:
        InputError: If a name, shape or type differs, or the optimizer's state is missing.
    """
    expected = learner.initial()
    _check_forms(expected.meta | learner.constants, run.state.meta | run.constants, run)
    if resumes:
        if expected.optimizer and not run.state.optimizer:
            raise InputError(f"{run.directory} has no optimizer state: it can be evaluated but not resumed")
        _check_forms(expected.optimizer, run.state.optimizer, run)


def checkpoint_file(run: Path) -> Path:
    """Checkpoint of a run that is given by its directory or its checkpoint, or by its place on the Hub."""
    run = _on_this_machine(run)
    return run / CHECKPOINT if run.is_dir() else run


def run_directory(run: Path) -> Path:
    """Directory of a run that is given by its directory or its checkpoint, or by its place on the Hub."""
    run = _on_this_machine(run)
    return run if run.is_dir() else run.parent


def _on_this_machine(run: Path) -> Path:
    return local_copy(run) if is_on_hub(run) else run


AnySettings = TypeVar("AnySettings")


def overridden(settings: AnySettings, **given: Any) -> AnySettings:
    """Settings with the values that a user gave in place of their own; None stands for a value that was not given.

    Raises:
        InputError: If a value is outside its range.
    """
    changed: AnySettings = replace(settings, **{k: v for k, v in given.items() if v is not None})  # type: ignore[type-var]
    return changed


def with_data(config: RunConfig, data: str, run: Path) -> SupervisedConfig:
    """Settings of a run with another directory of its images.

    Raises:
        InputError: If the run has no images.
    """
    if not isinstance(config, SupervisedConfig):
        raise InputError(f"{run} is a run of reinforcement learning, which has no --data: leave it out")
    return replace(config, data=data)


def _content(path: Path, record: dict[str, Any]) -> tuple[_Content, RLConfig | SupervisedConfig]:
    try:
        content = from_json(_Content, record)
        if content.kind not in _KINDS:
            raise TypeError(f"kind should be one of {', '.join(_KINDS)}, is {content.kind[:40]!r}")
        config = from_json(_KINDS[content.kind], content.config)
    except TypeError as error:
        raise InputError(f"{path} has settings that this version of maml-rl does not know ({error})") from error
    except InputError as error:
        raise InputError(f"{path} has an invalid setting: {error}") from error
    reached = {"iteration": content.iteration, "seconds": content.progress.seconds}
    for name, value in (reached | {"env_steps": content.progress.env_steps}).items():
        require(f"{name} in {path}", value, value >= 0, "at least 0")
    return content, config


def _finite(sums: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: total if total is not None and math.isfinite(total) else None for name, total in sums.items()}


def _without_prefix(tensors: Params, prefix: str) -> Params:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


AnyOpened = TypeVar("AnyOpened", bound=AnyLearner)


def _checked(learner: AnyOpened, run: Run) -> AnyOpened:
    """A run's learner, which is closed if the run does not fit it."""
    try:
        check_fits(learner, run)
    except InputError:
        learner.close()
        raise
    return learner


def _check_forms(expected: Params, found: Params, run: Run) -> None:
    wanted, given = ({name: _form(value) for name, value in tensors.items()} for tensors in (expected, found))
    if wanted != given:
        name = next(n for n in sorted({*wanted, *given}) if wanted.get(n) != given.get(n))
        source = f"the checkpoint in {run.directory}" if run.directory else "the run"
        raise InputError(
            f"{source} does not match its tasks and network: {name} should be {wanted.get(name, 'absent')}, is "
            f"{given.get(name, 'absent')}; does it belong to another environment or other data?"
        )


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
