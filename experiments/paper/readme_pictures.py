"""The pictures of the README, from runs in `trained`: `make pictures`.

Clips of the half-cheetah before and after one gradient step, with the task to run backward and then forward, and with
motors that turn the wrong way; and a figure of 2D navigation, with returns on the paper's own 40 tasks next to the
paper's.
"""

from pathlib import Path

import numpy as np

from maml_rl.experiments.media.filming import film_held_out
from maml_rl.experiments.media.plots import draw_evaluation
from maml_rl.experiments.media.recording import Recording
from maml_rl.experiments.media.rendering import Drawing, frame_times, side_by_side, write_video
from maml_rl.experiments.runs.comparison import evaluated_run
from maml_rl.run import load_run

TRAINED, PICTURES = Path("trained"), Path("docs/pictures")
CLIP, GAIN_CLIP, FIGURE = "half-cheetah-dir.webp", "half-cheetah-motor-gain.webp", "navigation.png"
_GAIN = np.array([-0.9], np.float32)
_SIZE = (300, 200)  # pixels of one of two panels
_QUALITY = 45
_MOST_FRAMES = 100  # of a task


def draw_clip(recording: Recording, path: Path) -> None:
    """Draws each task's episodes before and after one gradient step, one task after the other."""
    _, frames_per_second = frame_times(recording)
    with Drawing(recording, *_SIZE) as drawing:
        shown = (side_by_side(drawing, m, (0, 1)) for m in range(len(recording.tasks)))
        frames = np.concatenate([of_task[:_MOST_FRAMES] for of_task in shown])
    write_video(path, frames, frames_per_second, _QUALITY)


def draw_readme_pictures(trained: Path = TRAINED, pictures: Path = PICTURES) -> list[Path]:
    """Draws all pictures, and returns where they are."""
    pictures.mkdir(parents=True, exist_ok=True)
    cheetah, navigation = (load_run(trained / name) for name in ("half-cheetah-dir", "navigation"))
    draw_clip(film_held_out(cheetah, cheetah.rl_config.evaluation), pictures / CLIP)
    gain = load_run(trained / "half-cheetah-motor-gain-cavia")
    draw_clip(film_held_out(gain, gain.rl_config.evaluation, 1, tasks=[_GAIN]), pictures / GAIN_CLIP)
    evaluation = evaluated_run(trained / "navigation", navigation, "paper")
    recording = film_held_out(navigation, navigation.rl_config.evaluation)
    draw_evaluation(evaluation, trained / "navigation", pictures / FIGURE, recording)
    return [pictures / name for name in (CLIP, GAIN_CLIP, FIGURE)]


if __name__ == "__main__":
    for picture in draw_readme_pictures():
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
