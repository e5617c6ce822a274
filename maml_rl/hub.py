"""Runs on the Hugging Face Hub: `hub:owner/name` in place of a run's directory.

Only the checkpoint (safetensors), JSON files and the csv log are downloaded, by name: nothing that could be executed.
They are copied to the user's cache, in one directory per commit. Commands also keep there what they make from a run,
such as its evaluation. A commit that was downloaded before needs no network.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from maml_rl.errors import InputError

HUB = "hub:"
"""Beginning of the name of a run on the Hub."""
FILES = ("checkpoint.safetensors", "config.json", "metrics.csv", "machines.json")
"""Files of a run that are downloaded, with its evaluations; docs/hub.md says what else is pushed."""
EVALUATIONS = ("evaluation.json", "evaluation-paper.json")
_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w-][\w./-]*))?")
_LOGIN = "log in with hf auth login, or give a token as HF_TOKEN"


def is_on_hub(run: str | Path) -> bool:
    """Whether a run is named by its place on the Hub."""
    return str(run).startswith(HUB)


def repository_of(name: str) -> tuple[str, str | None]:
    """Repository and revision in a name such as `owner/name`, `hub:owner/name` or `hub:owner/name@revision`.

    Raises:
        InputError: If it is not such a name.
    """
    found = _NAME.fullmatch(name.removeprefix(HUB))
    if not found:
        raise InputError(f"{name!r} names no repository on the Hub: give owner/name, or owner/name@revision")
    return found["repository"], found["revision"]


def local_copy(run: str | Path) -> Path:
    """Directory of a local copy of a run on the Hub, which is downloaded if necessary.

    Raises:
        InputError: If huggingface_hub is not installed, there is no such repository or revision, it is not a run, or
            the Hub cannot be reached and there is no copy on this machine.
    """
    return _downloaded(*repository_of(str(run)))


@cache
def _downloaded(repository: str, revision: str | None) -> Path:
    hub, where = hub_module(), f"{HUB}{repository}{f'@{revision}' if revision else ''}"
    with explained(where), without_bars(hub):
        allowed = [*FILES, *EVALUATIONS]
        found = hub.snapshot_download(repository, revision=revision, endpoint=endpoint(), allow_patterns=allowed)
    snapshot = Path(found)
    if not (snapshot / FILES[0]).is_file():
        raise InputError(f"{where} is not a run of maml-rl: the repository has no {FILES[0]}")
    owner, name = repository.split("/")
    copy = _cache() / owner / snapshot.name / name
    copy.mkdir(parents=True, exist_ok=True)
    for file in allowed:
        if (snapshot / file).is_file() and not (copy / file).exists():
            partial = copy / f".{file}.partial"
            shutil.copyfile(snapshot / file, partial)
            partial.replace(copy / file)
    return copy


def hub_module() -> ModuleType:
    """The package huggingface_hub.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import huggingface_hub.errors
    except ImportError:
        raise InputError("runs on the Hub need the package huggingface_hub: pip install 'maml-rl[hub]'") from None
    module: ModuleType = huggingface_hub
    return module


def endpoint() -> str | None:
    """Address of the Hub, if it is not the public one."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns errors of the Hub into one line that says what to do.

    Args:
        where: The repository, for the message.

    Raises:
        InputError: In place of any of them.
    """
    errors: Any = hub_module().errors
    try:
        yield
    except errors.RevisionNotFoundError:
        raise InputError(f"{where}: there is no such revision: give a branch, a tag or a commit") from None
    except errors.RepositoryNotFoundError:  # the Hub hides private ones
        raise InputError(f"there is no repository {where}, or it is private: check the name, or {_LOGIN}") from None
    except errors.LocalTokenNotFoundError:
        raise InputError(f"{where} needs a token: {_LOGIN}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise InputError(f"the Hub refuses {where} ({status}): {_LOGIN}, one with access to it") from None
        raise InputError(f"{where}: the Hub answers {status} ({_first_line(error)}): try again later") from None
    except RuntimeError as error:  # of an upload that failed
        raise InputError(f"{where}: {_first_line(error)} Try again later") from None
    except (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError):
        place = endpoint() or "https://huggingface.co"
        raise InputError(
            f"{where}: {place} cannot be reached, and there is no copy on this machine: check the network"
        ) from None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


@contextmanager
def without_bars(hub: Any) -> Iterator[None]:
    """Hides the Hub's progress bars: the downloads are small."""
    if hub.utils.are_progress_bars_disabled():
        yield
        return
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        hub.utils.enable_progress_bars()


def _cache() -> Path:
    """Where copies of runs are."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "maml-rl" / "hub"
