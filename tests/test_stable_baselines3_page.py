"""The page on Stable-Baselines3: its commands and its code run, in their order, with small settings."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO, SAC

from maml_rl.experiments.__main__ import main
from maml_rl.experiments.paper import sb3_baselines
from maml_rl.policies import GaussianMLP

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "stable_baselines3.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
SHORTER = {"learn(20_000)": "learn(4_000)", "learn(5_000)": "learn(1_200)"}


def run_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a line of a shell in this process."""
    program, *arguments = shlex.split(command)
    if program == "maml-rl":
        monkeypatch.setattr(sys, "argv", ["maml-rl", *arguments])
        main()
    else:
        assert (program, arguments[:2]) == ("python", ["-m", "maml_rl.experiments.paper.sb3_baselines"])
        length = arguments.index("--env-steps") + 1
        arguments[length] = "2048"
        sb3_baselines.main(arguments[2:])


def test_the_page_does_what_it_says(tmp_path, monkeypatch):
    (tmp_path / "trained").symlink_to(ROOT / "trained")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    models: list[type] = []
    for language, code in BLOCKS:
        if language == "python":
            for long, short in SHORTER.items():
                code = code.replace(long, short)
            exec(compile(code, str(PAGE), "exec"), names)
            models.append(type(names["model"]))
        elif language == "sh":
            for command in code.splitlines():
                run_command(command, monkeypatch)
    assert models == [PPO, PPO, SAC, SAC]
    assert names["action"].shape == (6,)
    assert isinstance(names["policy"], GaussianMLP)
    assert {path.name for path in tmp_path.iterdir()} == {"trained", "forward.zip", "results"}
    assert min(names["before"], names["after"]) > 450  # adapted, and no less after more training


def test_the_page_is_linked_from_the_readme():
    assert "docs/stable_baselines3.md" in (ROOT / "README.md").read_text()
