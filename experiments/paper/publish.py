"""Copies runs into `trained/`, small enough for a repository.

    python -m maml_rl.experiments.paper.publish runs/omniglot-5way-1shot --rows 150
    python -m maml_rl.experiments.paper.publish runs/figures/ant-vel-oracle-seed0 --name ant-vel-oracle

It copies the checkpoint, settings, log, machines, evaluations and the picture of `maml-rl evaluate`. It leaves out the
TensorBoard log, the optimizer's state, which only training needs, and the place of the images on this machine. Without
the optimizer's state a run can be evaluated but not resumed.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from maml_rl.errors import InputError
from maml_rl.experiments.runs.evaluations import EVALUATION, PICTURE, TaskSet, file_of, stored_evaluation
from maml_rl.experiments.runs.provenance import MACHINES
from maml_rl.json_values import read_text
from maml_rl.run import METRICS, Run, load_run, save_run
from maml_rl.supervised.settings import SupervisedConfig

TRAINED = Path("trained")


def publish(directory: Path, out: Path, rows: int | None) -> None:
    """Copies a run.

    Args:
        directory: The run.
        out: Directory that becomes the copy.
        rows: At most so many rows of the log, evenly spaced and the last among them; all if None.

    Raises:
        InputError: If it has no usable checkpoint, or was not evaluated as it is now.
    """
    run = load_run(directory)
    _check_evaluated(directory, run)
    config = replace(run.config, data=None) if isinstance(run.config, SupervisedConfig) else run.config
    save_run(out, run._replace(config=config, state=run.state._replace(optimizer={})))
    head, *lines = read_text(directory / METRICS).splitlines() or [""]  # a run of no iterations has an empty log
    if rows is not None and lines:
        lines = lines[::-1][:: -(-len(lines) // rows)][::-1]
    (out / METRICS).write_text("".join(f"{line}\n" for line in [head, *lines] if line))
    for name in (EVALUATION, file_of(EVALUATION, "paper"), MACHINES, PICTURE):
        if (directory / name).exists():
            shutil.copyfile(directory / name, out / name)


def _check_evaluated(directory: Path, run: Run) -> None:
    for task_set in get_args(TaskSet):
        evaluation = stored_evaluation(directory, run, task_set)
        if (evaluation is None and task_set == "held-out") or (evaluation and not evaluation.is_of(run)):
            option = "" if task_set == "held-out" else f" --tasks {task_set}"
            raise InputError(f"{directory} was not evaluated as it is now: maml-rl evaluate {directory}{option}")


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
