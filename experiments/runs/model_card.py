"""The card of a run on the Hugging Face Hub: its README.md, with the results where the Hub looks for them."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from maml_rl.config import RLConfig
from maml_rl.experiments.media.labels import steps_label
from maml_rl.experiments.runs.comparison import problem_name
from maml_rl.experiments.runs.evaluation_tables import heading
from maml_rl.experiments.runs.evaluations import Evaluation
from maml_rl.experiments.runs.provenance import cores_text, trained_on, training_command
from maml_rl.experiments.runs.text import duration, env_steps_text, markdown_table
from maml_rl.hub import HUB, hub_module
from maml_rl.learner import RANDOM, Curve
from maml_rl.run import Run

CARD = "README.md"
_METRICS = {"return": "mean_reward", "accuracy": "accuracy", "squared error": "mse", "loss": "loss"}
_TASKS = {"return": "reinforcement-learning", "accuracy": "image-classification", "squared error": "tabular-regression"}
_VERSIONS = ("python", "torch", "numpy", "gymnasium", "mujoco")

_ABOUT = """\
# {title}

{what}, meta-trained with maml-rl ({method}) on `{problem}`.
{picture}
## Results

{heading}, by number of gradient steps, with its standard error over tasks:

{table}

The standard error is that of this run over tasks; it says nothing about other seeds.

## Use

```
pip install 'maml-rl[hub]'
maml-rl evaluate {name}
{more}```

```python
import maml_rl

run = maml_rl.load_run("{name}")
```

The files are safetensors, JSON and csv: nothing is executed when they are read.

## Training

```
{command}
```

{facts}
"""


def model_card(directory: Path, run: Run, evaluation: Evaluation, repository: str, picture: str | None) -> str:
    """The text of a run's card.

    Args:
        directory: The run.
        run: The same.
        evaluation: Its evaluation.
        repository: Its name on the Hub, `owner/name`.
        picture: Name of a picture or clip next to the card, if there is one.
    """
    is_rl = isinstance(run.config, RLConfig)
    name = f"{HUB}{repository}"
    more = [f"maml-rl visualize {name}", *([f"maml-rl adapt {name} --out policy.zip"] if is_rl else [])]
    text = _ABOUT.format(
        title=repository.rpartition("/")[2],
        what=f"A {'policy' if is_rl else 'network'} that a gradient step on a few "
        f"{'episodes' if is_rl else 'examples'} adapts to a new task",
        method=run.config.method,
        problem=run.config.problem,
        picture=f"\n![before and after adaptation]({picture})\n" if picture else "",
        heading="; ".join(heading(evaluation)).capitalize(),
        table=_table(evaluation),
        name=name,
        more="".join(f"{line}\n" for line in more),
        command=training_command(run.config),
        facts="\n".join(f"- {fact}" for fact in _facts(directory, run)),
    )
    return f"---\n{_front_matter(run, evaluation, repository)}\n---\n\n{text}"


def _front_matter(run: Run, evaluation: Evaluation, repository: str) -> str:
    """What the Hub reads: library, tags, and the results as a `model-index`."""
    hub: Any = hub_module()
    results = [
        hub.EvalResult(
            task_type=_TASKS.get(curve.quantity, "other"),
            dataset_type=run.config.problem,
            dataset_name=problem_name(run.config),
            dataset_config=curve.condition or None,
            metric_type=_METRICS[curve.quantity],
            metric_name=f"mean {curve.quantity} +/- standard error, {steps_label(step)}",
            metric_value=f"{scale * mean.value:.2f} +/- {scale * mean.standard_error:.2f}",
        )
        for curve in evaluation.main_curves()
        for scale in [evaluation.quantity.scale]
        for step, mean in enumerate(curve.means())
    ]
    tags = ["meta-learning", "maml", run.config.kind, *dict.fromkeys((run.config.method, problem_name(run.config)))]
    if isinstance(run.config, RLConfig):
        tags.insert(0, "reinforcement-learning")
    card = hub.ModelCardData(
        library_name="maml-rl",
        tags=list(dict.fromkeys(tags)),
        model_name=repository.rpartition("/")[2],
        eval_results=results,
    )
    return str(card.to_yaml()).strip()


def _table(evaluation: Evaluation) -> str:
    """Mean with its standard error by gradient step, of the run and of what it is compared with."""
    rows = [["", *map(str, range(evaluation.gradient_steps + 1))]]
    for condition in evaluation.conditions:
        rows += [_row(evaluation, curve, condition) for curve in evaluation.under(condition)]
    return markdown_table(rows)


def _row(evaluation: Evaluation, curve: Curve, condition: str) -> list[str]:
    quantity = evaluation.quantity
    cells = [f"{quantity.text(mean.value)} ± {quantity.text(mean.standard_error)}" for mean in curve.means()]
    whose = "random policy, adapted as well" if curve.of == RANDOM else curve.of
    return [", ".join(filter(None, [whose, condition])), *cells]


def _facts(directory: Path, run: Run) -> list[str]:
    """How long it was trained, on what, with which versions."""
    steps = f", {env_steps_text(run.progress.env_steps)} env steps" if run.progress.env_steps else ""
    taken = f"{run.state.iteration:,} meta-iterations{steps}, in {duration(run.progress.seconds)}"
    facts = [f"{taken}; seed {run.config.seed}"]
    for machine in trained_on(directory):
        accelerator = f", {machine['accelerator']}" if "accelerator" in machine else ""
        place = f"{machine['processor']}, {cores_text(machine)}{accelerator}"
        facts.append(f"from iteration {machine['from_iteration']:,} on: {place}")
    if machines := trained_on(directory):
        last: dict[str, str] = {key: str(value) for key, value in machines[-1].items()}
        facts.append(", ".join(f"{name} {last[name]}" for name in _VERSIONS if name in last))
    return [*facts, f"maml-rl {version('maml-rl')} wrote this card"]
