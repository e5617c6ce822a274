"""The evaluation that a run's directory holds: a record and a picture, which are always written together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from maml_rl.checkpoint import write_json
from maml_rl.experiments.runs.run import EVALUATION, PICTURE, file_of


def write_evaluation(out: Path, record: dict[str, Any], draw: Callable[[Path], None]) -> None:
    """Writes an evaluation as record and picture, which replace those of another one.

    The picture comes first, so that one that cannot be drawn leaves both as they were.

    Args:
        out: Directory, which is made if need be.
        record: The evaluation as JSON values.
        draw: Draws it into a file.
    """
    out.mkdir(parents=True, exist_ok=True)
    task_set = record.get("task_set", "held-out")  # a supervised one names none
    draw(out / file_of(PICTURE, task_set))
    write_json(out / file_of(EVALUATION, task_set), record)
