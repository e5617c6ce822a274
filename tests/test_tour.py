"""The tour of the package: its code runs, and it uses every public name."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import maml_rl

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "docs" / "tour.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TOUR.read_text(), re.M | re.S)


def test_the_tour_runs(capsys):
    names: dict[str, Any] = {}
    for block in BLOCKS:
        shorter = block.replace("range(100)", "range(1)")
        exec(compile(shorter, str(TOUR), "exec"), names)
    assert len(re.findall(r"mean return -\d+\.\d\n", capsys.readouterr().out)) == 2
    assert names["iteration"] == 0
    assert {name: value.shape for name, value in names["adapted"].items()} == {
        name: value.shape for name, value in names["theta"].items()
    }
    assert any((value != names["theta"][name]).any() for name, value in names["adapted"].items())


def test_it_takes_about_fifteen_lines_to_an_adapted_policy():
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 15


def test_the_public_names_are_those_of_the_tour():
    used = {name for block in BLOCKS for name in re.findall(r"maml_rl\.(\w+)\b(?!:)", block)}  # not an id
    assert set(maml_rl.__all__) == used
    assert maml_rl.__all__ == sorted(maml_rl.__all__)


def test_every_public_name_is_there_and_documented():
    assert set(maml_rl.__all__) <= set(dir(maml_rl))
    for name in maml_rl.__all__:
        assert getattr(maml_rl, name).__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = maml_rl.nothing


@pytest.mark.parametrize(
    "module", ["maml_rl", "maml_rl.processes", "maml_rl.tasks", "maml_rl.checks", "maml_rl.envs.batched"]
)
def test_what_processes_of_an_environment_import_leaves_pytorch_out(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
