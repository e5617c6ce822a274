"""Tables of the supervised runs for the page of results, from the files that `maml-rl evaluate` wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maml_rl.experiments.paper.published_supervised import paper_values
from maml_rl.experiments.runs.provenance import trained_on, training_command
from maml_rl.experiments.runs.run import CHECKPOINT, EVALUATION, is_supervised
from maml_rl.experiments.runs.supervised_evaluations import read_evaluation
from maml_rl.experiments.runs.supervised_run import SupervisedConfig, load_config

_HEAD = """\
# Supervised tasks

Written from `trained/*/evaluation.json`, which `maml-rl evaluate` writes. Mean over held-out tasks ± 1.96 standard
deviations over tasks by the root of their number, as in the paper, after so many gradient steps. Of regression the
squared error, with its median and the share of tasks that diverged, whose error is above that of any task before
adaptation; of classification the accuracy in %, with the statistics of batch normalisation that the query examples were
given: transductive, their own, as the paper has it; or those of the support examples, so that no query example knows of
another.
"""
_SHOWN = (0, 1, 2, 3, 5, 10)


def sections(trained: Path) -> list[str]:
    """Markdown of all supervised runs below a directory; empty if there are none."""
    directories = sorted(path.parent for path in trained.glob(f"*/{CHECKPOINT}") if (path.parent / EVALUATION).exists())
    runs = [directory for directory in directories if is_supervised(directory)]
    runs.sort(key=lambda run: (load_config(run)[0].tasks.is_classification, run.name))
    return [_HEAD, *map(_section, runs)] if runs else []


def _section(run: Path) -> str:
    config, progress = load_config(run)
    record = read_evaluation(run / EVALUATION)
    steps = [step for step in record["gradient_steps"] if step in _SHOWN]
    rows = [["", *map(str, steps)]]
    for evaluation in (record, *record["further"]):
        rows += _rows(config, evaluation, steps)
    machines = dict.fromkeys(f"{m['cores']} cores, {m['processor']}" for m in trained_on(run))
    by_shots = {e["shots"]: f"{e['inner_lr']:g}" for e in (record, *record["further"])}
    alike = len(set(by_shots.values())) == 1
    sizes = by_shots[record["shots"]] if alike else ", ".join(f"{lr} ({shots}-shot)" for shots, lr in by_shots.items())
    hours = progress.seconds / 3600
    spent = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
    return f"""\
## {run.name}

`{training_command(config)}`: {progress.iteration} of {config.iterations} iterations, {spent} on
{"; ".join(machines) or "a machine not noted"}. {record["num_tasks"]} held-out tasks, step size {sizes}.

{markdown(rows)}
"""


def _rows(config: SupervisedConfig, evaluation: dict[str, Any], steps: Sequence[int]) -> list[list[str]]:
    """An evaluation's rows, and the paper's."""
    shots, half = evaluation["shots"], evaluation["half_interval"]
    paper = paper_values(config, shots)
    if "mean_accuracy" in evaluation:
        mode, accuracy = evaluation["batch_norm"], evaluation["mean_accuracy"]
        label = f"**{shots}-shot**" + (f", {mode}" if mode else "")
        rows = [[label, *(f"{100 * accuracy[s]:.2f} ± {100 * (half[s] or 0):.2f}" for s in steps)]]
        if paper and mode != "support":
            cells = [
                f"{100 * paper[s].value:.1f} ± {100 * (paper[s].half_interval or 0):.1f}" for s in steps if s in paper
            ]
            rows.append(["paper", *["-"] * (len(steps) - len(cells)), *cells])
        return rows
    mean, median = ([_cell(evaluation[f"{name}_squared_error"][s]) for s in steps] for name in ("mean", "median"))
    rows = [
        [
            f"**{shots}-shot**",
            *(m if half[s] is None else f"{m} ± {half[s]:.3f}" for m, s in zip(mean, steps, strict=True)),
        ],
        ["median", *median],
        ["diverged", *(f"{100 * evaluation['diverged_share'][s]:.1f} %" for s in steps)],
    ]
    if paper:
        rows.append(["paper", *(f"{paper[s].value:.2f}" if s in paper else "-" for s in steps)])
    return rows


def _cell(value: float | None) -> str:
    """An error; one that is not finite is null in the file."""
    return "-" if value is None else f"{value:.3f}"


def markdown(rows: list[list[str]]) -> str:
    """Rows as a table, the first of them its head; short rows are filled with dashes."""
    width = len(rows[0])
    lines = ["| " + " | ".join([*row, *["-"] * (width - len(row))]) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * width, *lines[1:]])
