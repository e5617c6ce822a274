"""The options of each command of `maml-rl`, and how they are read."""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from maml_rl.errors import InputError
from maml_rl.experiments.runs.metaworld_protocol import Protocol
from maml_rl.experiments.runs.run import RunConfig, TaskSet
from maml_rl.experiments.runs.supervised_run import SupervisedConfig
from maml_rl.processes import Processes, StartMethod
from maml_rl.waiting import REPORT_AFTER

Arguments = TypeVar("Arguments")


@dataclass(frozen=True)
class Machine:
    """What a command may use of the machine. None of it changes the result."""

    device: str = "cpu"
    """Where policy and update are computed: cpu, cuda, cuda:1, ..."""
    threads: int | None = None
    """Threads that share the tasks of the update; all cores if None. (Physics uses all cores.)"""
    processes: int | None = None
    """Processes for an environment that is not batched, one sub-environment in each; as many as cores if None."""
    start_method: StartMethod = "spawn"
    """How these processes start: spawn, a fresh interpreter, right for every environment; or fork, a copy of this one,
    which is faster, for environments that use neither PyTorch nor a GPU."""
    report_hang_after: float = REPORT_AFTER
    """Seconds after which stderr names an environment in a process that has not come back from a step or reset, and its
    task; inf for never."""

    def used(self) -> tuple[str, int | None, Processes]:
        """Device, threads and processes, as training and evaluation take them."""
        return self.device, self.threads, Processes(self.processes, self.start_method, self.report_hang_after)


@dataclass(frozen=True)
class SupervisedMachine:
    """What a command on supervised tasks may use of the machine. None of it changes the result."""

    device: str = "cpu"
    """Where everything is computed: cpu, cuda, cuda:1, ..."""
    threads: int | None = None
    """Threads that share the tasks; all cores if None."""


@dataclass(frozen=True)
class Trust:
    """Whose code a command may run."""

    trust_module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Module that a run names and that may be imported, which runs its code; several in several options. Modules that
    you have trained with, or given here, are remembered."""


_Run = Annotated[RunConfig, tyro.conf.arg(name="")]
_Machine = Annotated[Machine, tyro.conf.arg(name="")]
_Trust = Annotated[Trust, tyro.conf.arg(name="")]
_SupervisedRun = Annotated[SupervisedConfig, tyro.conf.arg(name="")]
_SupervisedMachine = Annotated[SupervisedMachine, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Train:
    """Settings of a new run, with the preset's values as defaults."""

    run: _Run
    out: Path | None = None
    """Directory of the run, which must not exist yet. If None, runs/PRESET, or runs/My-v0 with the preset custom, and
    -seedN after it where --seed N is given."""
    resume_if_exists: bool = False
    """Resume the run if its directory exists, after a check that it has the same settings, but for more iterations. So
    one command starts a run and, requeued by a cluster, resumes it."""
    render_every: int = 0
    """Meta-iterations from one animated clip in TensorBoard, before and after adaptation, to the next; none if 0. Clips
    of robots need OpenGL."""
    machine: _Machine = Machine()


@dataclass(frozen=True)
class TrainSupervised:
    """Settings of a new run on supervised tasks, with the preset's values as defaults."""

    run: _SupervisedRun
    out: Path | None = None
    """Directory of the run, which must not exist yet; runs/PRESET if None, or runs/PRESET-seedN where --seed N is
    given."""
    resume_if_exists: bool = False
    """Resume the run if its directory exists, after a check that it has the same settings, but for more iterations. So
    one command starts a run and, requeued by a cluster, resumes it."""
    machine: _SupervisedMachine = SupervisedMachine()


@dataclass(frozen=True)
class Resume:
    """Resumes a run from its last checkpoint, bit for bit."""

    resume: Path
    """Directory of the run."""
    iterations: int | None = None
    """New number of meta-iterations; the run's own if None."""
    data: str | None = None
    """Directory of the images of a supervised run; the run's own if None."""
    render_every: int = 0
    """Meta-iterations from one animated clip in TensorBoard to the next, of reinforcement learning; none if 0."""
    trust: _Trust = Trust()
    machine: _Machine = Machine()


def _task_count(texts: list[str]) -> int | Literal["paper"] | None:
    (text,) = texts
    if text in ("None", "paper"):
        return None if text == "None" else "paper"
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a number, or paper, got {text!r}") from None


