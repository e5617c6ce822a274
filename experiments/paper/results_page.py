"""Every table of results: docs/results.md, and those of other pages between markers.

    python -m maml_rl.experiments.paper.results_page

Every number is read from a file in `results`, of `maml-rl compare`, `maml-rl family` or `maml-rl rl2`, or from a run in
`trained`.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from maml_rl.errors import InputError
from maml_rl.experiments.family.family_table import family_table, read_family
from maml_rl.experiments.paper import figure4, figure5
from maml_rl.experiments.paper.headline_table import headline_table
from maml_rl.experiments.paper.sb3_baselines import read_learner
from maml_rl.experiments.runs.comparison_files import (
    COMPARISON,
    ComparedRun,
    Comparison,
    Method,
    MethodCurve,
    read_comparison,
)
from maml_rl.experiments.runs.evaluation_tables import published_text, tasks_named
from maml_rl.experiments.runs.evaluations import EVALUATION, TaskSet, file_of
from maml_rl.experiments.runs.pages import with_tables
from maml_rl.experiments.runs.provenance import cores_text, training_command
from maml_rl.experiments.runs.rl2_files import stored_training
from maml_rl.experiments.runs.text import duration, env_steps_text, markdown_table
from maml_rl.json_values import read_json
from maml_rl.learner import QUANTITIES, Quantity
from maml_rl.run import CHECKPOINT, load_run
from maml_rl.statistics import interval, mean

RESULTS, TRAINED, PAGE = Path("results"), Path("trained"), Path("docs/results.md")
METHODS_PAGE, CHOICE_PAGE, RL2_PAGE, LSTM_PAGE, MIMIC_PAGE = (
    Path("docs") / name for name in ("methods.md", "which_method.md", "rl2.md", "meta_lstm.md", "actor_mimic.md")
)
_CHOICE = (  # comparisons whose means are on that page
    "half-cheetah-dir/comparison-paper.json",
    "ant-dir/comparison-paper.json",
    "half-cheetah-vel/comparison-paper.json",
    "half-cheetah-vel/comparison-given.json",
    "half-cheetah-motor-gain/comparison.json",
    "half-cheetah-motor-gain/comparison-given.json",
    "walker-motor-gain/comparison.json",
)
_ABOUT_METHOD = ("seeds", "interval over", "env steps")  # columns of what a method was measured with
_STUDENTS = ("half-cheetah-dir", "half-cheetah-vel", "ant-vel")  # tasks of Actor-Mimic's students
_NEXT_TO_STUDENTS = {"mimic": "**mimic**", "pretrained": "pretrained", "maml": "maml", "oracle": "oracle: the experts"}
_PARTS = (0, 0.04, 0.12, 0.25, 0.5, 0.75, 1)  # of a training of RL^2, after which its learning curve is shown
_TASK_SETS: tuple[TaskSet, ...] = ("paper", "held-out")  # in the order of the tables
_SHOWN = (0, 1, 2, 3, 5, 10)  # gradient steps
_ORDER = ["navigation", *figure5.TASKS, "sinusoid"]  # of the sections; others come after
_FIGURES = {
    figure4.FIGURE: "Figure 4: navigation, return by gradient step, and paths before and after adaptation",
    figure5.FIGURE: "Figure 5: locomotion, return by gradient step",
}
_HEAD = """\
# Results

Written by `python -m maml_rl.experiments.paper.results_page` from `results/*/comparison-paper.json` and
`results/*/comparison.json`, which `maml-rl compare` writes with and without `--tasks paper`, and `results/*/sb3-*.json`
of `python -m maml_rl.experiments.paper.sb3_baselines`.

Each table has a mean over tasks after 0, 1, 2, ... gradient steps, and below it the interquartile mean, both with their
95 % intervals. The paper's values (Finn, Abbeel, Levine 2017) are from one run; ± is the standard error over tasks for
a return, and half the 95 % interval for an accuracy. In reinforcement learning there are two tables for each
environment:

