"""`maml-rl evaluate`: what a run does on held-out tasks, by gradient step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from maml_rl.config import RLConfig
from maml_rl.errors import InputError
from maml_rl.experiments.commands.options import RunOptions, check_directory, chosen_tasks, parse, refuse_other_kinds
from maml_rl.experiments.commands.ranked import followed

if TYPE_CHECKING:
    from maml_rl.experiments.media.recording import Recording
    from maml_rl.experiments.runs.evaluations import Evaluation
    from maml_rl.machine import Machine
    from maml_rl.run import Run

_SETTINGS = ("gradient_steps", "shots", "episodes", "episodes_used", "later_lr_factor", "seed")  # of the evaluation


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(RunOptions):
    """Evaluates a run on held-out tasks: return, error or accuracy after 0, 1, 2, ... gradient steps.

    Settings that are not given are the run's own.

    examples:
      maml-rl evaluate runs/navigation
      maml-rl evaluate runs/navigation --tasks paper             on the paper's own tasks
      maml-rl evaluate runs/navigation --tasks 8 --json          quickly, for a program
      maml-rl evaluate runs/navigation --episodes-used 1 5 20    return by number of episodes that a step uses
    """

    tasks: Annotated[str | None, tyro.conf.arg(metavar="INT|paper|FILE.json")] = None
    """Number of held-out tasks (paper: 40; supervised 600). Or paper, for the 40 tasks on which the paper's policies
    were tested, in its five environments. Or a JSON file with a list of tasks, such as [[0.3], [2.5]], which may be
    outside the training range (reinforcement learning). With paper, the files are evaluation-paper.json and
    adaptation-paper.png; with a list, evaluation-given.json and adaptation-given.png."""
    gradient_steps: int | None = None
    """Gradient steps, with fresh episodes for each in reinforcement learning (paper: 3; supervised 3 to 10)."""
    episodes: int | None = None
    """Episodes per task and gradient step (reinforcement learning; paper: 20; navigation 40)."""
    episodes_used: tuple[int, ...] | None = None
    """How many of these episodes a gradient step uses (reinforcement learning). Each number gives one evaluation, on
    the same tasks. Default: all of them. The return is measured on all episodes, and there are at least as many as the
    largest number here."""
    later_lr_factor: float | None = None
    """Factor on the inner step size after the first gradient step (reinforcement learning; the paper's code: 0.5; ant
    direction 0.01)."""
    shots: tuple[int, ...] | None = None
    """Support examples per task, or per class (supervised learning). Each number gives one evaluation."""
    data: str | None = None
    """Directory of the images (supervised learning)."""
    seed: int | None = None
    """Seed of the held-out tasks and of everything random in the evaluation."""
    record: bool = False
    """Record an episode of a few tasks after each number of gradient steps (reinforcement learning), in recording.npz
    next to evaluation.json, for maml-rl visualize."""
    json: bool = False
    """Print one JSON object and nothing else; write no files except a recording."""
    out: Path | None = None
    """Directory for adaptation.png and evaluation.json. Default: the run's directory, where an evaluation with other
    settings does not replace one with the run's own."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the evaluation that were given."""
        given = {name: getattr(self, name) for name in _SETTINGS}
        given["tasks"] = chosen_tasks(self.tasks, numbers=True).number
        return {name: value for name, value in given.items() if value is not None}


def run(arguments: Sequence[str]) -> None:
    """Evaluates a run, prints a table, and writes a picture."""
    options = parse(EvaluateOptions, arguments, "maml-rl evaluate")
    tasks = chosen_tasks(options.tasks, numbers=True)
    if followed(options):
        return
    check_directory(options.out)
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.media.plots import draw_evaluation
    from maml_rl.experiments.media.recording import RECORDING, save_recording
    from maml_rl.experiments.runs import evaluations as files
    from maml_rl.experiments.runs.evaluating import end_evaluations, evaluate
    from maml_rl.experiments.runs.trust import check_runs
    from maml_rl.run import run_directory

    (evaluated,) = check_runs([options.run], options.trust.trust_module)
    directory = run_directory(options.run)
    refuse_other_kinds(directory, evaluated.config, options)
    out = options.out or directory
    if options.record and tasks.task_set == "paper" and options.out is None:
        raise InputError(
            f"{directory / RECORDING} holds held-out tasks, which the report shows: leave --record or --tasks paper "
            "out, or give another --out"
        )
    if options.record and tasks.file:
        raise InputError("--record does not work with tasks from a file: leave it out, or use maml-rl adapt --record")
    with computing(options.json) as show:
        about = (options.settings, tasks.task_set, options.data, options.machine, tasks.file)
        evaluation = evaluate(options.run, *about)
        end_evaluations()
        if options.record:
            out.mkdir(parents=True, exist_ok=True)
            save_recording(out / RECORDING, _recorded(evaluated, evaluation, options.machine))
        show(evaluation.to_json())
    if options.json:
        return
    _print(evaluation)
    if options.record:
        print(f"\nrecording: {out / RECORDING}")
    if options.out is None and files.is_kept(directory, evaluated, evaluation):
        kept = directory / files.file_of(files.EVALUATION, evaluation.task_set)
        print(f"\n{kept} has the run's own settings and was left unchanged; give --out DIR to keep this one")
        return
    files.write_evaluation(out, evaluation, lambda path: draw_evaluation(evaluation, directory, path))
    print(f"\npicture: {out / files.file_of(files.PICTURE, evaluation.task_set)}")


def _print(evaluation: "Evaluation") -> None:
    """Prints the tables of an evaluation."""
    from maml_rl.experiments.media.component_gains import gains_text
    from maml_rl.experiments.media.task_display import quantity_of
    from maml_rl.experiments.runs.evaluation_tables import heading, remarks, table

    print(*heading(evaluation), "", table(evaluation), "", *remarks(evaluation), sep="\n")
    if isinstance(evaluation.config, RLConfig) and (gains := gains_text(evaluation, quantity_of(evaluation.problem))):
        print("", gains, sep="\n")


def _recorded(run: "Run", evaluation: "Evaluation", machine: "Machine") -> "Recording":
    """Episodes of a few of the evaluation's tasks."""
    from maml_rl.experiments.media.filming import film_held_out
    from maml_rl.experiments.media.recording import RECORDED_TASKS
    from maml_rl.experiments.paper.published import paper_tasks

    settings: Any = evaluation.settings
    tasks = paper_tasks(evaluation.problem) if evaluation.task_set == "paper" else None
    return film_held_out(run, settings, RECORDED_TASKS, machine, evaluation.curves[0].validation, tasks)
