"""Recorded episodes as moving pictures: frames, frames side by side with labels, and files of them.

Only robots need OpenGL; everything else is drawn by NumPy, or was recorded as pictures.
"""

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maml_rl.checkpoint import write_atomically
from maml_rl.envs.batched import TaskEnv, TaskMDP
from maml_rl.envs.mujoco.mdp import MujocoMDP
from maml_rl.envs.mujoco.tracking import TrackingRenderer
from maml_rl.errors import InputError
from maml_rl.experiments.media.labels import counted, steps_label
from maml_rl.experiments.media.recording import Recording
from maml_rl.tasks import make

Frames = NDArray[np.uint8]
"""Pictures `[n, height, width, 3]`, one after the other."""

FRAMES_PER_SECOND = 25  # at most, of simulated time
_FONT_SIZE, _LINE_HEIGHT, _MARGIN = 14, 19, 8  # pixels, of the text above a picture
_INK, _PAPER = "#1c2530", "#ffffff"
_FORMATS = (".gif", ".webp", ".mp4")


class Drawing:
    """Draws the episodes of a recording; use it as a context.

    Args:
        recording: The recording.
        width, height: Size of a picture in pixels.

    Raises:
        InputError: If the recording holds observations, or it holds robots and this machine has no OpenGL; names the
            packages to install.
    """

    def __init__(self, recording: Recording, width: int = 320, height: int = 240) -> None:
        self.recording, self.size = recording, (width, height)
        self._mdp = mdp_of(recording)
        self._robot: TrackingRenderer | None = None
        if recording.kind == "observations" or (self._mdp is not None and type(self._mdp).render is TaskMDP.render):
            raise InputError(f"{recording.env_id} draws no pictures")
        if isinstance(self._mdp, MujocoMDP):
            try:
                self._robot = self._mdp.renderer(width, height)
            except RuntimeError as error:
                raise InputError(str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the resources for drawing."""
        if self._robot is not None:
            self._robot.close()
        if self._mdp is not None:
            self._mdp.close()

    def frames(self, task: int, step: int, times: NDArray[np.int64]) -> Frames:
        """Pictures of one episode.

        Args:
            task: Index of the task.
            step: Number of gradient steps.
            times: Time steps `[n]` to draw; the last picture of an episode stays for those after its end.
        """
        recording = self.recording
        times = np.minimum(times, recording.lengths[step, task])
        if self._robot is not None:
            return np.stack([self._robot.render(recording.motion[step, task, t]) for t in times])
        if self._mdp is None:
            shown, taken = recording.pictures_of(task, step)
            pictures = list(shown[np.searchsorted(taken, times, side="right") - 1])
        else:
            goal = np.asarray(recording.tasks[task])
            pictures = [self._mdp.render(recording.motion[step, task, t], goal) for t in times]
        return np.stack([_fitted(Image.fromarray(picture), self.size) for picture in pictures])


def mdp_of(recording: Recording) -> TaskMDP | None:
    """The MDP whose poses were recorded; None where pictures or observations were."""
    if recording.kind != "poses":
        return None
    env = make(recording.env_id).unwrapped
    if not isinstance(env, TaskEnv):
        raise InputError(f"poses were recorded, but {recording.env_id} has none: remove the recording, to record again")
    return env.mdp


def frame_times(recording: Recording) -> tuple[NDArray[np.int64], float]:
    """Time steps `[n]` to draw of each episode, and how many of them a second of simulated time has."""
    stride = max(1, round(1.0 / (FRAMES_PER_SECOND * recording.seconds_per_step)))
    return np.arange(0, recording.lengths.max() + 1, stride), 1.0 / (stride * recording.seconds_per_step)


def side_by_side(drawing: Drawing, task: int, steps: Sequence[int]) -> Frames:
    """One task's episodes after several numbers of gradient steps side by side, labelled."""
    recording, width = drawing.recording, drawing.size[0]
    times, _ = frame_times(recording)
    rows = max(
        len(_wrapped(_first_line(recording, m, step), width)) for m in range(len(recording.tasks)) for step in steps
    )
    panels = []
    for step in steps:
        named = _wrapped(_first_line(recording, task, step), width)
        lines = (*named, return_label(recording, task, step))
        label = np.asarray(_label(lines, width, rows + 1))
        frames = drawing.frames(task, step, times)
        panels.append(np.concatenate([np.broadcast_to(label, (len(frames), *label.shape)), frames], axis=1))
    return np.concatenate(panels, axis=2)


def _first_line(recording: Recording, task: int, step: int) -> str:
    return f"{recording.task_names[task]}, {steps_label(step)}"


def _wrapped(text: str, width: int) -> list[str]:
    """A text in lines that fit into a width in pixels, broken between words; a word that is too long alone is cut."""
    font, lines = ImageFont.load_default(_FONT_SIZE), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width - 2 * _MARGIN:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def return_label(recording: Recording, task: int, step: int) -> str:
    """Return of a recorded episode, and its length if it ended early."""
    length, horizon = recording.lengths[step, task], recording.rewards.shape[-1]
    ended = "" if length == horizon else f", ended after {counted(int(length), 'step')}"
    return f"return {recording.returns[step, task]:.1f}{ended}"


def write_video(path: Path, frames: Frames, frames_per_second: float, quality: int = 70) -> None:
    """Writes frames as gif, webp or mp4, by the file's suffix; never leaves part of a file.

    Args:
        path: The file.
        frames: Pictures.
        frames_per_second: How fast they are shown.
        quality: Of a webp, from 0 to 100.

    Raises:
        InputError: If the suffix is another one, or mp4 is requested without the extra `video`.
    """
    check_video(path)
    if path.suffix == ".mp4":
        _write_mp4(path, frames, frames_per_second)
        return
    if path.suffix == ".gif":
        content = to_gif(frames, frames_per_second)
    else:
        content = _to_webp(frames, frames_per_second, quality)
    write_atomically(path, content)


def to_gif(frames: Frames, frames_per_second: float) -> bytes:
    """Frames as an animated GIF, which repeats."""
    images = [Image.fromarray(frame) for frame in frames]
    palette = images[len(images) // 2].quantize(64)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    milliseconds = 10 * max(2, round(100 / frames_per_second))  # a gif counts hundredths of a second
    return _animated(images, "GIF", milliseconds)


def _to_webp(frames: Frames, frames_per_second: float, quality: int) -> bytes:
    images = [Image.fromarray(frame) for frame in frames]
    return _animated(images, "WEBP", max(20, round(1000 / frames_per_second)), quality=quality, method=4)


def _animated(images: Sequence[Image.Image], kind: str, milliseconds: int, **options: Any) -> bytes:
    content = io.BytesIO()
    images[0].save(content, kind, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, **options)
    return content.getvalue()


def check_video(path: Path) -> None:
    """Checks that a video can be written to a file.

    Raises:
        InputError: If its suffix is unknown, its directory does not exist, or mp4 needs the extra `video`.
    """
    if path.suffix not in _FORMATS:
        raise InputError(f"--video {path} must end in one of {', '.join(_FORMATS)}")
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {path.parent}: make it, or give another name")
    if path.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as error:
            raise InputError("mp4 needs ffmpeg: pip install 'maml-rl[video]', or give a .webp or .gif") from error


def _write_mp4(path: Path, frames: Frames, frames_per_second: float) -> None:
    import imageio_ffmpeg

    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2  # the codec has no odd sizes
    frames = np.ascontiguousarray(frames[:, :height, :width])
    temporary = path.with_name(f".partial-{path.name}")
    try:
        # Browsers play H.264 with this pixel format; a macro block of 2 keeps the size.
        writer = imageio_ffmpeg.write_frames(
            temporary, (width, height), fps=frames_per_second, codec="libx264", quality=8, macro_block_size=2
        )
        writer.send(None)
        for frame in frames:
            writer.send(frame)
        writer.close()
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _label(lines: Sequence[str], width: int, rows: int) -> Image.Image:
    """Lines of text above a picture, with room for so many."""
    height = _LINE_HEIGHT * rows + 6
    image = Image.new("RGB", (width, height + height % 2), _PAPER)  # mp4 has no odd sizes
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((_MARGIN, 5 + _LINE_HEIGHT * i), line, _INK, ImageFont.load_default(_FONT_SIZE))
    return image


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Frames:
    """A picture as large as fits, in the middle of a white one."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    shape = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
    image = Image.new("RGB", size, _PAPER)
    image.paste(picture.resize(shape, Image.Resampling.LANCZOS), ((size[0] - shape[0]) // 2, (size[1] - shape[1]) // 2))
    return np.asarray(image)
