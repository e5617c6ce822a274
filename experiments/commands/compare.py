"""`maml-rl compare`: several runs and methods by gradient step."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from maml_rl.errors import InputError
from maml_rl.experiments.commands.options import (
    NO_OTHERS,
    GivenMachine,
    GivenTrust,
    check_directory,
    chosen_tasks,
    parse,
)
from maml_rl.experiments.commands.ranked import followed
from maml_rl.machine import THIS_MACHINE

if TYPE_CHECKING:
    from maml_rl.experiments.runs.comparison_files import Comparison


@dataclass(frozen=True)
class CompareOptions:
    """Compares runs on the same tasks by gradient step, next to the paper's values.

    Runs that differ only in their seed count as one method.

    examples:
      maml-rl compare runs/navigation runs/navigation-pretrained runs/navigation-oracle
      maml-rl compare runs/navigation-seed* --tasks paper        on the paper's own tasks
      maml-rl compare runs/navigation* --figure out.pdf --latex table.tex
    """

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)")
    ]
    """Directories of the runs, or hub:owner/name on the Hugging Face Hub. Also those of RL^2, whose first, second,
    ... episode of a task is shown where others have 0, 1, ... gradient steps."""
    tasks: Annotated[str | None, tyro.conf.arg(metavar="paper|FILE.json")] = None
    """paper: the 40 tasks on which the paper's policies were tested, in its five environments. Or a JSON file with a
    list of tasks, such as [[0.3], [2.5]], which may be outside the training range (reinforcement learning). Default:
    the runs' held-out tasks."""
    gradient_steps: int | None = None
    """Gradient steps to compare. Default: as many as the runs' evaluations have."""
    data: str | None = None
    """Directory of the images (supervised learning). Default: each run's own."""
    json: bool = False
    """Print one JSON object and nothing else; write no comparison."""
    out: Path | None = None
    """Directory for comparison.json, comparison.csv and comparison.png (comparison-paper.* with --tasks paper,
    comparison-given.* with a file of tasks). Default: results/TASK, where a comparison that also covers other runs is
    not replaced."""
    figure: Path | None = None
    """Also draw a figure for a paper into this file: learning curves with Student's intervals over seeds, next to the
    comparison; .pdf, .svg or .png."""
    latex: Path | None = None
    """Also write the table as LaTeX into this file, with the package booktabs."""
    trust: GivenTrust = NO_OTHERS
    machine: GivenMachine = THIS_MACHINE


def run(arguments: Sequence[str]) -> None:
    """Compares runs, prints a table, and writes files and a picture."""
    options = parse(CompareOptions, arguments, "maml-rl compare")
    tasks = chosen_tasks(options.tasks)
    if followed(options):
        return
    check_directory(options.out)
    _check_files(options)
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.media.plots import draw_comparison
    from maml_rl.experiments.runs import comparison_files as files
    from maml_rl.experiments.runs.comparison import compare
    from maml_rl.experiments.runs.evaluating import end_evaluations
    from maml_rl.experiments.runs.evaluations import file_of
    from maml_rl.experiments.runs.rl2_files import is_rl2
    from maml_rl.experiments.runs.trust import check_runs

    check_runs([path for path in options.runs if not is_rl2(path)], options.trust.trust_module)
    with computing(options.json) as show:
        about = (options.gradient_steps, tasks.task_set, options.data, options.machine, tasks.file)
        comparison = compare(options.runs, *about)
        end_evaluations()
        show(asdict(comparison))
        _write_files(options, comparison)
    if options.json:
        return
    print(files.comparison_heading(comparison), "", files.comparison_table(comparison), "", sep="\n")
    print(*files.comparison_remarks(comparison), sep="\n")
    for name in ("figure", "latex"):
        if path := getattr(options, name):
            print(f"{name}: {path}")
    out = options.out or Path("results") / comparison.name
    stored = out / file_of(files.COMPARISON, comparison.task_set)
    if options.out is None and files.stored_runs(stored) - comparison.directories:
        print(f"\n{stored} also covers other runs and was left unchanged; give --out DIR to keep this one")
        return
    _, *others = files.write_comparison(comparison, out, draw_comparison)
    print(f"\nwritten: {', '.join([str(stored), *(file.name for file in others)])}")


def _check_files(options: CompareOptions) -> None:
    """Raises InputError for files that cannot be made, before anything is computed."""
    for path in filter(None, (options.figure, options.latex)):
        if not path.parent.is_dir():
            raise InputError(f"there is no directory {path.parent}: make it, or give another name")
    from maml_rl.experiments.media.charts import FIGURES

    if options.figure is not None and options.figure.suffix not in FIGURES:
        raise InputError(f"--figure {options.figure} must end in one of {', '.join(FIGURES)}")


def _write_files(options: CompareOptions, comparison: "Comparison") -> None:
    """Makes the figure and the LaTeX table, if requested."""
    from maml_rl.checkpoint import write_atomically
    from maml_rl.experiments.media.plots import draw_comparison_figure
    from maml_rl.experiments.runs.latex import latex_table

    if options.figure is not None:
        draw_comparison_figure(comparison, options.figure)
    if options.latex is not None:
        write_atomically(options.latex, latex_table(comparison).encode())
