"""Fixtures that run maml-rl in this process, and that make up evaluations."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure

from maml_rl.config import RLConfig
from maml_rl.experiments.__main__ import main
from maml_rl.experiments.media import charts
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs import adapting
from maml_rl.experiments.runs.evaluations import Evaluation, settings_with
from maml_rl.learner import RANDOM, THIS_RUN, Curve


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_command(monkeypatch, capsys, tmp_path) -> Callable[..., Result]:
    """Runs the command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which a command may add the directory

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["maml-rl", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        except KeyboardInterrupt:  # not caught by the command: pytest would stop
            code = -signal.SIGINT
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def quick_pictures(monkeypatch) -> None:
    """Draws small charts, without the layout that keeps labels apart, which takes half of the time."""
    monkeypatch.setattr(charts, "Figure", lambda figsize, **_: Figure([inches / 3 for inches in figsize]))


@pytest.fixture
def quick_critic(monkeypatch) -> None:
    """Exports policies with a critic that has hardly been fitted."""
    monkeypatch.setattr(adapting, "CRITIC_STEPS", 20)


@pytest.fixture(scope="session")
def evaluation_of() -> Callable[..., Evaluation]:
    """Makes up an evaluation of a run of a preset, in which tasks differ and gradient steps help."""
    return _evaluation_of


def _evaluation_of(
    preset: str, tasks: Sequence[Any] = (0.1, 0.2, 0.3, 0.4, 0.5), steps: int = 1, baselines: Sequence[str] = ()
) -> Evaluation:
    config = PRESETS[preset].config
    settings = settings_with(config, {"tasks": len(tasks), "gradient_steps": steps})
    generator, shape = np.random.default_rng(0), (steps + 1, len(tasks))
    inner_lr = (config.meta.inner_lr,) * steps
    if isinstance(config, RLConfig):
        values = generator.normal(-20, 1, shape) + 5 * np.arange(steps + 1)[:, None]
        curves = [Curve(of, "return", values - 9 * i, inner_lr, "", tasks) for i, of in enumerate((THIS_RUN, RANDOM))]
    elif config.tasks.is_classification:
        modes = [f"{config.tasks.shots}-shot, {mode} BN" for mode in ("transductive", "support")]
        shown = [(mode, quantity) for mode in modes for quantity in ("accuracy", "loss")]
        curves = [Curve(THIS_RUN, q, generator.uniform(0.2, 1, shape), inner_lr, mode) for mode, q in shown]
    else:
        shown = [(of, shots) for of in (THIS_RUN, *baselines) for shots in (10, 5, 20)]
        errors = [generator.uniform(0.5, 2, shape) / np.arange(1, steps + 2)[:, None] for _ in shown]
        curves = [
            Curve(of, "squared error", values, inner_lr, f"{shots}-shot")
            for (of, shots), values in zip(shown, errors, strict=True)
        ]
    reached = (config.seed, 5, 700 if isinstance(config, RLConfig) else 0, 1.5)
    return Evaluation(config, config.problem, *reached, settings, "held-out", curves, dict.fromkeys(baselines, 5))
