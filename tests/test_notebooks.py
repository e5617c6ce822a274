"""The notebook of the site runs from the top, and its stored output is current."""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import notebooks
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
NOTEBOOK = notebooks.NOTEBOOKS / "adapt_a_half_cheetah.ipynb"
STORED = nbformat.read(NOTEBOOK, as_version=4)
SHORT = {"iterations": 1, "own_iterations": 1}


def outputs(notebook: Any) -> Iterator[tuple[str, list[Any]]]:
    """Name and outputs of each cell of code."""
    yield from ((cell.id, cell.outputs) for cell in notebook.cells if cell.cell_type == "code")


def numbers(notebook: Any, cell: str) -> list[float]:
    """Returns that a cell prints."""
    text = "".join(output.get("text", "") for output in dict(outputs(notebook))[cell])
    return [float(found) for found in re.findall(r"-?\d+\.\d*", text)]


@pytest.fixture(scope="module")
def again(tmp_path_factory) -> Any:
    """The notebook, run again with a training of one iteration."""
    directory = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(directory / "ipython"))
        try:
            return notebooks.executed(NOTEBOOK, directory, SHORT)
        except CellExecutionError as error:
            if "rendering needs OpenGL" not in str(error):
                raise
            pytest.skip("the notebook draws a robot, and this machine has no OpenGL")


def test_every_cell_runs_and_has_the_stored_kinds_of_output(again):
    def kinds(cell: list[Any]) -> list[tuple[str, list[str]]]:
        return [(output.output_type, sorted(output.get("data", {}))) for output in cell]

    for (name, stored), (_, now) in zip(outputs(STORED), outputs(again), strict=True):
        if name != "train-navigation":  # prints every 10 iterations
            assert kinds(now) == kinds(stored), name


def test_the_returns_of_the_trained_runs_are_those_that_are_stored(again):
    """Rounding differs between machines, and a robot in contact with the floor makes it grow: hence the tolerance."""
    for cell in ("watch-clip", "choose-goal"):
        assert numbers(again, cell) == pytest.approx(numbers(STORED, cell), rel=0.1, abs=20)
    backward, forward = numbers(again, "watch-clip")[2:]
    assert min(backward, forward) > 400
    before, *_, after = numbers(again, "choose-goal")
    assert after > before + 100


def test_the_stored_notebook_is_complete_small_and_has_learned():
    cells = [cell for cell in STORED.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output.output_type != "error" for _, found in outputs(STORED) for output in found)
    assert NOTEBOOK.stat().st_size < 500_000
    before, after = numbers(STORED, "train-navigation")[-2:]
    assert after > before + 15
    before, *_, after = numbers(STORED, "own-train")
    assert after > before + 2


def test_the_runs_that_it_loads_are_in_the_wheel():
    loaded = re.findall(r'trained / "([\w-]+)"', "".join(cell.source for cell in STORED.cells))
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    shipped = configuration["options.package_data"]["maml_rl.trained"].split()
    assert len(loaded) == 2
    assert {f"{name}/checkpoint.safetensors" for name in loaded} < set(shipped)
    assert all((ROOT / "trained" / file).exists() for file in shipped)


def test_a_cell_that_fails_and_an_unknown_setting_are_errors(tmp_path):
    path = tmp_path / "failing.ipynb"
    cells = [nbformat.v4.new_code_cell("steps = 3"), nbformat.v4.new_code_cell("assert steps == 3")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    notebooks.executed(path, tmp_path)
    with pytest.raises(CellExecutionError, match="AssertionError"):
        notebooks.executed(path, tmp_path, {"steps": 2})
    with pytest.raises(ValueError, match="begins with rounds ="):
        notebooks.executed(path, tmp_path, {"rounds": 2})
