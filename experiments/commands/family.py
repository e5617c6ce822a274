"""`maml-rl family`: MAML and related methods side by side, with equal env steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from maml_rl.errors import InputError
from maml_rl.experiments.commands.options import check_directory, parse

_LIST = tyro.conf.arg(metavar="NAME ...", help_behavior_hint="(default: all)")


@dataclass(frozen=True, kw_only=True)
class FamilyOptions:
    """Compares MAML with related methods: trains each with equal env steps, evaluates it, and writes a table.

    Runs are stored in RUNS/PROBLEM/METHOD-seedN. Ctrl-C saves the current run. The same command then skips finished
    runs, resumes the interrupted one, and trains the others. Methods and seeds that are already in OUT stay in the
    table. Updates use one thread, so that their times can be compared. docs/methods.md describes methods and results.

    examples:
      maml-rl family --list                                       problems, methods, and the commands of all runs
      maml-rl family --problems tabular-mdp                       all methods on one problem
      maml-rl family --choose --problems tabular-mdp --seeds 2    choose step sizes that differ from MAML's
      maml-rl family --problems navigation --methods maml lvc --seeds 2 --iterations 5 --runs runs/short --out short
    """

    problems: Annotated[tuple[str, ...], _LIST] = ()
    """Problems."""
    methods: Annotated[tuple[str, ...], _LIST] = ()
    """Methods. Differences and ratios are only computed if maml is included."""
    seeds: int | None = None
    """Number of seeds per method: 0, 1, ... Default: the problem's own. 0 trains nothing, and measures times and noise
    at the parameters of MAML's run with seed 0, which has to exist."""
    iterations: int | None = None
    """Meta-iterations of every run. Default: the problem's own. Runs of another length need other directories."""
    timing_rounds: int = 5
    """Timed iterations per method, taken in turns; their medians are compared. 0 measures no times."""
    draws: int = 10
    """Meta-gradients per method for measuring noise, at the parameters that MAML's run with seed 0 reached: at least 2,
    or 0 for none."""
    runs: Path = Path("runs/family")
    """Directory of the runs."""
    out: Path = Path("results/family")
    """Directory for PROBLEM.json and PROBLEM.png."""
    page: Path | None = None
    """Markdown page, such as docs/methods.md, to update with the tables, between the lines "<!-- results_page: PROBLEM
    -->" and "<!-- end -->"."""
    choose: bool = False
    """Compare candidates for the step sizes that ProMP, Adam and CAVIA cannot share with MAML. Uses training seeds from
    100 on, and different held-out tasks from the table's. Writes no files."""
    list: bool = False
    """Print problems, methods and the commands of their runs, without training."""


def run(arguments: Sequence[str]) -> None:
    """Trains, measures, and writes tables and figures."""
    options = parse(FamilyOptions, arguments, "maml-rl family")
    check_directory(options.out)
    _check(options)
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.family.choosing import choices_table
    from maml_rl.experiments.family.comparing import Effort, check_names, compared_family, planned_comparison
    from maml_rl.experiments.family.family_table import family_table, write_family
    from maml_rl.experiments.family.variants import METHODS, PROBLEMS
    from maml_rl.experiments.runs.pages import with_tables

    problems, methods = options.problems or tuple(PROBLEMS), options.methods or tuple(METHODS)
    check_names(problems, methods)
    if options.list:
        _list(problems, methods, options)
        return
    if options.choose:
        for problem in problems:
            with computing():
                print(f"\n{problem}:\n\n{choices_table(problem, methods, options.seeds or 1, options.iterations)}")
        return
    if options.page is not None:
        with_tables(options.page, dict.fromkeys(problems, ""))  # so that missing markers are found before the training
    for problem in problems:
        seeds = PROBLEMS[problem].seeds if options.seeds is None else options.seeds
        with computing():
            start = planned_comparison(problem, options.iterations, options.out / f"{problem}.json")
            comparison = compared_family(
                start, methods, seeds, options.runs, Effort(options.timing_rounds, options.draws)
            )
            written = write_family(comparison, options.out)
        table = family_table(comparison)
        print(f"\n{problem}, {comparison.iterations} iterations, {comparison.tasks} held-out tasks:\n\n{table}\n")
        if options.page is not None:
            options.page.write_text(with_tables(options.page, {problem: table}), encoding="utf-8")
            written.append(options.page)
        print(f"written: {', '.join(map(str, written))}")


def _check(options: FamilyOptions) -> None:
    """Raises InputError for a value outside its range."""
    for name, least in (("seeds", 0), ("iterations", 1), ("timing_rounds", 0), ("draws", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if options.draws == 1:
        raise InputError("--draws must be at least 2, or 0 for none, got 1: noise is the difference between draws")


def _list(problems: Sequence[str], methods: Sequence[str], options: FamilyOptions) -> None:
    from maml_rl.experiments.family.measuring import run_directory_of
    from maml_rl.experiments.family.variants import METHODS, PROBLEMS, configuration, methods_of
    from maml_rl.experiments.runs.provenance import training_command

    for problem in problems:
        of = PROBLEMS[problem]
        seeds = of.seeds if options.seeds is None else options.seeds
        print(f"{problem}: {seeds} seeds, {options.iterations or of.iterations} iterations, {of.tasks} held-out tasks")
        for method in filter(methods_of(problem).__contains__, methods):
            print(f"  {method} ({METHODS[method].label})")
            for seed in range(seeds):
                config = configuration(problem, method, seed, options.iterations)
                print(f"    {training_command(config)} --out {run_directory_of(options.runs, problem, method, seed)}")
