"""Copies runs into `trained/`, small enough for a repository.

    python -m maml_rl.experiments.paper.publish runs/omniglot-5way-1shot --rows 150
    python -m maml_rl.experiments.paper.publish runs/figures/ant-vel-oracle-seed0 --name ant-vel-oracle

Copied are checkpoint, settings, log, machines, evaluations and the picture of `maml-rl evaluate`. Left out are the
TensorBoard log, Adam's moments, which only training needs, and the place of the images on this machine. A run without
moments can be evaluated but not resumed.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from maml_rl.checkpoint import load_checkpoint, save_checkpoint, write_json
from maml_rl.errors import InputError
from maml_rl.experiments.runs.provenance import MACHINES
from maml_rl.experiments.runs.records import read_record
from maml_rl.experiments.runs.run import (
    CHECKPOINT,
    CONFIG,
    EVALUATION,
    METRICS,
    PICTURE,
    file_of,
    is_supervised,
    load_config,
)
from maml_rl.experiments.runs.supervised_run import load_config as load_supervised_config
from maml_rl.experiments.runs.supervised_run import without_moments
from maml_rl.json_values import read_text

TRAINED = Path("trained")


class Evaluated(TypedDict):
    """What an evaluation of any kind of run has."""

    iteration: int


def publish(run: Path, out: Path, rows: int | None) -> None:
    """Copies a run.

    Args:
        run: Its directory.
        out: Directory that becomes the copy.
        rows: At most so many rows of the log, evenly spaced and the last among them; all if None.

    Raises:
        InputError: If it has no usable checkpoint or was not evaluated.
    """
    checkpoint = load_checkpoint(run / CHECKPOINT)
    supervised, paper = is_supervised(run), file_of(EVALUATION, "paper")
    progress = load_supervised_config(run)[1] if supervised else load_config(run)[1]
    for name, option in ((EVALUATION, ""), (paper, " --tasks paper")):
        evaluated = read_record(run / name, Evaluated)["iteration"] if (run / name).exists() else None
        if evaluated != progress.iteration and (name == EVALUATION or evaluated is not None):
            raise InputError(f"{run} was not evaluated as it is now: maml-rl evaluate {run}{option}")
    if supervised:
        checkpoint = without_moments(checkpoint)
        checkpoint.record["config"]["data"] = None
    out.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out / CHECKPOINT, checkpoint)
    write_json(out / CONFIG, checkpoint.record["config"], indent=2)
    head, *lines = read_text(run / METRICS).splitlines() or [""]  # a run of no iterations has an empty log
    if rows is not None and lines:
        lines = lines[::-1][:: -(-len(lines) // rows)][::-1]
    (out / METRICS).write_text("".join(f"{line}\n" for line in [head, *lines] if line))
    for name in (EVALUATION, paper, MACHINES, PICTURE):
        if (run / name).exists():
            shutil.copyfile(run / name, out / name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="run", help="directories of runs")
    parser.add_argument("--name", help="name of the copy of a single run; the directory's own if left out")
    parser.add_argument("--rows", type=int, help="rows of the log, at most; all if left out")
    chosen = parser.parse_args(arguments)
    if chosen.name and len(chosen.runs) > 1:
        parser.error("--name is for one run")
    if chosen.rows is not None and chosen.rows < 1:
        parser.error("--rows must be at least 1")
    for run in chosen.runs:
        out = TRAINED / (chosen.name or run.name)
        try:
            publish(run, out, chosen.rows)
        except (InputError, OSError) as error:
            parser.error(str(error))
        print(out)


if __name__ == "__main__":
    main()
