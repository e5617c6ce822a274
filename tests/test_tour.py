"""The tour of the package: its code runs, and it uses every public name, with the page on robots."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import maml_rl

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "docs" / "tour.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TOUR.read_text(), re.M | re.S)


def test_the_tour_runs(capsys, monkeypatch, tmp_path):
    (tmp_path / "trained").symlink_to(ROOT / "trained")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    for block in BLOCKS:
        shorter = block.replace("iterations=100", "iterations=1").replace("range(100)", "range(1)")
        exec(compile(shorter, str(TOUR), "exec"), names)
    means = [float(text) for text in re.findall(r"mean return (-\d+\.\d)\n", capsys.readouterr().out)]
    assert means[:4] == pytest.approx([-36.6, -4.1, -2.6, -2.7], abs=0.06)  # as the page says
    assert len(means) == 6
    assert (tmp_path / "paths.png").read_bytes().startswith(b"\x89PNG")
    assert names["actions"].shape == (8, 2)
    saved = maml_rl.load_run("runs/mine").state
    assert names["state"].iteration == saved.iteration == 1
    for name, value in names["state"].meta.items():  # the loop by hand is that of `train`
        assert torch.equal(value, saved.meta[name])


def test_it_takes_about_ten_lines_from_a_run_to_a_picture_of_its_adaptation():
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 13


def test_the_public_names_are_those_of_the_tour_and_the_robot():
    pages = "".join([*BLOCKS, (ROOT / "docs" / "real_robot.md").read_text()])
    used = set(re.findall(r"(?<!from )maml_rl\.(\w+)\b(?!:)", pages)) - {"envs"}  # no module, no id
    assert set(maml_rl.__all__) == used


def test_every_public_name_exists_and_is_documented():
    assert set(maml_rl.__all__) <= set(dir(maml_rl))
    for name in maml_rl.__all__:
        assert getattr(maml_rl, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = maml_rl.nothing


@pytest.mark.parametrize(
    "module", ["maml_rl", "maml_rl.processes", "maml_rl.tasks", "maml_rl.checks", "maml_rl.envs.batched"]
)
def test_imports_of_environment_processes_leave_pytorch_out(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
