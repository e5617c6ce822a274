"""A run directory: what was asked for, what was reached, and the policy itself.

config.json               settings, for people; the checkpoint holds them too
checkpoint.safetensors    parameters, observation statistics, settings and progress, with their checksum
metrics.csv, tensorboard  every logged quantity by iteration (docs/metrics.md)
machines.json             the machines that trained it
evaluation.json           return by gradient step on held-out tasks
adaptation.png            the same as a picture, with the learning curve
evaluation-paper.json     return by gradient step on the paper's own 40 tasks, and adaptation-paper.png its picture
recording.npz             episodes of a few tasks by gradient step (`Recording`)
"""

import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from maml_rl.advantages import enough_episodes
from maml_rl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_json
from maml_rl.config import MetaConfig, PolicyConfig, require
from maml_rl.errors import InputError
from maml_rl.evaluation import EvaluationConfig
from maml_rl.experiments.runs.records import from_record
from maml_rl.initial import MLPPolicy, build_policy, check_shapes, initial_policy, parameters
from maml_rl.processes import Processes
from maml_rl.tasks import TaskVectorEnv, episode_limit, observation_size, vectorize
from maml_rl.types import Params

CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"
METRICS = "metrics.csv"
EVALUATION = "evaluation.json"
PICTURE = "adaptation.png"
RECORDING = "recording.npz"
TaskSet = Literal["held-out", "paper"]
"""Tasks of an evaluation: held-out ones, drawn by its seed, or the 40 that the paper's policies were tested on."""
KIND, SUPERVISED = "kind", "supervised"  # a checkpoint that names no kind is of reinforcement learning


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run."""

    env_id: str
    """Environment with a task distribution, as gymnasium.make takes it."""
    iterations: int = 100
    """Meta-iterations; 0 leaves the random initialisation, the paper's random baseline."""
    seed: int = 0
    """Seed of everything random."""
    num_envs: int | None = None
    """Sub-environments stepped at once; as many as an iteration has episodes if None. It does not change what is
    sampled."""
    start_from: str | None = None
    """Directory of a run whose policy this one begins with: the same kind of network, and any other settings. Random
    weights if None."""
    observe_task: bool = False
    """Whether an observation ends with the task, as the paper's oracle has it."""
    max_episode_steps: int | None = None
    """Steps after which an episode is truncated; as the environment is registered if None."""
    checkpoint_every: int = 10
    """Meta-iterations from one checkpoint to the next."""
    meta: MetaConfig = field(default_factory=MetaConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        require("iterations", self.iterations, self.iterations >= 0, "at least 0")
        require("seed", self.seed, self.seed >= 0, "at least 0")
        require("num_envs", str(self.num_envs), self.num_envs is None or self.num_envs >= 1, "at least 1 or None")
        limit = self.max_episode_steps
        require("max_episode_steps", str(limit), limit is None or limit >= 1, "at least 1 or None")
        require("checkpoint_every", self.checkpoint_every, self.checkpoint_every >= 1, "at least 1")


def method(config: RunConfig) -> Literal["maml", "maml-oracle", "pretrained", "oracle", "random"]:
    """What a run's settings make of it, by the paper's name (Finn, Abbeel, Levine 2017, section 5.3) where it has one.

    It has none for maml-oracle, MAML with the task in the observation.
    """
    if config.iterations == 0:
        return "random"
    if config.meta.inner_steps:
        return "maml-oracle" if config.observe_task else "maml"
    return "oracle" if config.observe_task else "pretrained"


class Progress(NamedTuple):
    """What a run has reached."""

    iteration: int  # meta-iterations finished
    env_steps: int  # sampled by them
    seconds: float  # spent on them


def env_steps_text(env_steps: float) -> str:
    """A number of env steps as people read it: `13,440`, or `1.3 M`."""
    return f"{env_steps / 1e6:.1f} M" if env_steps >= 1e5 else f"{env_steps:,.0f}"


class Content(NamedTuple):
    """The record of a checkpoint."""

    config: RunConfig
    progress: Progress


class Run(NamedTuple):
    """A run as loaded: its policy, meta-parameters, settings and progress."""

    config: RunConfig
    policy: MLPPolicy
    theta: Params
    progress: Progress


Settings = TypeVar("Settings")


def overridden(settings: Settings, **given: Any) -> Settings:
    """The settings of a run with those a user gave in their place; None is what was not given.

    Raises:
        InputError: If a value is outside its range.
    """
    changed: Settings = replace(settings, **{k: v for k, v in given.items() if v is not None})  # type: ignore[type-var]
    return changed


def file_of(name: str, task_set: TaskSet) -> str:
    """Name of a file about an evaluation on these tasks: `evaluation.json`, or `evaluation-paper.json`."""
    stem, _, ending = name.rpartition(".")
    return name if task_set == "held-out" else f"{stem}-{task_set}.{ending}"


def run_directory(run: Path) -> Path:
    """Directory of a run that is given by its directory or its checkpoint."""
    return run if run.is_dir() else run.parent


def checkpoint_file(run: Path) -> Path:
    """Checkpoint of a run that is given by its directory or its checkpoint."""
    return run / CHECKPOINT if run.is_dir() else run


def is_supervised(directory: Path) -> bool:
    """Whether a run is one of supervised learning.

    Raises:
        InputError: If there is no usable checkpoint.
    """
    return load_checkpoint(checkpoint_file(directory)).record.get(KIND) == SUPERVISED


def save_run(directory: Path, run: Run) -> None:
    """Writes checkpoint and configuration; each file is the old one or the new one, never a part."""
    directory.mkdir(parents=True, exist_ok=True)
    record = asdict(run.config)
    buffers = dict(run.policy.named_buffers())
    tensors = {name: value.detach().cpu() for name, value in (run.theta | buffers).items()}
    save_checkpoint(directory / CHECKPOINT, Checkpoint(tensors, {"config": record, "progress": run.progress._asdict()}))
    write_json(directory / CONFIG, record, indent=2)


AnyContent = TypeVar("AnyContent")


def read_content(path: Path, record: dict[str, Any], kind: type[AnyContent]) -> AnyContent:
    """The record of a run's checkpoint, of a kind with `config` and `progress`.

    Raises:
        InputError: If it is another one, or a setting is outside its range.
    """
    try:
        content = from_record(kind, record)
    except TypeError as error:
        raise InputError(f"{path} holds settings that this version of maml-rl does not know ({error})") from error
    except InputError as error:
        raise InputError(f"{path} holds a setting that cannot be: {error}") from error
    reached = {name: value for name, value in record["progress"].items() if not isinstance(value, dict)}
    for name, value in reached.items():
        require(f"progress.{name} in {path}", value, value >= 0, "at least 0")
    return content


def load_config(directory: Path) -> tuple[RunConfig, Progress, Params]:
    """Settings, progress and tensors of a run's checkpoint.

    Raises:
        InputError: If there is no usable checkpoint.
    """
    path = checkpoint_file(directory)
    checkpoint = load_checkpoint(path)
    if checkpoint.record.get(KIND) == SUPERVISED:
        raise InputError(
            f"{directory} is a run of supervised learning, and this is for reinforcement learning: such a run is for "
            "maml-rl evaluate, maml-rl visualize and maml-rl train --resume"
        )
    content = read_content(path, checkpoint.record, Content)
    return content.config, content.progress, checkpoint.tensors


def make_envs(config: RunConfig, num_envs: int, processes: Processes | None = None, **settings: Any) -> TaskVectorEnv:
    """The environments of a run.

    Args:
        config: Settings of the run.
        num_envs: Number of sub-environments.
        processes: See `maml_rl.tasks.vectorize`.
        settings: Keyword arguments of the environment.

    Raises:
        InputError: If the environment cannot be meta-trained.
        WorkerError: If a process cannot make the environment.
    """
    return vectorize(config.env_id, num_envs, processes, config.observe_task, config.max_episode_steps, **settings)


def warn_of_few_episodes(envs: TaskVectorEnv, episodes: int) -> None:
    """Says on stderr where a task has too few episodes for the baseline to be fitted to them."""
    size, horizon = observation_size(envs), episode_limit(envs)
    enough = enough_episodes(size, horizon)
    if episodes < enough:
        print(
            f"warning: a task has {episodes} episode{'' if episodes == 1 else 's'} of at most {horizon} steps for the "
            f"{2 * size + 4} weights of the baseline, which then passes through the returns and leaves advantages that "
            f"are mostly noise: take {enough} episodes or more",
            file=sys.stderr,
        )


def new_run(config: RunConfig, envs: TaskVectorEnv) -> Run:
    """A run before its first iteration, on the CPU: a random policy, or that of the run it starts from.

    Raises:
        InputError: If the run to start from has no usable checkpoint, or does not fit environment and network.
    """
    if config.start_from is None:
        policy = initial_policy(envs, config.policy, config.meta, config.seed)
        theta = parameters(policy)
    else:
        policy, theta = _restored(config, envs, load_config(Path(config.start_from))[2], config.start_from)
    return Run(config, policy, theta, Progress(0, 0, 0.0))


def load_run(directory: Path, envs: TaskVectorEnv) -> Run:
    """A trained run, with a policy for `envs`, on the CPU.

    Raises:
        InputError: If there is no usable checkpoint, or it does not fit the environment.
    """
    config, progress, tensors = load_config(directory)
    policy, theta = _restored(config, envs, tensors, str(directory))
    return Run(config, policy, theta, progress)


def _restored(config: RunConfig, envs: TaskVectorEnv, tensors: Params, source: str) -> tuple[MLPPolicy, Params]:
    policy = build_policy(
        envs, config.policy, config.seed, tensors.get("observation_mean"), tensors.get("observation_std")
    )
    check_shapes(policy, tensors, source)
    return policy, {name: tensors[name] for name in parameters(policy)}
