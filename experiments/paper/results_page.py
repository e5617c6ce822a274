"""The page of results, docs/results.md: every number on it is read from a file in `results`, and of supervised tasks
from `trained/*/evaluation.json`.

python -m maml_rl.experiments.paper.results_page
"""

import json
import sys
from pathlib import Path
from typing import Any

from maml_rl.errors import InputError
from maml_rl.experiments.paper import figure4, figure5
from maml_rl.experiments.paper.sb3_baselines import read_learner
from maml_rl.experiments.paper.supervised_results import markdown, sections
from maml_rl.experiments.runs.comparison_files import COMPARISON, read_comparison, show
from maml_rl.experiments.runs.evaluations import tasks_named
from maml_rl.experiments.runs.run import TaskSet, file_of

RESULTS, TRAINED, PAGE = Path("results"), Path("trained"), Path("docs/results.md")
_TASK_SETS: tuple[TaskSet, ...] = ("paper", "held-out")  # in the order of the tables
_FIGURES = {
    figure4.FIGURE: "Figure 4: navigation, return by gradient step, and paths before and after adaptation",
    figure5.FIGURE: "Figure 5: locomotion, return by gradient step",
}
_HEAD = """\
# Results

Written by `python -m maml_rl.experiments.paper.results_page` from `results/*/comparison-paper.json` and
`results/*/comparison.json`, which `maml-rl compare` writes with and without `--tasks paper`, and `results/*/sb3-*.json`
of `python -m maml_rl.experiments.paper.sb3_baselines`.

Mean return after 0, 1, 2, ... gradient steps, and below it the interquartile mean, each with its 95 % interval. There
are two tables for each environment:

- **On the paper's tasks**: the 40 tasks that the paper's policies were tested on (`paper_tasks`), next to the paper's
  returns (Finn, Abbeel, Levine 2017). Those are of one run, with the standard error over its tasks.
- **On held-out tasks**: 40 tasks that the seed of the evaluation draws. They can be harder: the paper's goal velocities
  of the half-cheetah have mean 0.92 m/s, these 1.15 m/s. So the paper's returns are not in this table. (In navigation
  it has five seeds of pretrained and oracle; the table above it has the one that comes with the repository.)

From three seeds on, an interval is over seeds and tasks (Student's, with seeds and tasks as units). Of one or two seeds
it is **over tasks alone**: it says what these very runs would have on other tasks, and nothing about other seeds. The
column *interval over* says which.

All methods have the same policy, sampler, optimiser and number of training episodes, so that only the idea differs
(ant-vel's oracle had about half of them: its return had long stood still):

- **maml**: the method.
- **pretrained**: trained on all tasks at once, without inner updates, and then fine-tuned as maml is.
- **oracle**: the same with the task in the observation; it needs no gradient steps.
- **random**: not trained, and fine-tuned as maml is.

The step size of the gradient steps is that of the training for maml. For pretrained and random it is the best of
several on validation tasks, which are neither those of the training nor those of a table; of only two directions, on
other episodes. The tables of runs have it.

Each command of these tables trains in a separate directory, such as `runs/navigation` or `runs/navigation-seed1`.
"""


def page(results: Path = RESULTS, trained: Path = TRAINED) -> str:
    """The page as Markdown."""
    order = ["navigation", *figure5.TASKS]
    names = [file_of(COMPARISON, task_set) for task_set in _TASK_SETS]
    tasks = {path.parent.name for name in names for path in results.glob(f"*/{name}")}
    parts = [_HEAD]
    for task in sorted(tasks, key=lambda task: (order.index(task) if task in order else len(order), task)):
        paths = [results / task / name for name in names]
        parts.append(_section([read_comparison(path) for path in paths if path.exists()]))
    learners = [read_learner(path) for path in sorted(results.glob("*/sb3-*.json"))]
    if learners:
        parts.append(_ordinary_learners(learners))
    figures = [(name, text) for name, text in _FIGURES.items() if (results / name).exists()]
    if figures:
        parts.append("## Figures 4 and 5\n")
        parts += [f"{text}\n\n![{text}](../results/{name})\n" for name, text in figures]
    return "\n".join([*parts, *sections(trained)])


def _section(records: list[dict[str, Any]]) -> str:
    """One environment: a table for each set of tasks, and the runs."""
    first, rows = records[0], [["command", "env steps", "wall-clock", "step size", "hardware"]]
    most = max(records, key=lambda record: sum(len(group["runs"]) for group in record["methods"]))
    rows += [_run(run) for group in most["methods"] for run in group["runs"]]
    tables = "\n".join(_returns(record) for record in records)
    return f"## {first['task']}\n\n{tables}\n{markdown(rows)}\n"


def _returns(record: dict[str, Any]) -> str:
    """Returns on one set of tasks, and on the paper's tasks the paper's."""
    rows = [["method", "seeds", "interval over", *map(str, range(record["gradient_steps"] + 1))]]
    for group in record["methods"]:
        means, middle = ([show(value) for value in group[name]] for name in ("mean_return", "interquartile_mean"))
        rows.append([f"**{group['label']}**", str(len(group["runs"])), group["interval_over"], *means])
        rows.append(["interquartile mean", "", "", *middle])
        if record["task_set"] == "paper":
            paper = [f"{value['mean']:.1f} ± {value['standard_error']:.1f}" for value in group["paper"]]
            rows.append(["paper", "1" if paper else "-", "", *paper])
    tasks = tasks_named(record["task_set"], record["num_tasks"])
    about = f"{record['episodes']} episodes of each by gradient step"
    return f"`{record['env_id']}` on {tasks}, {about}:\n\n{markdown(rows)}\n"


def _ordinary_learners(records: list[dict[str, Any]]) -> str:
    """PPO from scratch on one task and as an oracle on all, beside MAML where the file has it."""
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

PPO of Stable-Baselines3, one seed each: from scratch on one task alone, and as an oracle on all tasks, of which the
observation says which it is ([stable_baselines3.md](stable_baselines3.md#how-long-does-an-ordinary-learner-take)).
The standard error is over episodes of the one task, or over the 40 held-out tasks.

{markdown(rows)}
"""


def _run(run: dict[str, Any]) -> list[str]:
    machines = dict.fromkeys(f"{m['cores']} cores, {m.get('accelerator', m['processor'])}" for m in run["machines"])
    return [
        f"`{run['command']}`",
        f"{run['env_steps'] / 1e6:.1f} M",
        f"{run['seconds'] / 60:.0f} min",
        ", ".join(f"{lr:g}" for lr in run["inner_lr"]) or "-",
        "; ".join(machines) or "not noted",
    ]


def main() -> None:
    """Runs the script."""
    try:
        PAGE.write_text(page(), encoding="utf-8")
    except (InputError, OSError) as error:
        print(f"results_page: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(PAGE)


if __name__ == "__main__":
    main()
