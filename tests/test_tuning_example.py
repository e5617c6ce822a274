"""The example that tunes with Optuna: several seeds a trial, pruned by learning curves, continued if interrupted."""

import argparse
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from maml_rl.config import PolicyConfig
from maml_rl.errors import NonFiniteError
from maml_rl.experiments.presets import PRESETS
from maml_rl.machine import Machine
from maml_rl.run import load_run

SCRIPT = Path(__file__).parents[1] / "examples" / "tuning.py"
_NAVIGATION = PRESETS["navigation"].config
SMALL = replace(
    _NAVIGATION,
    iterations=2,
    max_episode_steps=5,
    meta=replace(_NAVIGATION.meta, meta_batch_size=2, episodes=2),
    network=PolicyConfig(hidden_sizes=(4,)),
)


@pytest.fixture
def tuning(monkeypatch) -> Any:
    """The script as a module, with a preset that is small."""
    spec = importlib.util.spec_from_file_location("tuning_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "find_preset", lambda _: SimpleNamespace(config=SMALL))
    return module


def arguments(out: Path, trials: int) -> list[str]:
    return [f"--out={out}", f"--trials={trials}", "--seeds=2", "--stages=2", "--threads=1"]


def study_in(out: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(out / "study.journal"))
    return optuna.load_study(study_name="navigation", storage=optuna.storages.JournalStorage(backend))


def test_a_trial_is_the_mean_of_its_seeds_and_an_interrupted_one_is_continued(tuning, monkeypatch, tmp_path, capsys):
    resume, calls = tuning.resume, []

    def interrupting(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:  # in the second stage, of the second seed
            raise KeyboardInterrupt
        return resume(*given, **options)

    monkeypatch.setattr(tuning, "resume", interrupting)
    with pytest.raises(KeyboardInterrupt):
        tuning.main(arguments(tmp_path, 1))
    (interrupted,) = study_in(tmp_path).trials
    assert interrupted.state == optuna.trial.TrialState.FAIL
    runs = Path(interrupted.user_attrs["runs"])
    assert [load_run(runs / f"seed{seed}").state.iteration for seed in (0, 1)] == [2, 1]

    tuning.main(arguments(tmp_path, 2))
    _, continued, another = study_in(tmp_path).trials
    assert continued.params == interrupted.params
    assert continued.user_attrs["runs"] == str(runs)
    assert [load_run(runs / f"seed{seed}").state.iteration for seed in (0, 1)] == [2, 2]
    assert [load_run(runs / f"seed{seed}").config.seed for seed in (0, 1)] == [0, 1]
    means = [tuning.reached(runs / f"seed{seed}", 1, 2) for seed in (0, 1)]
    assert continued.value == pytest.approx(sum(means) / 2)
    assert continued.intermediate_values.keys() == {1, 2}
    assert another.params != continued.params
    tuning.main(arguments(tmp_path, 1))  # and no trial is continued twice
    assert len({trial.params["inner_lr"] for trial in study_in(tmp_path).trials}) == 3
    assert "next: maml-rl train navigation" in capsys.readouterr().out


class Trial:
    """A trial that is pruned as soon as it may be."""

    def __init__(self) -> None:
        self.reported: list[tuple[float, int]] = []

    def suggest_float(self, _: str, low: float, high: float, *, log: bool) -> float:
        assert log
        return float((low * high) ** 0.5)

    def set_user_attr(self, *_: object) -> None:
        return

    def report(self, value: float, step: int) -> None:
        self.reported.append((value, step))

    def should_prune(self) -> bool:
        return True


def test_a_trial_that_lags_behind_or_diverges_ends_early(tuning, monkeypatch, tmp_path):
    options = argparse.Namespace(config=SMALL, out=tmp_path, seeds=1, stages=2, machine=Machine(threads=1))
    trial = Trial()
    with pytest.raises(optuna.TrialPruned):
        tuning.objective(trial, options)
    ((_, reached),) = trial.reported
    assert reached == 1
    (run,) = tmp_path.glob("*/seed0")
    assert load_run(run).state.iteration == 1

    def diverging(*_: Any, **__: Any) -> None:
        raise NonFiniteError("iteration 2: return is not finite")

    monkeypatch.setattr(tuning, "train", diverging)
    options.out = tmp_path / "other"
    with pytest.raises(optuna.TrialPruned, match="a seed diverged"):
        tuning.objective(Trial(), options)
