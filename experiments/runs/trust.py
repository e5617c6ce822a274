"""Controls whose code a command runs: a module that a run names is imported only if the user has named it.

A run directory names code: the module of its environment, or of its function of tasks. Someone else's run may name any
module and include it. Without asking, the commands therefore import only this package's environments and modules that
the user has named on a command line. Those are remembered outside of any run, with the files they are in. No run can
include that memory, and a module of the same name in another place is not mistaken for them. What Python code imports
is up to its author: nothing here concerns the functions of this package.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Collection, Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from maml_rl.errors import InputError, one_line
from maml_rl.run import Run, load_run

_OWN = "maml_rl"  # a package called envs is the user's: ours is maml_rl.envs


class _Module(NamedTuple):
    """A module, or the package that it is in, which was found but not imported."""

    name: str
    places: tuple[str, ...]  # its file, or the directories of a package that has none
    is_here: bool  # whether only the current directory has it


def allow(modules: Iterable[str]) -> None:
    """Makes modules that the user has named importable, also from the current directory, and remembers them.

    Args:
        modules: Their names; an empty one stands for none.

    Raises:
        InputError: If one cannot be the name of a module.
    """
    for module in modules:
        if found := _found(module):
            _remember(found)
            _make_importable(found)


def check_runs(runs: Iterable[Path], named: Collection[str] = ()) -> list[Run]:
    """Loads runs, checks that the modules which they name may be imported, and makes those importable.

    On a terminal, the user is asked whether a module may be imported.

    Args:
        runs: Their directories.
        named: Modules that the user has named.

    Raises:
        InputError: If a run cannot be used, or names a module that the user has not.
    """
    loaded = [(path, load_run(path)) for path in runs]
    check_modules([(path, name) for path, there in loaded for name in there.config.modules], named)
    return [there for _, there in loaded]


def check_modules(naming: Iterable[tuple[Path, str]], named: Collection[str] = ()) -> None:
    """The same for directories and the modules that they name.

    Args:
        naming: Each directory with a module that it names; an empty name stands for none.
        named: Modules that the user has named.

    Raises:
        InputError: If a directory names a module that the user has not.
    """
    allow(named)
    for run, module in naming:
        if not (found := _found(module)):
            continue
        if not _is_remembered(found):
            trusted = found.name in {name.partition(".")[0] for name in named}
            if not trusted and not _is_agreed(run, found):
                raise InputError(
                    f"{run} names the module {found.name} in {' and '.join(found.places)}, and importing it would run "
                    f"its code. You have not trained with it here: if you trust it, add --trust-module {found.name}"
                )
            _remember(found)
        _make_importable(found)


def _found(module: str) -> _Module | None:
    """Where a module would be imported from; None if there is none, or it is this package's."""
    if not module:
        return None
    name, *others = module.split(".")
    if not all(part.isidentifier() for part in (name, *others)):
        raise InputError(
            f"{one_line(module)[:80]} is not the name of a module: give module:function, or module:Id of an environment"
        )
    if name == _OWN:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # of what is no module of its own, such as __main__
        raise InputError(f"{name} is not a module that has an environment or tasks") from None
    is_here = spec is None
    if spec is None:
        spec = PathFinder.find_spec(name, [str(Path.cwd())])
    if spec is None:
        return None
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return _Module(name, tuple(str(Path(place).resolve()) if os.sep in place else place for place in places), is_here)


def _make_importable(module: _Module) -> None:
    """Puts the current directory on the path if the module is there, and only then.

    Otherwise an installed package that looks for an optional one could find a file of that name there.
    """
    if module.is_here:
        sys.path.append(str(Path.cwd()))


def _memory(module: _Module) -> Path | None:
    """The file that exists if a module was named before; None if the user has no place for it."""
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        state = given if given.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:  # the user has no home
        return None
    if not state.is_absolute():  # it would be in the current directory, which may be a run's
        return None
    digest = hashlib.sha256("\n".join([module.name, *module.places]).encode()).hexdigest()
    return state / "maml-rl" / "trusted-modules" / f"{module.name}-{digest[:32]}"


def _is_remembered(module: _Module) -> bool:
    try:
        path = _memory(module)
        return path is not None and path.is_file()
    except OSError:
        return False


def _remember(module: _Module) -> None:
    if (path := _memory(module)) is None:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text("".join(f"{place}\n" for place in module.places), encoding="utf-8")
    except OSError:  # no room, or no right to write: the next command asks
        return


def _is_agreed(run: Path, module: _Module) -> bool:
    """Whether the user agrees on a terminal; False where there is none."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    places = " and ".join(module.places)
    print(f"{run} names the module {module.name} in {places}. You have not trained with it here.", file=sys.stderr)
    print("Importing it runs its code with your permissions. Import it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
