"""Clips and histograms in TensorBoard: what is in them, and that they leave the training unchanged."""

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maml_rl.config import PolicyConfig
from maml_rl.errors import InputError
from maml_rl.experiments.media.clips import Clips
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs.training import Watch, resume, train
from maml_rl.learner import AnyLearner
from maml_rl.machine import Machine
from maml_rl.run import METRICS, Run, open_learner

NAVIGATION = PRESETS["navigation"].config
SHRUNK = replace(
    NAVIGATION,
    iterations=4,
    meta=replace(NAVIGATION.meta, meta_batch_size=3, episodes=4),
    network=PolicyConfig(hidden_sizes=(8, 8)),
)


ONE_THREAD = Machine(threads=1)


def every(iterations: int) -> Watch:
    def watch(learner: AnyLearner) -> Clips:
        return Clips(learner, iterations)

    return watch


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A short run of navigation with a clip after every second iteration, interrupted after three and resumed."""
    out = tmp_path_factory.mktemp("filmed") / "run"
    train(replace(SHRUNK, iterations=3), out, ONE_THREAD, every(2))
    return resume(out, 4, machine=ONE_THREAD, watch=every(2)), out


def logged(out: Path) -> EventAccumulator:
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"images": 0, "histograms": 0})
    events.Reload()
    return events


def timeless(out: Path) -> list[dict[str, str]]:
    with (out / METRICS).open(newline="") as file:
        return [{name: text for name, text in row.items() if "time/" not in name} for row in csv.DictReader(file)]


def test_clips_do_not_wait_for_a_row_of_the_log(tmp_path: Path) -> None:
    train(replace(SHRUNK, iterations=3, log_every=2), tmp_path / "run", ONE_THREAD, every(1))
    assert [clip.step for clip in logged(tmp_path / "run").Images("adaptation")] == [1, 2, 3]
    assert [row["iteration"] for row in timeless(tmp_path / "run")] == ["2"]


def test_every_nth_iteration_has_a_moving_clip(filmed: tuple[Run, Path]) -> None:
    clips = logged(filmed[1]).Images("adaptation")
    assert [clip.step for clip in clips] == [2, 4]
    for clip in clips:
        gif = Image.open(io.BytesIO(clip.encoded_image_string))
        assert (gif.format, gif.size, gif.info["loop"]) == ("GIF", (clip.width, clip.height), 0)
        frames = []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("L"), np.int64))
        moving = np.abs(frames[0] - frames[-1]) > 60
        # Two tasks, one above the other, each before and after adaptation: something moves in every quarter.
        for rows in np.split(moving, 2, axis=0):
            for quarter in np.split(rows, 2, axis=1):
                assert quarter.any()


def test_clips_and_histograms_do_not_change_a_single_bit_of_the_training(
    filmed: tuple[Run, Path], tmp_path: Path
) -> None:
    run, out = filmed
    plain = train(SHRUNK, tmp_path / "plain", ONE_THREAD)
    assert logged(tmp_path / "plain").Tags()["images"] == []
    assert all(torch.equal(value, plain.state.meta[name]) for name, value in run.state.meta.items())
    assert (run.state.iteration, run.progress.env_steps) == (plain.state.iteration, plain.progress.env_steps)
    assert timeless(out) == timeless(tmp_path / "plain")


def test_histograms_hold_one_value_for_each_task_with_the_logged_mean(filmed: tuple[Run, Path]) -> None:
    events = logged(filmed[1])
    names = {name.removeprefix("tasks/") for name in events.Tags()["histograms"]}
    assert names == {
        "return/after_0_steps",
        "return/after_1_steps",
        "advantage/deviation_0",
        "advantage/deviation_1",
        "return/relative_spread_0",
        "return/relative_spread_1",
        "baseline/explained_variance_0",
        "baseline/explained_variance_1",
        "baseline/explained_variance_left_out_0",
        "baseline/explained_variance_left_out_1",
        "inner/kl",
        "policy/entropy",
    }
    for name in names:
        histograms, scalars = events.Histograms(f"tasks/{name}"), events.Scalars(name)
        assert [histogram.step for histogram in histograms] == [1, 2, 3, 4]
        for histogram, scalar in zip(histograms, scalars, strict=True):
            assert histogram.histogram_value.num == SHRUNK.meta.meta_batch_size
            assert histogram.histogram_value.sum == pytest.approx(3 * scalar.value, rel=1e-4)
    with (filmed[1] / METRICS).open() as file:
        assert "tasks/" not in file.readline()


def test_a_policy_without_inner_updates_is_shown_as_it_is(tmp_path: Path) -> None:
    config = replace(SHRUNK, iterations=1, meta=replace(SHRUNK.meta, inner_steps=0))
    train(config, tmp_path / "run", ONE_THREAD, every(1))
    (clip,) = logged(tmp_path / "run").Images("adaptation")
    assert clip.width == 320  # one picture in a row


def test_without_opengl_training_continues_after_one_warning(tmp_path: Path) -> None:
    code = """
from dataclasses import replace
from pathlib import Path
from maml_rl.experiments.media.clips import Clips
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs.training import train
from maml_rl.machine import Machine
config = PRESETS["half-cheetah-dir"].config
meta = replace(config.meta, meta_batch_size=2, episodes=2)
train(replace(config, iterations=2, meta=meta), Path("run"), Machine(threads=1), lambda learner: Clips(learner, 1))
"""
    environment = os.environ | {"MUJOCO_GL": "disable"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if "OpenGL" in line]
    assert warning.startswith("no clips for TensorBoard: ")
    assert "libegl1" in warning
    assert [row["iteration"] for row in timeless(tmp_path / "run")] == ["1", "2"]


def test_a_negative_interval_is_refused() -> None:
    with (
        open_learner(SHRUNK, ONE_THREAD) as learner,
        pytest.raises(InputError, match="render_every must be at least 0, got -1"),
    ):
        Clips(learner, -1)
