"""`maml-rl push`: a run on the Hugging Face Hub."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from maml_rl.errors import InputError
from maml_rl.experiments.commands.options import RunOptions, check_directory, parse


@dataclass(frozen=True, kw_only=True)
class PushOptions(RunOptions):
    """Puts a run on the Hugging Face Hub: checkpoint, settings, log and evaluation, a model card and a short clip.

    Others can then use it as hub:owner/name wherever a command takes a RUN, and in maml_rl.load_run. This needs the
    extra hub and a token (hf auth login, or HF_TOKEN). A run without an evaluation is evaluated first.

    examples:
      maml-rl push runs/navigation me/navigation
      maml-rl push runs/navigation me/navigation --out card      write the files to look at, and push nothing
      maml-rl evaluate hub:me/navigation
    """

    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository on the Hub; created if it does not exist."""
    private: bool = False
    """Make a new repository private."""
    out: Path | None = None
    """Write the files into this directory, and push nothing."""


def run(arguments: Sequence[str]) -> None:
    """Pushes a run, and prints where it is."""
    options = parse(PushOptions, arguments, "maml-rl push")
    check_directory(options.out)
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.runs import pushing
    from maml_rl.experiments.runs.trust import check_runs
    from maml_rl.hub import HUB, hub_module, repository_of

    repository, revision = repository_of(options.repository)
    if revision:
        raise InputError(f"push adds to the main branch: leave @{revision} out")
    hub_module()
    if options.out is None:
        pushing.check_token(repository)
    check_runs([options.run], options.trust.trust_module)
    with tempfile.TemporaryDirectory(prefix="maml-rl-") as temporary, computing():
        files = pushing.stage(options.run, options.out or Path(temporary), repository, options.machine)
        if options.out is not None:
            print(f"written, and nothing pushed: {', '.join(map(str, files))}")
            return
        address = pushing.push(files, repository, private=options.private)
    print(f"pushed {len(files)} files: {address}\nnext: maml-rl evaluate {HUB}{repository}")
