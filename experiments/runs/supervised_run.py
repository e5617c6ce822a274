"""A run of supervised meta-learning, in the same directory layout as one of reinforcement learning."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from maml_rl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_json
from maml_rl.config import require
from maml_rl.errors import InputError
from maml_rl.experiments.runs.run import CHECKPOINT, CONFIG, KIND, SUPERVISED, checkpoint_file, read_content
from maml_rl.seeding import Phase
from maml_rl.supervised.config import MethodConfig
from maml_rl.supervised.meta_learning import State, initial_state
from maml_rl.supervised.networks import ModelConfig, Network, build_network
from maml_rl.supervised.optimizers import Moments
from maml_rl.supervised.sources import TasksConfig
from maml_rl.supervised.tasks import TaskSource

_MOMENTS = "adam."


@dataclass(frozen=True)
class EvaluationConfig:
    """How a trained initialisation is evaluated."""

    tasks: int = 600
    """Held-out tasks (paper: 600)."""
    gradient_steps: int = 10
    """Gradient steps (paper: 10; Omniglot 3 for 5 ways)."""
    shots: tuple[int, ...] = ()
    """Support examples of a task, or of each class, one evaluation for each number; as in training if none."""
    queries: int | None = None
    """Query examples of a task, or of each class; as in training if None."""
    seed: int = 0
    """Seed of the held-out tasks; no training draws from it."""
    validation_tasks: int = 200
    """Further held-out tasks, on which the step size is chosen for a network trained without inner updates."""
    inner_lrs: tuple[float, ...] = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
    """Step sizes that it is chosen from, for each number of shots by itself."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("tasks", self.tasks, self.tasks >= 2, "at least 2")
        require("gradient_steps", self.gradient_steps, self.gradient_steps >= 0, "at least 0")
        require("shots", str(self.shots), all(shots >= 1 for shots in self.shots), "all at least 1")
        require("queries", str(self.queries), self.queries is None or self.queries >= 1, "at least 1 or None")
        require("seed", self.seed, self.seed >= 0, "at least 0")
        require("validation_tasks", self.validation_tasks, self.validation_tasks >= 1, "at least 1")
        lrs = self.inner_lrs
        require("inner_lrs", str(lrs), len(lrs) > 0 and min(lrs) > 0, "one or more, each above 0")


@dataclass(frozen=True)
class SupervisedConfig:
    """Everything that decides the result of a run."""

    tasks: TasksConfig
    data: str | None = None
    """Directory of the images, for families that have some; data/FAMILY if None."""
    iterations: int = 60_000
    """Meta-iterations (paper: 60,000; sinusoid 70,000)."""
    seed: int = 0
    """Seed of everything random."""
    checkpoint_every: int = 1000
    """Meta-iterations from one checkpoint to the next."""
    log_every: int = 100
    """Meta-iterations of a row of the log, which has their means."""
    method: MethodConfig = field(default_factory=MethodConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("iterations", self.iterations, self.iterations >= 0, "at least 0")
        require("seed", self.seed, self.seed >= 0, "at least 0")
        require("checkpoint_every", self.checkpoint_every, self.checkpoint_every >= 1, "at least 1")
        require("log_every", self.log_every, self.log_every >= 1, "at least 1")


class Progress(NamedTuple):
    """What a run has reached."""

    iteration: int  # meta-iterations finished
    seconds: float  # spent on them
    pending: dict[str, float]  # sums of the metrics since the last row of the log


class Content(NamedTuple):
    """The record of a checkpoint."""

    kind: Literal["supervised"]
    config: SupervisedConfig
    progress: Progress


class Run(NamedTuple):
    """A run as loaded."""

    config: SupervisedConfig
    network: Network
    state: State
    progress: Progress

    def to(self, device: torch.device) -> "Run":
        """The same run, computed on a device."""
        meta = {name: value.to(device) for name, value in self.state.meta.items()}
        state = State(meta, Moments(*(value.to(device) for value in self.state.moments)), self.state.iteration)
        return self._replace(network=self.network.to(device), state=state)


def new_run(config: SupervisedConfig, source: TaskSource, phase: Phase = Phase.TRAINING) -> Run:
    """A run before its first iteration, on the CPU, with a network for the tasks of `source`.

    A task of `phase` tells the shapes; of images, its split is decoded for that.
    """
    ways = config.tasks.ways if config.tasks.is_classification else None
    network = build_network(config.model, source.batch(config.seed, phase, [0]), ways, config.seed)
    return Run(config, network, initial_state(network, config.method), Progress(0, 0.0, {}))


def save_run(directory: Path, run: Run) -> None:
    """Writes checkpoint and configuration; each file is the old one or the new one, never a part."""
    directory.mkdir(parents=True, exist_ok=True)
    record = asdict(run.config)
    tensors = {name: value.detach().cpu() for name, value in (run.state.meta | _named(run.state.moments)).items()}
    content = {KIND: SUPERVISED, "config": record, "progress": run.progress._asdict()}
    save_checkpoint(directory / CHECKPOINT, Checkpoint(tensors, content))
    write_json(directory / CONFIG, record, indent=2)


def load_run(directory: Path, source: TaskSource, to_go_on: bool = False) -> Run:
    """A trained run, with a network for the tasks of `source`, on the CPU.

    Args:
        directory: The run, or its checkpoint.
        source: Its tasks.
        to_go_on: Whether training goes on, for which the checkpoint must hold Adam's moments.

    Raises:
        InputError: If there is no usable checkpoint, or it is of another kind or network.
    """
    path = checkpoint_file(directory)
    checkpoint = load_checkpoint(path)
    config, progress = _settings(path, checkpoint.record)
    run = new_run(config, source, Phase.TRAINING if to_go_on else Phase.EVALUATION)
    expected = _forms(run.state.meta)
    if to_go_on:
        if not any(name.startswith(_MOMENTS) for name in checkpoint.tensors):
            raise InputError(f"{directory} holds no moments of Adam, so it can be evaluated, not gone on with")
        expected |= _forms(_named(run.state.moments))
    else:
        checkpoint = without_moments(checkpoint)
    if expected != _forms(checkpoint.tensors):
        raise InputError(f"the checkpoint in {directory} does not fit its tasks and network; are the data another's?")
    meta = {name: checkpoint.tensors[name] for name in run.state.meta}
    moments = run.state.moments
    if to_go_on:
        moments = Moments(*(checkpoint.tensors[_MOMENTS + name] for name in Moments._fields))
    return run._replace(state=State(meta, moments, progress.iteration), progress=progress)


def load_config(directory: Path) -> tuple[SupervisedConfig, Progress]:
    """Settings and progress of a run's checkpoint.

    Raises:
        InputError: If there is no usable checkpoint, or it is of another kind of run.
    """
    path = checkpoint_file(directory)
    return _settings(path, load_checkpoint(path).record)


def _settings(path: Path, record: dict[str, Any]) -> tuple[SupervisedConfig, Progress]:
    if record.get(KIND) != SUPERVISED:
        raise InputError(f"{path} is no run of supervised learning")
    content = read_content(path, record, Content)
    return content.config, content.progress


def without_moments(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint at a third of its size, for evaluation alone."""
    tensors = {name: value for name, value in checkpoint.tensors.items() if not name.startswith(_MOMENTS)}
    return checkpoint._replace(tensors=tensors)


def _named(moments: Moments) -> dict[str, Tensor]:
    return {_MOMENTS + name: value for name, value in moments._asdict().items()}


def _forms(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}
