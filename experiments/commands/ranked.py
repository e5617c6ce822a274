"""A command on several ranks, which torchrun starts: how it begins and ends on each of them.

Rank 0 behaves like a single process and is the only one that writes files and prints. The others print only what rank 0
cannot report, with their rank and machine.
"""

import atexit
import hashlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from maml_rl.errors import AgreedError, InputError, NonFiniteError, RankError, WorkerError, reason

if TYPE_CHECKING:
    from maml_rl.ranks import Launch, Ranks

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of torchrun
_COMMANDS = ("train", "evaluate", "compare")
_PACKAGES = ("maml_rl", "maml_rl.envs", "maml_rl.experiments")
_ABOUT = "maml-rl runs in one process without these variables, and with all of them as one of several ranks"


def several_ranks() -> bool:
    """Whether torchrun has started this process as one of several.

    Raises:
        InputError: If some of its variables are missing or invalid; names them.
    """
    present = [name for name in _VARIABLES[:4] if name in os.environ]  # an address alone says nothing
    if not present:
        return False
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise InputError(f"{', '.join(present)} set, but not {', '.join(missing)}: start with torchrun; {_ABOUT}")
    numbers = {name: os.environ[name] for name in (*_VARIABLES[:4], _VARIABLES[5])}
    for name, value in numbers.items():
        if not value.isdecimal():
            raise InputError(f"{name} should be a whole number, is {value!r}: start with torchrun; {_ABOUT}")
    rank, size, local_rank, local_size, _ = map(int, numbers.values())
    if not (rank < size and local_rank < local_size <= size):
        raise InputError(
            f"RANK {rank} should be below WORLD_SIZE {size}, and LOCAL_RANK {local_rank} below LOCAL_WORLD_SIZE "
            f"{local_size}: start with torchrun"
        )
    return size > 1


def _launch() -> "Launch":
    from maml_rl.ranks import Launch

    return Launch(*(int(os.environ[name]) for name in _VARIABLES[:4]))


