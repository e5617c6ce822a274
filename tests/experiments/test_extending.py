"""The code of docs/extending.md works: files are written, code is executed, commands run with small settings."""

import re
import shlex
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SMALL = ["--meta.meta-batch-size=2", "--meta.episodes=5", "--network.hidden-sizes", "8", "--threads=1"]
OPTIONS = {
    "train": ["--iterations=1", *SMALL],
    "evaluate": ["--tasks=2", "--episodes=5", "--gradient-steps=1", "--threads=1"],
}


@pytest.fixture
def elsewhere(monkeypatch, tmp_path) -> Path:
    """An empty directory where Python and the command look for modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for path in re.findall(r"^# (\w+)\.py$", PAGE.read_text(), re.M):
        monkeypatch.delitem(sys.modules, path, raising=False)  # another test may have had one of that name
    return tmp_path


def test_every_example_runs(elsewhere, run_command):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    namespace: dict[str, object] = {}
    for language, code in blocks:
        if named := re.match(r"# (\w+\.py)\n", code):
            (elsewhere / named[1]).write_text(code)
        elif language == "python":
            exec(compile(code, str(PAGE), "exec"), namespace)
        else:
            for line in code.splitlines():
                program, command, *arguments = shlex.split(line)
                assert program == "maml-rl"
                result = run_command(command, *arguments, *OPTIONS.get(command, []))
                assert result.code == 0, result.err
    assert (elsewhere / "runs" / "entropy" / "evaluation.json").exists()
    assert (elsewhere / "runs" / "Lever-v0" / "checkpoint.safetensors").exists()
    assert sys.modules["losses"].__file__ == str(elsewhere / "losses.py")