_TASKS = PrimitiveConstructorSpec[Any](
    nargs=1,
    metavar="INT|paper",
    instance_from_str=_task_count,
    is_instance=lambda value: value is None or value == "paper" or isinstance(value, int),
    str_from_instance=lambda value: [str(value)],
)


@dataclass(frozen=True)
class Evaluate:
    """Return, error or accuracy after 0, 1, 2, ... gradient steps on held-out tasks, with the run's own settings unless
    given."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    tasks: Annotated[int | Literal["paper"] | None, _TASKS] = None
    """Number of held-out tasks (40; supervised 600); or paper, for the very 40 tasks that the paper's policies were
    tested on, in its five environments. Those go into evaluation-paper.json and adaptation-paper.png."""
    gradient_steps: int | None = None
    """Gradient steps, with fresh episodes for each in reinforcement learning (paper: 3; supervised 3 to 10)."""
    shots: tuple[int, ...] | None = None
    """Of a supervised run: support examples of a task, or of each class, one evaluation for each number."""
    data: str | None = None
    """Of a supervised run: directory of the images (the run's own)."""
    episodes: int | None = None
    """Episodes of each task for each gradient step (paper: 20; navigation 40)."""
    later_lr_factor: float | None = None
    """Factor on the inner step size after the first gradient step (the paper's code: 0.5; ant direction 0.01)."""
    seed: int | None = None
    """Seed of the held-out tasks and of everything random in the evaluation (0)."""
    record: bool = False
    """Record an episode of a few of the tasks after each number of gradient steps, in recording.npz next to
    evaluation.json, for maml-rl visualize."""
    json: bool = False
    """Print one JSON object and nothing else; write no files but the recording, if there is one."""
    out: Path | None = None
    """Where adaptation.png and evaluation.json go. If None, the run's directory, where an evaluation with the run's own
    settings is not replaced by one with others."""
    trust: _Trust = Trust()
    machine: _Machine = Machine()

    @property
    def task_set(self) -> TaskSet:
        """Which tasks."""
        return "paper" if self.tasks == "paper" else "held-out"

    @property
    def count(self) -> int | None:
        """How many held-out tasks, if that was given."""
        return None if self.tasks == "paper" else self.tasks


@dataclass(frozen=True)
class Adapt:
    """Adapts a run to one task, and saves the policy for Stable-Baselines3's PPO."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    out: Path
    """File for the policy, which must not exist yet, for example policy.zip."""
    task: str | None = None
    """The task, as JSON, where brackets around numbers may be left out: 1.5 or 0.3,-0.2; drawn at random if None."""
    gradient_steps: int | None = None
    """Gradient steps, with fresh episodes for each; those of the run's evaluation if None (paper: 3)."""
    episodes: int | None = None
    """Episodes for each gradient step; those of the run's evaluation if None (paper: 20; navigation 40)."""
    seed: int = 0
    """Seed of the task, if none is given, and of everything random in the adaptation."""
    record: bool = False
    """Record an episode after each number of gradient steps as the run's recording.npz, for maml-rl visualize RUN."""
    json: bool = False
    """Print one JSON object and nothing else."""
    trust: _Trust = Trust()
    machine: _Machine = Machine()


@dataclass(frozen=True)
class View:
    """Shows a run live in a browser: its robots side by side, one for each number of gradient steps, and a slider for
    the task, to which the policy adapts on the spot. Ctrl-C ends it."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    host: str = "127.0.0.1"
    """Interface that the page is served on. Any other than this machine's own lets others in, without a password."""
    port: int | None = None
    """Port of the page; the first free one from 8080 on if None."""
    task: str | None = None
    """First task, as `maml-rl adapt` takes it; drawn at random if None."""
    gradient_steps: int | None = None
    """Gradient steps; those of the run's evaluation if None (paper: 3)."""
    episodes: int | None = None
    """Episodes for each gradient step; those of the run's evaluation if None (paper: 20)."""
    seed: int = 0
    """Seed of the first task, if none is given, and of everything random in each adaptation."""
    trust: _Trust = Trust()
    machine: _Machine = Machine()


@dataclass(frozen=True)
class Visualize:
    """Makes a report of a run: one page that shows a few tasks before and after adaptation, and the run's evaluation,
    which is made if there is none of its last checkpoint (see maml-rl evaluate --tasks)."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    out: Path | None = None
    """File for the report; report.html in the run's directory if None."""
    video: Path | None = None
    """File for a video of the recorded episodes side by side as well: .mp4 (extra video), .gif or .webp."""
    figure: Path | None = None
    """File for a figure of the results as well, for a paper: .pdf, .svg or .png."""
    tasks: int | None = None
    """Held-out tasks to watch; those that are recorded, or 4, if None."""
    gradient_steps: int | None = None
    """Gradient steps to watch; as many as are recorded, or as the run is evaluated for, if None."""
    record: bool = False
    """Record the episodes again, whatever is recorded already."""
    data: str | None = None
    """Of a supervised run: directory of the images (the run's own)."""
    trust: _Trust = Trust()
    machine: _Machine = Machine()


@dataclass(frozen=True)
class EvaluateMetaWorld:
    """Success rate on the test tasks of a Meta-World benchmark, by Meta-World's own protocol for meta-learning."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = field(default_factory=Protocol)
    json: bool = False
    """Print one JSON object and nothing else."""
    trust: _Trust = Trust()


@dataclass(frozen=True)
class Compare:
    """Return by gradient step of several runs on one environment, next to the paper's: runs that differ by their seed
    only are one method."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of the runs."""
    tasks: Literal["paper"] | None = None
    """paper: the very 40 tasks that the paper's policies were tested on, in its five environments; the runs' held-out
    tasks if None."""
    gradient_steps: int | None = None
    """Gradient steps to compare; as many as the runs are evaluated for if None."""
    json: bool = False
    """Print one JSON object and nothing else; write no comparison."""
    out: Path | None = None
    """Where comparison.json, comparison.csv and comparison.png go (with --tasks paper comparison-paper.json, ...). If
    None, results/TASK, where a comparison that has other runs too is not replaced."""
    trust: _Trust = Trust()
    machine: _Machine = Machine()

    @property
    def task_set(self) -> TaskSet:
        """Which tasks."""
        return self.tasks or "held-out"


@dataclass(frozen=True)
class Check:
    """Checks that an environment can be meta-trained: exit code 2 after an error, else 0."""

    env_id: Annotated[str, tyro.conf.Positional]
    """Environment as gymnasium.make takes it, for example my_module:My-v0."""
    max_episode_steps: int | None = None
    """Steps after which an episode is truncated; as the environment is registered if None."""
    json: bool = False
    """Print one JSON object and nothing else."""


_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """An option that may be None, which the help shows as its type and not as {None}|INT."""
    alternatives = get_args(info.type)
    if info.type_origin not in (Union, UnionType) or len(alternatives) != 2 or alternatives[1] is not type(None):
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(alternatives[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return replace(
        spec,
        instance_from_str=lambda texts: None if texts == ["None"] else spec.instance_from_str(texts),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
    )


_RESUMED = ", ".join(
    f"--{option.name.replace('_', '-')}"
    for option in (*fields(Resume), *fields(Trust), *fields(Machine))
    if option.name not in ("resume", "trust", "machine")
)
_KEPT = f"; a resumed run keeps its settings and takes only {_RESUMED}"


def parse(kind: type[Arguments], arguments: Sequence[str], prog: str, default: Arguments | None = None) -> Arguments:
    """Arguments of a command.

    Raises:
        InputError: If they cannot be parsed, with tyro's message in one line instead of its box of several.
    """
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message), _REGISTRY:
            if default is None:
                return tyro.cli(kind, args=list(arguments), prog=prog)
            return tyro.cli(kind, args=list(arguments), prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_in_one_line(message.getvalue(), kind is Resume)} (see {prog} --help)") from None


def _in_one_line(message: str, is_resumed: bool) -> str:
    """Tyro's message about arguments that cannot be parsed, with the options that are near to a misspelt one."""
    # A frame of box characters, or, where the terminal cannot show them, a title over a line of dashes.
    lines = message.splitlines()
    framed = any(line.startswith("╭") for line in lines)
    inside = [line.strip("│ ") for line in lines if not line.startswith(("╭", "╰"))]
    parts = re.split("[─-]{10,}", "\n".join(inside))[0 if framed else 1 :]
    text = " ".join(parts[0].split())
    if not text.startswith("Unrecognized"):
        return text
    near = [word.rstrip(",") for part in parts[1:] for word in re.findall(r"^(--[\w.-]+)", part, re.M)]
    suggestion = f"; perhaps you meant {' or '.join(dict.fromkeys(near))}" if near else ""
    return text + suggestion + (_KEPT if is_resumed else "")