@contextmanager
def on_this_rank(command: str) -> Iterator[None]:
    """The block in which a command runs, as one of several ranks if torchrun has started them.

    Raises:
        InputError: If the command runs in one process only, or the ranks do not find each other.
        SystemExit: On ranks other than 0, after any error.
    """
    if not several_ranks():
        yield
        return
    rank = int(os.environ["RANK"])
    if command not in _COMMANDS:
        if rank:
            raise SystemExit(2)
        raise InputError(f"maml-rl {command} runs in one process: start it without torchrun")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost connection is reported in one line, without a trace
    _end_when_interrupted()
    from maml_rl.ranks import join, naming_the_ended

    import_module(f"maml_rl.experiments.commands.{command}")
    ranks = join(_launch())
    _interrupt_once()
    with _following(ranks) if ranks.rank else _leading(ranks), naming_the_ended(ranks):
        yield
        ranks.close()


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Ends the process at once after the block, if it is one of several ranks.

    After a failure, the process would wait while Python exits, for data sent to ranks that do not answer. After a
    success, PyTorch now and then aborts it (SIGABRT) while Python exits, which would fail the whole job. What is
    registered first runs last at exit, so ending the process is the last thing that happens.
    """
    codes: list[object] = []

    def leave() -> None:
        module = sys.modules.get("maml_rl.ranks")
        if module is not None and module.has_ever_joined():
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
            code = codes[0]
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    if "RANK" in os.environ:
        atexit.register(leave)
    try:
        yield
    except BaseException as error:
        codes.append(error.code if isinstance(error, SystemExit) else 1)
        raise
    codes.append(0)


def followed(options: Any) -> bool:
    """Whether this rank follows rank 0 through the evaluations of a command. If so, they are done when this returns.

    Args:
        options: Options of the command.

    Raises:
        InputError: If the ranks differ in them, or in their versions.
    """
    if not _has_joined():
        return False
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.runs.evaluating import follow_evaluations
    from maml_rl.ranks import this_rank

    settings = {field.name: getattr(options, field.name) for field in fields(options)}
    this_rank().check_alike(shared_facts({n: v for n, v in settings.items() if n not in ("machine", "trust")}))
    if this_rank().rank == 0:
        return False
    with computing():
        follow_evaluations(options.machine)
    return True


def shared_facts(settings: Mapping[str, Any]) -> dict[str, object]:
    """What has to be the same on all ranks: settings, versions, and what the processor computes with."""
    import numpy as np
    import torch

    from maml_rl.experiments.runs.provenance import flat

    named = {f"--{name.replace('_', '-')}": value for name, value in flat(dict(settings)).items()}
    packages = {name: Path(str(import_module(name).__file__)).parent for name in _PACKAGES}
    own = f"{version('maml-rl')} with the code {code_digest(packages)[:12]}"
    versions = {"maml-rl": own, "torch": torch.__version__, "numpy": np.__version__}
    return {**versions, "PyTorch's use of the processor": torch.backends.cpu.get_cpu_capability(), **named}


def code_digest(packages: Mapping[str, Path]) -> str:
    """SHA-256 of the packages' Python files, which can differ between two checkouts of one version.

    Args:
        packages: The directory of each package by its name; a package inside another one counts as its own.
    """
    sha = hashlib.sha256()
    for name, folder in sorted(packages.items()):
        inside = [other for other in packages.values() if other != folder and folder in other.parents]
        for path in sorted(folder.rglob("*.py")):
            if not any(other in path.parents for other in inside):
                sha.update(f"{name}/{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return sha.hexdigest()


def _has_joined() -> bool:
    """Whether this process has joined other ranks; where nothing has imported them, it has not."""
    module = sys.modules.get("maml_rl.ranks")
    return module is not None and module.this_rank().size > 1


def _end_when_interrupted() -> None:
    """Lets SIGINT and SIGTERM end this process at once: before it has joined the others, there is nothing to save.

    An exception would not do. Imports of other packages may catch it, and the process group is made in C++, which
    returns only when all ranks have arrived.
    """
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_DFL)


def _interrupt_once() -> None:
    """Lets only the first of SIGINT and SIGTERM interrupt: torchrun may pass on both, while the run is being saved.

    Both arrive at a rank when the user types Ctrl-C, when a scheduler stops the job, and when another rank has ended.
    """

    from maml_rl.ranks import ignore_interruptions

    def interrupt(*_: object) -> NoReturn:
        ignore_interruptions()
        raise KeyboardInterrupt

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, interrupt)


@contextmanager
def _leading(ranks: "Ranks") -> Iterator[None]:
    """The block of rank 0, which reports errors as a single process does."""
    try:
        yield
    except BaseException:
        ranks.part("")
        raise


@contextmanager
def _following(ranks: "Ranks") -> Iterator[None]:
    """The block of a rank other than 0. Rank 0 reports the errors of all ranks, and this one its own if it cannot.

    Raises:
        SystemExit: After any error.
    """
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        yield
    except KeyboardInterrupt:
        ranks.part("")
        raise SystemExit(130) from None
    except RankError as error:  # it is about rank 0, which would report all others
        ranks.part("")
        print(f"maml-rl: rank {ranks.rank} ({socket.gethostname()}): {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except AgreedError:
        ranks.part("")
        raise SystemExit(2) from None
    except (InputError, NonFiniteError, OSError, WorkerError) as error:
        if isinstance(error, WorkerError):
            print(error.trace, end="", file=sys.stderr)
        if not ranks.part(str(error)):
            print(f"maml-rl: rank {ranks.rank} ({socket.gethostname()}): {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, WorkerError) else 2) from None
    except SystemExit:
        ranks.part("")
        raise
    except Exception as error:
        ranks.part(reason(error))
        raise
