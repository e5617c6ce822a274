"""A few tasks of a supervised run by gradient step: fitted functions, or images with the class predicted for each."""

import base64
import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from maml_rl.experiments.media.fits import HeldOut
from maml_rl.experiments.report.page import Section, asset
from maml_rl.experiments.report.svg import svg_figure

_MOST_QUERIES = 20  # query images shown of a task
_MOST_WAYS = 26  # that a letter stands for
_IMAGES = (
    "Each task has a row of images that the network learns from. Below it are images that the network has not seen, "
    "each with the class that it predicts and the probability that it gives this class."
)
_FITS = "The network's function after the chosen number of gradient steps on the points, cut off at the frame."


def examples(held_out: HeldOut, count: int) -> list[Section]:
    """The first held-out tasks by gradient step; empty if their inputs can be neither plotted nor seen.

    Args:
        held_out: The run and its tasks.
        count: How many tasks.
    """
    first, tasks = held_out.task(0, held_out.shots), range(count)
    if held_out.learner.config.tasks.is_classification:
        drawn = "".join(f"<h3>Task {m + 1}</h3>{_classified(held_out, m)}" for m in tasks)
        explanation, body = _IMAGES, drawn
    elif first.support_x.shape[2:] == first.support_y.shape[2:] == (1,):
        charts = [held_out.fit_chart(m, held_out.shots, f"Task {m + 1}") for m in tasks]
        explanation, body = _FITS, f'<div class="grid">{"".join(map(svg_figure, charts))}</div>'
    else:
        return []
    steps = held_out.gradient_steps
    slider = f"""<div class="controls"><label class="steps"><span>Gradient steps</span>
<input id="steps" type="range" min="0" max="{steps}" value="{min(1, steps)}" step="1">
<output id="steps-value" for="steps"></output></label></div>
<p class="hint">Keys: <kbd>←</kbd> <kbd>→</kbd> and <kbd>0</kbd> to <kbd>{min(9, steps)}</kbd> choose the gradient
steps.</p>"""
    return [Section("Watch it adapt", f"<p>{explanation}</p>{slider}{body}", asset("stepper.js"))]


def _classified(held_out: HeldOut, index: int) -> str:
    """A classification task: its images, and the classes predicted for the query images by gradient step."""
    task = held_out.task(index, held_out.shots)
    scores = held_out.outputs(task, held_out.shots, task.query_x[0])
    sure = torch.from_numpy(scores).softmax(-1).numpy()  # [S + 1, queries, ways]
    labels = task.query_y[0].tolist()
    chosen = np.linspace(0, len(labels) - 1, min(_MOST_QUERIES, len(labels))).astype(int).tolist()
    inverted = held_out.learner.config.tasks.family == "omniglot"  # ink is 1
    learned = "".join(
        f"<div>{_picture(image, inverted)}{_letter(label)}</div>"
        for image, label in zip(task.support_x[0].numpy(), task.support_y[0].tolist(), strict=True)
    )
    asked = "".join(
        f"<div>{_picture(task.query_x[0, i].numpy(), inverted)}{_answers(sure[:, i], labels[i])}</div>" for i in chosen
    )
    return f'<div class="examples">{learned}</div><div class="examples">{asked}</div>'


def _answers(sure: NDArray[np.float64], label: int) -> str:
    """The predicted class after each number of gradient steps, from the probabilities of classes `[S + 1, N]`."""
    said = []
    for step, probabilities in enumerate(sure):
        answer = int(probabilities.argmax())
        right = answer == label and bool(np.isfinite(probabilities).all())
        name, mark = ("right", "✓") if right else ("wrong", "✗")
        share = f"{100 * probabilities[answer]:.0f} %"
        said.append(f'<div data-step="{step}" class="{name}">{mark} {_letter(answer)} {share}</div>')
    return "".join(said)


def _letter(label: int) -> str:
    return chr(ord("A") + label) if label < _MOST_WAYS else str(label + 1)


def _picture(image: NDArray[np.float32], inverted: bool) -> str:
    """An image `[channels, height, width]` from 0 to 1."""
    values = np.round(255 * np.clip(1 - image if inverted else image, 0, 1)).astype(np.uint8)
    content = io.BytesIO()
    picture = Image.fromarray(values[0]) if len(values) == 1 else Image.fromarray(values.transpose(1, 2, 0))
    picture.save(content, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'
