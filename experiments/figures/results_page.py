"""The page of results, docs/results.md: every number on it is read from a file in `results`, and of supervised tasks
from `trained/*/evaluation.json`.

python -m experiments.figures.results_page
"""

import json
import sys
from pathlib import Path
from typing import Any

from experiments.comparison_files import COMPARISON, read_comparison, show
from experiments.figures import figure4, figure5
from experiments.figures.sb3_baselines import read_learner
from experiments.figures.supervised_results import markdown, sections
from maml_rl.errors import InputError

RESULTS, TRAINED, PAGE = Path("results"), Path("trained"), Path("docs/results.md")
_FIGURES = {
    figure4.FIGURE: "Figure 4: navigation, return by gradient step, and paths before and after adaptation",
    figure5.FIGURE: "Figure 5: locomotion, return by gradient step",
}
_HEAD = """\
# Results

Written by `python -m experiments.figures.results_page` from `results/*/comparison.json`, which `maml-rl compare`
writes, and `results/*/sb3-*.json` of `python -m experiments.figures.sb3_baselines`.

Mean return over held-out tasks after 0, 1, 2, ... gradient steps, and below it the interquartile mean, each with its
95 % interval by a bootstrap over seeds and tasks; of one seed, the interval tells nothing of what another would give.
The paper's rows (Finn, Abbeel, Levine 2017) are of one run, with the standard error over its tasks. All methods have
the same policy, sampler, optimiser and number of training episodes, so that only the idea differs (ant-vel's oracle had
about half of them: its return had long stood still):

- **maml**: the method.
- **pretrained**: trained on all tasks at once, without inner updates, and then fine-tuned as maml is.
- **oracle**: the same with the task in the observation; it needs no gradient steps.
- **random**: not trained, and fine-tuned as maml is.

The step size of the gradient steps is that of the training for maml. For pretrained and random it is the best of
several on validation tasks, which are neither those of the training nor those of the table; of only two directions, on
other episodes. The tables of runs tell it.

Each command of these tables trains in a directory of its own, such as `runs/navigation` or `runs/navigation-seed1`.
"""


def page(results: Path = RESULTS, trained: Path = TRAINED) -> str:
    """The page as Markdown."""
    records = [read_comparison(path) for path in sorted(results.glob(f"*/{COMPARISON}"))]
    order = ["navigation", *figure5.TASKS]
    records.sort(key=lambda record: order.index(record["task"]) if record["task"] in order else len(order))
    parts = [_HEAD, *map(_section, records)]
    learners = [read_learner(path) for path in sorted(results.glob("*/sb3-*.json"))]
    if learners:
        parts.append(_ordinary_learners(learners))
    figures = [(name, text) for name, text in _FIGURES.items() if (results / name).exists()]
    if figures:
        parts.append("## Figures 4 and 5\n")
        parts += [f"{text}\n\n![{text}](../results/{name})\n" for name, text in figures]
    return "\n".join([*parts, *sections(trained)])


def _section(record: dict[str, Any]) -> str:
    steps = range(record["gradient_steps"] + 1)
    rows = [["method", "seeds", *map(str, steps)]]
    for group in record["methods"]:
        paper = [f"{value['mean']:.1f} ± {value['standard_error']:.1f}" for value in group["paper"]]
        means, middle = ([show(value) for value in group[name]] for name in ("mean_return", "interquartile_mean"))
        rows.append([f"**{group['label']}**", str(len(group["runs"])), *means])
        rows.append(["interquartile mean", "", *middle])
        rows.append(["paper", "1" if paper else "-", *paper])
    runs = [["command", "env steps", "wall-clock", "step size", "hardware"]]
    runs += [_run(run) for group in record["methods"] for run in group["runs"]]
    return f"""\
## {record["task"]}

`{record["env_id"]}`: {record["num_tasks"]} held-out tasks, {record["episodes"]} episodes of each by gradient step.

{markdown(rows)}

{markdown(runs)}
"""


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
observation tells which it is ([stable_baselines3.md](stable_baselines3.md#how-long-does-an-ordinary-learner-take)).
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
