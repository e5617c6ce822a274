"""The command `maml-rl`."""

import contextlib
import io
import json
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import tyro

from experiments.presets import PRESETS, find_preset
from experiments.run import CHECKPOINT, EVALUATION, RunConfig
from maml_rl.errors import InputError, NonFiniteError

USAGE = """\
usage: maml-rl COMMAND ...

Meta-reinforcement learning with MAML: train a policy on a distribution of tasks so that one gradient step on a
handful of episodes adapts it to a new one.

commands:
  presets                  list ready settings, with their source and what to expect
  train PRESET             meta-train; leaves a run directory (default runs/PRESET)
  train --resume RUN       go on with a run that was interrupted
  evaluate RUN             return after 0, 1, 2, 3 gradient steps on held-out tasks, as a table and a picture

maml-rl COMMAND --help tells the options of each.
"""

Arguments = TypeVar("Arguments")
_Run = Annotated[RunConfig, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Train:
    """Settings of a new run, with the preset's values as defaults."""

    run: _Run
    out: Path
    """Directory of the run, which must not exist yet."""
    device: str = "cpu"
    """Where policy and update are computed: cpu, cuda, cuda:1, ..."""
    threads: int | None = None
    """Threads that share the tasks of the update; all cores if None. They do not change the
    result. (Physics uses all cores.)"""


@dataclass(frozen=True)
class Resume:
    """Goes on with a run from its last checkpoint, to the same result as if it had never stopped."""

    resume: Path
    """Directory of the run."""
    iterations: int | None = None
    """New number of meta-iterations; the run's own if None."""
    device: str = "cpu"
    """Where policy and update are computed: cpu, cuda, cuda:1, ..."""
    threads: int | None = None
    """Threads that share the tasks of the update; all cores if None. They do not change the
    result. (Physics uses all cores.)"""


@dataclass(frozen=True)
class Evaluate:
    """Return after 0, 1, 2, ... gradient steps on held-out tasks, with the run's own settings unless given."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    tasks: int | None = None
    """Held-out tasks (paper: 40)."""
    gradient_steps: int | None = None
    """Gradient steps, with fresh episodes for each (paper: 3)."""
    episodes: int | None = None
    """Episodes of each task for each gradient step (paper: 20; navigation 40)."""
    later_lr_factor: float | None = None
    """Factor on the inner step size after the first gradient step (the paper's code: 0.5)."""
    seed: int | None = None
    """Seed of the held-out tasks and of everything random in the evaluation (0)."""
    json: bool = False
    """Print one JSON object and nothing else; write no files."""
    out: Path | None = None
    """Where adaptation.png and evaluation.json go. If None, the run's directory, where an evaluation with settings
    given here does not replace another."""
    device: str = "cpu"
    """Where policy and updates are computed: cpu, cuda, cuda:1, ..."""
    threads: int | None = None
    """Threads that share the tasks; all cores if None. They do not change the
    result. (Physics uses all cores.)"""


def presets(arguments: Sequence[str]) -> None:
    """Lists the presets."""
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: maml-rl presets\n\nLists ready settings, with their source and what to expect.")
        return
    if arguments:
        raise InputError(f"maml-rl presets takes no arguments, got {' '.join(arguments)}")
    for name, preset in PRESETS.items():
        config = preset.config
        meta = config.meta
        settings = f"{config.iterations} iterations of {meta.meta_batch_size} tasks x {meta.episodes} episodes, "
        settings += f"inner lr {meta.inner_lr}, lambda {meta.gae_lambda}, max KL {meta.trust_region.max_kl}, "
        settings += f"observations {'standardised' if config.policy.standardise else 'raw'}"
        print(f"{name}\n    task      {preset.task}\n    source    {preset.source}")
        print(f"    settings  {settings}\n    expected  {preset.expected}\n")


def train(arguments: Sequence[str]) -> None:
    """Trains from a preset, or resumes."""
    if not arguments:
        raise InputError(f"train needs a preset, one of {', '.join(PRESETS)}, or --resume RUN")
    if arguments[0] in ("-h", "--help"):
        print("usage: maml-rl train PRESET [options] | maml-rl train --resume RUN [options]\n")
        print(f"presets: {', '.join(PRESETS)}\n")
        print("maml-rl train PRESET --help and maml-rl train --resume --help tell the options.")
        return
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        wants_help = arguments[-1] in ("-h", "--help")
        resume = _parse(Resume, ["--help"] if wants_help else arguments, "maml-rl train")
        _go(
            resume.resume,
            lambda: _train_module().resume(resume.resume, resume.iterations, resume.device, resume.threads),
        )
        return
    name = arguments[0]
    if name.startswith("-"):
        raise InputError(f"the preset comes first, then options such as {name}: maml-rl train PRESET {name} ...")
    preset = find_preset(name)
    default = Train(run=preset.config, out=Path("runs") / name)
    chosen = _parse(Train, arguments[1:], f"maml-rl train {name}", default)
    _go(chosen.out, lambda: _train_module().train(chosen.run, chosen.out, chosen.device, chosen.threads))


def _train_module() -> Any:
    from experiments import train as module  # Stable-Baselines3 takes a second to import

    return module


def _go(out: Path, work: Callable[[], Any]) -> None:
    try:
        run = work()
    except KeyboardInterrupt:
        if not (out / CHECKPOINT).exists():
            raise
        print(f"\ninterrupted; saved. Go on with: maml-rl train --resume {shlex.quote(str(out))}", file=sys.stderr)
        raise SystemExit(130) from None
    except NonFiniteError as error:
        kept = f"the last checkpoint in {out} is intact; " if (out / CHECKPOINT).exists() else ""
        hint = "train anew with a lower --meta.inner-lr or --meta.trust-region.max-kl"
        raise InputError(f"training stopped: {error}: {kept}{hint}") from error
    minutes = run.progress.seconds / 60
    print(f"{run.progress.iteration} iterations, {run.progress.env_steps / 1e6:.1f} M env steps in {minutes:.1f} min")
    print(f"next: maml-rl evaluate {out}")


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluates a run."""
    chosen = _parse(Evaluate, arguments, "maml-rl evaluate")
    from experiments.evaluate import Overrides, evaluate, table

    directory = chosen.run if chosen.run.is_dir() else chosen.run.parent
    out = chosen.out or directory
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give a directory")
    overrides = Overrides(chosen.tasks, chosen.gradient_steps, chosen.episodes, chosen.later_lr_factor, chosen.seed)
    evaluations = evaluate(chosen.run, overrides, chosen.device, chosen.threads)
    if chosen.json:
        print(json.dumps(evaluations.record()))
        return
    from experiments.plots import draw_adaptation

    print(f"mean return over {evaluations.config.tasks} held-out tasks, {evaluations.config.episodes} episodes each\n")
    print(table(evaluations))
    own_settings = all(value is None for value in overrides)
    if not own_settings and chosen.out is None and (out / EVALUATION).exists():
        print(f"\n{out / EVALUATION} stays as it is, with the run's own settings; give --out DIR to keep this one")
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / EVALUATION).write_text(json.dumps(evaluations.record(), indent=1) + "\n")
    draw_adaptation(evaluations, directory, out / "adaptation.png")
    print(f"\npicture: {out / 'adaptation.png'}")


def _parse(kind: type[Arguments], arguments: Sequence[str], prog: str, default: Arguments | None = None) -> Arguments:
    """Arguments of a command.

    Raises:
        InputError: If they cannot be parsed, with tyro's message in one line instead of its box of several.
    """
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            if default is None:
                return tyro.cli(kind, args=list(arguments), prog=prog)
            return tyro.cli(kind, args=list(arguments), prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        # A frame of box characters, or, where the terminal cannot show them, a title over a line of dashes.
        lines = message.getvalue().splitlines()
        framed = any(line.startswith("╭") for line in lines)
        inside = [line.strip("│ ") for line in lines if not line.startswith(("╭", "╰"))]
        text = re.split("[─-]{10,}", " ".join(inside))[0 if framed else 1].strip()
        raise InputError(f"{text} (see {prog} --help)") from None


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"presets": presets, "train": train, "evaluate": evaluate}


def main() -> None:
    """Entry point: exit code 0, or 2 with one line that says what was expected, or 130 after Ctrl-C."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's stop saves like Ctrl-C
    torch.set_num_threads(1)  # tasks are shared among threads of our own; OpenMP's would only compete with them
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if arguments[0] == "--version":
        print(f"maml-rl {version('maml-rl')}")
        return
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(f"there is no command {arguments[0]!r}: expected one of {', '.join(COMMANDS)}")
        COMMANDS[arguments[0]](arguments[1:])
    except (InputError, NonFiniteError, OSError) as error:
        print(f"maml-rl: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("maml-rl: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
