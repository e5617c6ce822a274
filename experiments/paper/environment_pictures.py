"""Pictures of the environments, for their reference pages: `make pictures`.

If a run in `trained` was trained on an environment, its picture is a clip of an episode before and after one gradient
step; otherwise it is the start of an episode. Environments that do not draw have none.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

from maml_rl.config import RLConfig
from maml_rl.envs import DEFINITIONS
from maml_rl.envs.batched import TaskMDP
from maml_rl.experiments.media.filming import film_held_out
from maml_rl.experiments.media.rendering import Drawing, Frames, frame_times, side_by_side, write_video
from maml_rl.experiments.paper.readme_pictures import PICTURES, TRAINED
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.run import Run, load_run

ENVIRONMENT_PICTURES = PICTURES / "environments"
_SIZE = (240, 160)  # pixels of one panel
_QUALITY = 40
_STRIDE = 2  # of the frames that a video would have


def picture_of(env_id: str) -> str:
    """Name of the picture of a registered environment."""
    return f"{env_id.replace('/', '-')}.webp"


def start(env_id: str) -> Frames:
    """The first picture of an episode, `[1, height, width, 3]`."""
    envs: Any = gymnasium.make_vec(env_id, num_envs=1, render_mode="rgb_array")
    envs.reset(seed=0)
    (frame,) = envs.render()
    envs.close()
    image = Image.fromarray(frame)
    image.thumbnail(_SIZE)
    return np.asarray(image)[None]


def draws(env_id: str) -> bool:
    """Whether the environment can be drawn."""
    envs: Any = gymnasium.make_vec(env_id, num_envs=1)
    drawn = type(envs.mdp).render is not TaskMDP.render
    envs.close()
    return drawn


def run_of(env_id: str, trained: Path) -> Run | None:
    """The first of the runs that were trained on an environment, without the package's name in its id."""
    for path in sorted(trained.iterdir()):
        if (path / "config.json").exists():
            run = load_run(path)
            if isinstance(run.config, RLConfig) and run.config.env_id.partition(":")[2] == env_id:
                return run
    return None


def draw_adaptation(run: Run, path: Path, machine: Machine = THIS_MACHINE) -> None:
    """Draws an episode before and after one gradient step, on the last of two tasks."""
    recording = film_held_out(run, replace(run.rl_config.evaluation, gradient_steps=1), 2, machine)
    _, frames_per_second = frame_times(recording)
    with Drawing(recording, *_SIZE) as drawing:
        frames = side_by_side(drawing, len(recording.tasks) - 1, (0, 1))[::_STRIDE]
    write_video(path, frames, frames_per_second / _STRIDE, _QUALITY)


def draw_environment_pictures(trained: Path = TRAINED, pictures: Path = ENVIRONMENT_PICTURES) -> list[Path]:
    """Draws all of them, and returns where they are."""
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = []
    for env_id in filter(draws, DEFINITIONS):
        path, run = pictures / picture_of(env_id), run_of(env_id, trained)
        if run is None:
            write_video(path, start(env_id), 1.0, 2 * _QUALITY)
        else:
            draw_adaptation(run, path)
        drawn.append(path)
    return drawn


if __name__ == "__main__":
    for picture in draw_environment_pictures():
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
