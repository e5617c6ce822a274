"""Entry point of the command `maml-rl`: its subcommands and exit codes.

A command's module is imported only when the command is called, and PyTorch only when it computes. `maml-rl --help`
needs neither, nor do the processes of an environment, which import this module as their main module.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple

from maml_rl.errors import InputError, NonFiniteError, RankError, WorkerError
from maml_rl.experiments.commands.ranked import ending_at_once, on_this_rank


class Command(NamedTuple):
    """A command of `maml-rl`."""

    module: str  # in `maml_rl.experiments.commands`; its `run` takes the arguments
    operands: str
    summary: str


COMMANDS = {
    "presets": Command("list_presets", "", "list presets: settings, their source, and what to expect"),
    "check": Command("check", "ENV_ID", "check that your environment can be meta-trained"),
    "train": Command("train", "PRESET", "meta-train; saves a run, by default in runs/PRESET"),
    "evaluate": Command("evaluate", "RUN", "measure return, error or accuracy by gradient step on held-out tasks"),
    "compare": Command("compare", "RUN ...", "compare several runs and methods, and the paper's results"),
    "rl2": Command("rl2", "ACTION ...", "train, resume or evaluate RL^2, a policy with a memory, to compare with"),
    "family": Command("family", "", "compare MAML with related methods, trained with equal env steps"),
    "visualize": Command("visualize", "RUN", "make a page that shows how it adapts; also a video or a figure"),
    "view": Command("view", "RUN", "watch it adapt, live in a browser, to tasks that you choose"),
    "adapt": Command("adapt", "RUN --out FILE", "adapt to one task and export the policy, also to Stable-Baselines3"),
    "push": Command("push", "RUN OWNER/NAME", "put a run on the Hugging Face Hub, with a model card"),
    "evaluate-metaworld": Command("evaluate_metaworld", "RUN", "measure the success rate by Meta-World's own protocol"),
}

_USAGE = """\
usage: maml-rl COMMAND ...

Meta-learning with MAML: train a policy, or a network, on a distribution of tasks so that one gradient step on a handful
of episodes, or of examples, adapts it to a new one.

commands:
{commands}

examples:
  maml-rl train navigation                     meta-train with a preset
  maml-rl train navigation --seed 1            the same with another seed, in runs/navigation-seed1
  maml-rl train --resume runs/navigation       resume a run that was interrupted, bit for bit
  maml-rl evaluate runs/navigation             a table and a figure
  maml-rl train --env-id my_module:My-v0       meta-train on your own environment

A RUN is a run directory, or a run on the Hugging Face Hub: hub:owner/name. To begin: maml-rl train navigation
(a few minutes), then maml-rl evaluate runs/navigation.

maml-rl COMMAND --help lists the options of a command.
"""


def main() -> None:
    """Runs the command line.

    The exit code is 0, or 2 after a user's error, with one line that says what was expected. It is 1 if an environment
    or another rank failed, 130 after Ctrl-C, and 141 if nobody reads the output.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's stop saves like Ctrl-C
    name, *arguments = sys.argv[1:] or ["--help"]
    with ending_at_once(), _output(), _errors(), on_this_rank(name):
        if name in ("-h", "--help"):
            lines = (f"  {f'{command} {of.operands}':24} {of.summary}" for command, of in COMMANDS.items())
            print(_USAGE.format(commands="\n".join(lines)), end="")
        elif name == "--version":
            from importlib.metadata import version

            print(f"maml-rl {version('maml-rl')}")
        elif name in COMMANDS:
            import_module(f"maml_rl.experiments.commands.{COMMANDS[name].module}").run(arguments)
        else:
            near = get_close_matches(name, COMMANDS, 1)
            expected = f"perhaps you meant {near[0]}" if near else f"expected one of {', '.join(COMMANDS)}"
            raise InputError(f"there is no command {name!r}: {expected} (see maml-rl --help)")


@contextmanager
def _errors() -> Iterator[None]:
    """Ends with an exit code and, after an error that a user can act on, one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (InputError, NonFiniteError, OSError) as error:
        print(f"maml-rl: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except WorkerError as error:
        print(f"{error.trace}maml-rl: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except RankError as error:
        print(f"maml-rl: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("maml-rl: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def _output() -> Iterator[None]:
    """Ends the output with the command: anything printed later, while Python exits, goes to standard error.

    If nobody reads the output any more, as after `| head`, the command ends quietly, with the usual exit code.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout:  # None where it is closed
                sys.stdout.flush()
                if sys.stdout is sys.__stdout__:
                    os.dup2(2, 1)
    except OSError as error:  # of the output itself: the command reports all others
        unread = isinstance(error, BrokenPipeError)
        if not unread:
            print(f"maml-rl: {error}", file=sys.stderr)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            os.dup2(nowhere, stream.fileno())  # or Python complains when it flushes them at its end
        raise SystemExit(141 if unread else 2) from None  # 128 + SIGPIPE


if __name__ == "__main__":
    main()
