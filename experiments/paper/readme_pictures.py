"""The pictures of the README, from runs in `trained`: `make pictures`.

A clip of the half-cheetah before and after one gradient step, with the task to run backward and then forward, and a
figure of 2D navigation, with returns on the paper's own 40 tasks next to the paper's.
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
CLIP, FIGURE = "half-cheetah-dir.webp", "navigation.png"
_SIZE = (300, 200)  # pixels of one of two panels
_QUALITY = 45


def draw_clip(recording: Recording, path: Path) -> None:
    """Draws each task's episodes before and after one gradient step, one task after the other."""
    _, frames_per_second = frame_times(recording)
    with Drawing(recording, *_SIZE) as drawing:
        frames = np.concatenate([side_by_side(drawing, m, (0, 1)) for m in range(len(recording.tasks))])
    write_video(path, frames, frames_per_second, _QUALITY)


def draw_readme_pictures(trained: Path = TRAINED, pictures: Path = PICTURES) -> list[Path]:
    """Draws both pictures, and returns where they are."""
    pictures.mkdir(parents=True, exist_ok=True)
    cheetah, navigation = (load_run(trained / name) for name in ("half-cheetah-dir", "navigation"))
    draw_clip(film_held_out(cheetah, cheetah.rl_config.evaluation), pictures / CLIP)
    evaluation = evaluated_run(trained / "navigation", navigation, "paper")
    recording = film_held_out(navigation, navigation.rl_config.evaluation)
    draw_evaluation(evaluation, trained / "navigation", pictures / FIGURE, recording)
    return [pictures / CLIP, pictures / FIGURE]


if __name__ == "__main__":
    for picture in draw_readme_pictures():
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
