"""Runs the notebooks of the site and stores what their cells print and draw: `make notebooks`."""

import base64
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def executed(path: Path, directory: Path, settings: Mapping[str, int] | None = None) -> Any:
    """A notebook with the output of every cell, run from the top by a fresh kernel.

    Args:
        path: The notebook.
        directory: Directory that the kernel runs in; cells may write files there.
        settings: Values of variables in place of those that the notebook assigns at the beginning of a line.

    Raises:
        CellExecutionError: If a cell fails.
        ValueError: If the notebook does not assign a variable of `settings`.
    """
    notebook = nbformat.read(path, as_version=4)
    for name, value in (settings or {}).items():
        _assign(notebook, name, value)
    settled: dict[str, Any] = {"timeout": None, "record_timing": False, "coalesce_streams": True}
    return NotebookClient(notebook, resources={"metadata": {"path": str(directory)}}, **settled).execute()


def _assign(notebook: Any, name: str, value: int) -> None:
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "code" else ():
            if line.startswith(f"{name} = "):
                cell.source = cell.source.replace(line, f"{name} = {value}")
                return
    raise ValueError(f"no line of the notebook begins with {name} =")


def smaller(notebook: Any) -> Any:
    """The notebook with at most 64 colours in a figure, which takes a third of the space."""
    for data in (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())):
        if "image/png" in data:
            content = io.BytesIO()
            figure = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
            figure.quantize(64, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
            data["image/png"] = base64.b64encode(content.getvalue()).decode()
    return notebook


def main() -> None:
    """Runs every notebook and stores it with its outputs."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as directory:
            notebook = executed(path, Path(directory))
        notebook.metadata.language_info = {"name": "python"}  # without the version of this machine's Python
        nbformat.write(smaller(notebook), path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