- **On the paper's tasks**: the 40 tasks on which the paper's policies were tested (`paper_tasks`), next to the paper's
  returns.
- **On held-out tasks**: 40 tasks that the seed of the evaluation draws. They can be harder: the paper's goal velocities
  of the half-cheetah have mean 0.92 m/s, these 1.15 m/s. So the paper's returns are not in this table. Where there are
  only two tasks, forward and backward, training has met both. (For navigation the table has five seeds of pretrained
  and oracle; the table above it has the one that comes with the repository.)

Supervised runs have a table for each number of shots, and for both modes of batch normalisation: transductive, with the
statistics of the query examples, as in the paper; or with those of the support examples, so that query examples do
not affect each other.

With three or more seeds, an interval is over seeds and tasks (Student's, with seeds and tasks as units). With one or
two seeds it is **over tasks alone**: it says what the same runs would reach on other tasks, and nothing about other
seeds. The column *interval over* says which.

The methods of an environment have the same policy, sampler, optimiser and number of training episodes, so that only the
idea differs, with these exceptions. ant-vel's oracle had about half of the episodes, since its return had long stopped
rising; ant-dir's was stopped early too, while its return was still rising. On ant-dir, CAVIA and
`maml-filtered-std-factor` have fewer iterations than maml. `maml-filtered-std-factor` uses the inner Hessian on all
support steps, where maml uses a quarter; CAVIA is first order and has none. mimic and rl2 are trained differently. The
methods are:

- **maml**: the method; `maml-filtered-std-factor` has filtered step sizes and a learned deviation of the adapted
  policy.
- **cavia-first-order-normalised-std-factor**: CAVIA, which adapts one context number by a normalised gradient and not
  the policy's weights, with a learned deviation of the adapted policy
  ([methods.md](methods.md#what-is-adapted-and-by-what-step)).
- **mimic**: a policy that imitates the oracle without observing the task, and is fine-tuned as pretrained is
  ([actor_mimic.md](actor_mimic.md)). It takes its steps by Adam and uses no rewards. Its env steps do not include those
  of the oracle.
- **pretrained**: trained on all tasks at once, without inner updates, and then fine-tuned as maml is.
- **oracle**: the same with the task in the observation; it needs no gradient steps.
- **random**: not trained, and fine-tuned as maml is.
- **rl2, by episode**: RL^2, an LSTM that PPO trains ([rl2.md](rl2.md)). It adapts by its memory and takes no gradient
  steps: its first, second, ... episode of a task is in the columns of 0, 1, ... steps.

For maml, the step size of the gradient steps is that of the training. For mimic, pretrained and random, it is the best
of several on validation tasks, which are neither those of the training nor those of a table. With only two directions,
it is the best on other episodes. The tables of runs list it.

Each command of these tables trains in a separate directory, such as `runs/navigation` or `runs/navigation-seed1`.
"""


def page(results: Path = RESULTS) -> str:
    """The page of results as Markdown."""
    parts = [_HEAD]
    for comparisons in _by_problem(results):
        most = max(comparisons, key=lambda comparison: len(comparison.directories))
        tables = "\n".join(_tables(comparison) for comparison in comparisons)
        parts.append(f"## {most.name}\n\n{tables}\n{_runs(most)}\n")
    learners = [read_learner(path) for path in sorted(results.glob("*/sb3-*.json"))]
    if learners:
        parts.append(_ordinary_learners(learners))
    figures = [(name, text) for name, text in _FIGURES.items() if (results / name).exists()]
    if figures:
        parts.append("## Figures 4 and 5\n")
        parts += [f"{text}\n\n![{text}](../results/{name})\n" for name, text in figures]
    return "\n".join(parts)


def _by_problem(results: Path) -> Iterator[list[Comparison]]:
    """The comparisons of each task distribution, in the order of the page: on the paper's tasks and held-out ones."""
    names = [file_of(COMPARISON, task_set) for task_set in _TASK_SETS]
    problems = {path.parent.name for name in names for path in results.glob(f"*/{name}")}
    for problem in sorted(problems, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)):
        paths = [results / problem / name for name in names]
        yield [read_comparison(path) for path in paths if path.exists()]


def _tables(comparison: Comparison) -> str:
    """A table for each condition, on one set of tasks; the paper's values of its own tasks only."""
    steps = [step for step in _SHOWN if step <= comparison.gradient_steps]
    tasks = tasks_named(comparison.task_set, comparison.num_tasks, comparison.strata)
    quantity = QUANTITIES[comparison.quantity]
    about = f", {comparison.episodes} episodes of each by gradient step" if comparison.episodes else ""
    about += "" if comparison.quantity == "return" else f", {comparison.quantity}"
    about += f" in {quantity.unit}" if quantity.unit else ""
    parts = []
    for condition in comparison.conditions:
        rows = [["method", "seeds", "interval over", *map(str, steps)]]
        for method in comparison.methods:
            curve = method.curve(condition)
            rows += _rows(method, curve, steps, quantity)
            if curve.paper and not (comparison.episodes and comparison.task_set == "held-out"):
                rows.append(["paper", "1", "", *_paper_cells(curve, steps, quantity)])
        measured = f", {condition}" if condition else ""
        parts.append(f"`{comparison.problem}` on {tasks}{about}{measured}:\n\n{markdown_table(rows)}\n")
    return "\n".join(parts)


def _rows(method: Method, curve: MethodCurve, steps: Sequence[int], quantity: Quantity) -> list[list[str]]:
    means, middle = (
        [estimates[step].text(quantity) for step in steps if step < len(estimates)]
        for estimates in (curve.mean, curve.interquartile_mean)
    )
    about = [f"**{method.label}**", str(len(method.runs)), method.interval_over]
    return [[*about, *means], ["interquartile mean", "", "", *middle]]


def _paper_cells(curve: MethodCurve, steps: Sequence[int], quantity: Quantity) -> list[str]:
    paper = {point.gradient_steps: point for point in curve.paper}
    return [published_text(quantity, paper[step].value, paper[step].error) if step in paper else "-" for step in steps]


def _runs(comparison: Comparison) -> str:
    """The runs of a comparison: how each was made, and how long it took."""
    length = "env steps" if comparison.episodes else "iterations"
    rows = [["command", length, "wall-clock", "step size", "hardware"]]
    for run in (run for method in comparison.methods for run in method.runs):
        machines = dict.fromkeys(f"{cores_text(m)}, {m.get('accelerator', m['processor'])}" for m in run.machines)
        trained = env_steps_text(run.env_steps) if comparison.episodes else f"{run.iterations:,}"
        sizes, hardware = _step_sizes(run), "; ".join(machines) or "not noted"
        time = duration(run.seconds) if run.seconds else "not noted"
        rows.append([f"`{run.command}`", trained, time, sizes, hardware])
    return markdown_table(rows)


def _step_sizes(run: ComparedRun) -> str:
    """Step size of each gradient step, or of all of them, by condition where it differs."""
    texts = {}
    for condition, sizes in run.inner_lr.items():
        alike = len(set(sizes)) == 1 and not run.env_steps
        texts[condition] = ", ".join(f"{size:g}" for size in (sizes[:1] if alike else sizes)) or "-"
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{text} ({condition})" for condition, text in texts.items())


def _ordinary_learners(records: list[dict[str, Any]]) -> str:
    """PPO from scratch on one task and as an oracle on all, next to MAML where the file has it."""
    rows = [["environment", "task", "method", "env steps", "mean return", "env steps to MAML's 1 step", "MAML, 1 step"]]
    for record in records:
        curve, adapted = record["curve"], record.get("adapted")
        reached = record.get("env_steps_to_reach", [None] * 2)[1]
        rows.append(
            [
                f"`{record['env_id']}`",
                json.dumps(record["task"]).strip('"'),
                f"PPO, {record['method']}",
                f"{curve['env_steps'][-1]:,}",
                f"{curve['mean_return'][-1]:.1f} ± {curve['standard_error'][-1]:.1f}",
                f"{reached:,}" if reached else "-",
                f"{adapted['mean_return'][1]:.1f} after {adapted['env_steps'][1]:,}" if adapted else "-",
            ]
        )
    return f"""\
## Ordinary learners

PPO of Stable-Baselines3, one seed each: from scratch on one task alone, and as an oracle on all tasks, with the task in
the observation ([stable_baselines3.md](stable_baselines3.md#how-long-does-an-ordinary-learner-take)). The standard
error is over episodes of the one task, or over the 40 held-out tasks.

{markdown_table(rows)}
"""


# Tables of other pages


def trained_table(kind: str, trained: Path = TRAINED) -> str:
    """The runs of one kind that come with the repository: what made each, and how long it trained."""
    rows = [["run", "made by", "env steps" if kind == "reinforcement" else "iterations"]]
    for path in sorted(trained.glob(f"*/{CHECKPOINT}")):
        run = load_run(path)
        if run.config.kind == kind:
            length = env_steps_text(run.progress.env_steps) if run.progress.env_steps else f"{run.state.iteration:,}"
            rows.append([f"`{path.parent.name}`", f"`{training_command(run.config)}`", length])
    return markdown_table(rows)


def means_table(path: Path) -> str:
    """The means of a comparison by method and gradient step, with 95 % intervals.

    Raises:
        InputError: If the file is damaged.
        FileNotFoundError: If there is none.
    """
    comparison = read_comparison(path)
    steps = range(comparison.gradient_steps + 1)
    rows = [["method", *_ABOUT_METHOD, *(f"{step} step{'s' * (step != 1)}" for step in steps)]]
    for method in comparison.methods:
        row = [f"**{method.label}**", *_measured(comparison, method)]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    return markdown_table(rows)


def _measured(comparison: Comparison, method: Method) -> list[str]:
    """Cells of a method: `_ABOUT_METHOD`, and the mean after each gradient step under the first condition."""
    means = [mean.text(QUANTITIES[comparison.quantity]) for mean in method.curve(comparison.conditions[0]).mean]
    env_steps = env_steps_text(fmean(run.env_steps for run in method.runs))
    return [str(len(method.runs)), method.interval_over, env_steps, *means]


def students_table(results: Path) -> str:
    """Students of Actor-Mimic on the paper's tasks, next to their experts and to other methods.

    Raises:
        InputError: If a file is damaged.
        FileNotFoundError: If there is none.
    """
    rows = [["task", "method", *_ABOUT_METHOD, "0", "1", "2", "3"]]
    for task in _STUDENTS:
        comparison = read_comparison(results / task / file_of(COMPARISON, "paper"))
        cells = {method.label: _measured(comparison, method) for method in comparison.methods}
        env_steps = _ABOUT_METHOD.index("env steps")
        cells["mimic"][env_steps] += f", and {cells['oracle'][env_steps]} of its experts"
        for label, name in _NEXT_TO_STUDENTS.items():
            row = [f"`{task}`", name, *cells[label]]
            rows.append(row + ["-"] * (len(rows[0]) - len(row)))
    return markdown_table(rows)


def episodes_table(directory: Path) -> str:
    """Return after one step by the number of episodes that it uses, from evaluations of several seeds in a directory.

    Raises:
        InputError: If a file is damaged.
    """
    rows: list[list[str]] = []
    for file in (EVALUATION, file_of(EVALUATION, "given")):
        records = [read_json(path) for path in sorted(directory.glob(f"episodes-seed*/{file}"))]
        curves = [[curve["mean"] for curve in record["curves"]] for record in records]
        before, after = fmean(seed[0][0] for seed in curves), zip(*curves, strict=True)
        means = [before, *(fmean(mean[1] for mean in of_number) for of_number in after)]
        numbers = ["0", *(str(number) for number in records[0]["settings"]["episodes_used"])]
        rows = rows or [["episodes", "seeds", *numbers]]
        about = tasks_named(records[0]["task_set"], len(records[0]["tasks"]), records[0]["strata"])
        rows.append([about, str(len(records)), *(f"{mean:.0f}" for mean in means)])
    return markdown_table(rows)


def trials_table(results: Path) -> str:
    """Return of RL^2 in the first and last episode of a trial and in all, from the evaluations in `rl2`.

    Training runs of several seeds are in NAME, NAME-seed1, ...

    Raises:
        InputError: If a file is damaged.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(results.glob("rl2/*/evaluation*.json")):
        groups.setdefault((path.parent.name.partition("-seed")[0], path.name), []).append(read_json(path))
    about = ["environment", "memory", "tasks", "seeds", "env steps", "episodes"]
    rows = [[*about, "return of the first", "of the last", "of all"]]
    for records in groups.values():
        first = records[0]
        returns = np.array([record["returns"] for record in records])  # [seeds, tasks, episodes]
        shown = returns[..., 0], returns[..., -1], returns.sum(-1)
        means = [interval(values, mean, first["strata"]) for values in shown]
        about = [f"`{first['env_id']}`", "yes" if first["memory"] else "no"]
        about.append(tasks_named(first["task_set"], first["tasks"], first["strata"]))
        about += [str(len(records)), env_steps_text(first["env_steps"]), str(returns.shape[-1])]
        texts = [f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]" for found in means]
        rows.append([*about, *texts])
    return markdown_table(rows)


def learning_table(directory: Path) -> str:
    """Return of RL^2 in a trial, and in each of its episodes, as its training goes on.

    Raises:
        InputError: If there is no learning curve, or it is damaged.
    """
    curve = stored_training(directory).curve
    env_steps = np.array([point["env_steps"] for point in curve])
    rows = [["env steps", "trial", f"by episode, 1 to {len(curve[0]['by_episode'])}"]]
    for part in _PARTS:
        point = curve[np.abs(env_steps - part * env_steps[-1]).argmin()]
        trial = f"{point['mean_return']:.1f} ± {point['standard_error']:.1f}"
        by_episode = " ".join(f"{value:.1f}" for value in point["by_episode"])
        rows.append([env_steps_text(point["env_steps"]), trial, by_episode])
    return markdown_table(rows)


def pages(root: Path = Path()) -> dict[Path, str]:
    """Every page with results, as it should be.

    Raises:
        InputError: If the markers are missing.
    """
    results, trained = root / RESULTS, root / TRAINED
    tables = {
        root / "README.md": {"headline": headline_table(results, trained)},
        root / TRAINED / "README.md": {k: trained_table(k, trained) for k in ("reinforcement", "supervised")},
        root / METHODS_PAGE: {
            path.stem: family_table(read_family(path)) for path in sorted(results.glob("family/*.json"))
        },
        root / CHOICE_PAGE: {name: means_table(results / name) for name in _CHOICE}
        | {"episodes": episodes_table(results / "half-cheetah-motor-gain")},
        root / RL2_PAGE: {
            "rl2": trials_table(results),
            "tabular-mdp": learning_table(results / "rl2/tabular-mdp"),
        },
        root / MIMIC_PAGE: {"students": students_table(results)},
        root / LSTM_PAGE: {
            path.parent.name: _tables(read_comparison(path)).rstrip()
            for path in sorted(results.glob("meta-lstm/*/comparison.json"))
        },
    }
    return {root / PAGE: page(results)} | {path: with_tables(path, of_page) for path, of_page in tables.items()}


def main() -> None:
    """Runs the script."""
    try:
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
            print(path)
    except (InputError, OSError) as error:
        print(f"results_page: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
