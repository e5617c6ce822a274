"""The page from the simulator to the robot: its commands and its code run, in their order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import maml_rl
from maml_rl.experiments.__main__ import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "real_robot.md"
BLOCKS = re.findall(r"^```(python|sh)\n(?:# (\w+\.py)\n)?(.*?)^```$", PAGE.read_text(), re.M | re.S)


def test_the_page_does_what_it_says(tmp_path, monkeypatch):
    (tmp_path / "trained").symlink_to(ROOT / "trained")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    for language, file, code in BLOCKS:
        if file:
            Path(file).write_text(code)
        elif language == "python":
            exec(compile(code, str(PAGE), "exec"), names)
        else:
            for command in code.splitlines():
                program, *arguments = shlex.split(command)
                if program == "python":
                    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
                else:
                    monkeypatch.setattr(sys, "argv", [program, *arguments])
                    main()
    first, second = (maml_rl.load_steps(name) for name in ("first.npz", "second.npz"))
    assert first.returns.mean() < -80
    assert second.returns.mean() > 280  # three collections: 320, 344, 336
    assert names["adapted"].warnings == []
    adapted = maml_rl.load_policy("adapted.npz")
    for name in ("policy", "again"):  # by the command, in Python, and from the file
        other = names[name] if name == "policy" else names[name].to_numpy()
        assert all(np.array_equal(one, same) for one, same in zip(adapted.weights, other.weights, strict=True))
    forward: dict[str, Any] = {}
    exec(Path("forward.py").read_text(), forward)
    policy = forward["load"]("adapted.npz")
    observations = first.observations[:50]
    means = np.stack([forward["mean_action"](policy, observation) for observation in observations])
    np.testing.assert_allclose(means, adapted.output(observations), rtol=1e-5, atol=1e-5)
    samples = [forward["sampled_action"](policy, observations[0], np.random.default_rng(i)) for i in range(2000)]
    np.testing.assert_allclose(np.std(samples, 0), np.exp(adapted.log_std), rtol=0.1)
    acted = forward["within"](policy, means[0])
    np.testing.assert_allclose(acted, adapted.act(observations[0]), atol=1e-5)
    assert names["sampled"].shape == (1, 6)


def test_the_page_is_linked_from_the_readme():
    assert "docs/real_robot.md" in (ROOT / "README.md").read_text()
