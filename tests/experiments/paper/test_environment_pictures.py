"""Pictures of the environments: those that are stored, and what draws them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maml_rl.envs import DEFINITIONS
from maml_rl.experiments.paper import environment_pictures
from maml_rl.machine import Machine
from maml_rl.run import load_run

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / environment_pictures.ENVIRONMENT_PICTURES


def test_stored_pictures_are_small_and_of_environments_that_are_registered():
    stored = {path.name: path.stat().st_size for path in PICTURES.iterdir()}
    assert stored.keys() <= {environment_pictures.picture_of(env_id) for env_id in DEFINITIONS}
    assert max(stored.values()) < 250_000
    assert sum(stored.values()) < 1_000_000


def test_an_environment_with_a_trained_run_is_shown_before_and_after_a_gradient_step(tmp_path):
    run = environment_pictures.run_of("finn2017/Navigation2D-v0", ROOT / "trained")
    assert run is not None
    assert run.config == load_run(ROOT / "trained" / "navigation").config
    environment_pictures.draw_adaptation(run, tmp_path / "clip.webp", Machine(threads=1))
    with Image.open(tmp_path / "clip.webp") as drawn, Image.open(PICTURES / "finn2017-Navigation2D-v0.webp") as stored:
        assert (drawn.n_frames, drawn.size) == (stored.n_frames, stored.size)


@pytest.mark.parametrize("env_id", ["duan2016/TabularMDP-v0", "finn2017/Navigation2D-v0"])
def test_others_are_shown_at_the_start_of_an_episode(env_id):
    (frame,) = environment_pictures.start(f"maml_rl.envs:{env_id}")
    assert frame.dtype == np.uint8
    assert max(frame.shape) <= 240
    assert environment_pictures.draws(env_id)


def test_an_environment_without_a_trained_run_has_none_to_show():
    assert environment_pictures.run_of("rothfuss2019/WalkerDir-v0", ROOT / "trained") is None
