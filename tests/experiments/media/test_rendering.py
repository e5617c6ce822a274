"""Frames of recorded episodes, their labels, and the files that they go to."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image, ImageSequence

from maml_rl.errors import InputError
from maml_rl.experiments.media.recording import Kind, Recording
from maml_rl.experiments.media.rendering import Drawing, frame_times, side_by_side, write_video
from maml_rl.experiments.media.sheets import from_sheet, to_sheet

STORED = Path(__file__).parent / "pictures"
ROBOTS = {
    "maml_rl.envs:finn2017/HalfCheetahVel-v0": [1.0],
    "maml_rl.envs:finn2017/AntGoal-v0": [1.0, -1.0],
    "maml_rl.envs:rothfuss2019/WalkerDir-v0": 1,
    "maml_rl.envs:rothfuss2019/HopperRandomParameters-v0": [0.0] * 40,
}


def made_up(env_id: str, motion: np.ndarray, task: object, seconds: float, kind: Kind = "poses") -> Recording:
    """One task with the same motion `[T + 1, P]` after 0 and 1 gradient steps, the second cut in half."""
    steps = len(motion) - 1
    return Recording(
        kind=kind,
        env_id=env_id,
        tasks=[task],
        task_names=["goal velocity 1.00 m/s"],
        task_quantity="task",
        inner_lrs=[0.1],
        episodes=2,
        seed=0,
        iteration=1,
        seconds_per_step=seconds,
        motion=np.stack([motion, motion])[:, None].astype(np.float32),
        rewards=np.where(np.arange(steps) < np.array([[[steps]], [[steps // 2]]]), 0.25, 0.0).astype(np.float32),
        lengths=np.array([[steps], [steps // 2]]),
        mean_returns=np.zeros((2, 1)),
        pictures=[[], []],
    )


def running(env_id: str, task: object, metres: float = 20.0) -> Recording:
    """A robot that slides over the floor in its first pose."""
    batch = gymnasium.make_vec(env_id, 1)
    batch.reset(seed=0)
    poses = np.repeat(batch.unwrapped.poses(), 21, axis=0)
    poses[:, 0] = np.linspace(0, metres, 21)
    return made_up(env_id, poses, task, 0.04)


@pytest.fixture(scope="module")
def opengl() -> None:
    """Skips what needs OpenGL where there is none."""
    try:
        Drawing(running("maml_rl.envs:finn2017/HalfCheetahVel-v0", [1.0]), 16, 16).close()
    except InputError as error:
        pytest.skip(str(error))


def robot(picture: np.ndarray) -> np.ndarray:
    """Places `[n, 2]`, as shares of height and width, where a picture has the robots' brown, pink or purple."""
    red, blue = picture[..., 0].astype(int), picture[..., 2].astype(int)
    return np.argwhere((red - blue > 25) & (red > 40)) / picture.shape[:2]


# Frames


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize(("env_id", "task"), ROBOTS.items())
def test_a_robot_is_in_the_middle_of_every_frame_however_far_it_runs(env_id, task):
    recording = running(env_id, task)
    with Drawing(recording, 160, 120) as drawing:
        frames = drawing.frames(0, 0, frame_times(recording)[0])
    assert frames.shape == (21, 120, 160, 3)
    for frame in frames:
        places = robot(frame)
        assert len(places) > 0.01 * 120 * 160
        assert np.abs(np.median(places, axis=0) - 0.5).max() < 0.25
        # No part of it is cut off.
        assert places.min() > 0.01
        assert places.max() < 0.99


@pytest.mark.usefixtures("opengl")
def test_stripes_on_the_floor_pass_by_once_a_metre():
    recording = running("maml_rl.envs:finn2017/HalfCheetahVel-v0", [1.0], metres=5.0)  # 0.25 m from frame to frame
    with Drawing(recording, 160, 120) as drawing:
        frames = drawing.frames(0, 0, np.arange(20)).astype(int)
    floors = frames[:, -12:]
    for shift in (1, 2, 3):
        assert np.abs(floors[shift:] - floors[:-shift]).mean() > 1.0
    assert np.abs(floors[4:] - floors[:-4]).mean() < 0.2


def test_frames_of_navigation_are_its_own_pictures_and_stay_after_the_end():
    path = np.stack([np.linspace(0, 0.4, 11), np.zeros(11)], axis=1)
    recording = made_up("maml_rl.envs:finn2017/Navigation2D-v0", path, [0.4, 0.0], 0.1)
    mdp = gymnasium.make("maml_rl.envs:finn2017/Navigation2D-v0").unwrapped.mdp
    with Drawing(recording, 240, 240) as drawing:
        whole, cut = (drawing.frames(0, step, np.arange(11)) for step in (0, 1))
    for t in range(11):
        np.testing.assert_array_equal(whole[t], mdp.render(path[t].astype(np.float32), np.array([0.4, 0.0])))
        np.testing.assert_array_equal(cut[t], whole[min(t, 5)])


def test_recorded_pictures_are_shown_at_their_time():
    pictures = [np.full((30, 40, 3), 10 * t, np.uint8) for t in range(11)]
    recording = made_up("anything", np.zeros((11, 0)), 1, 0.1, "pictures")
    sheets = [[to_sheet(pictures, 90)], [to_sheet(pictures[:6], 90)]]
    with Drawing(recording._replace(pictures=sheets), 40, 30) as drawing:
        shown = drawing.frames(0, 1, np.array([0, 3, 5, 9]))
    assert shown.mean((1, 2, 3)) == pytest.approx([0, 30, 50, 50], abs=2)


def test_a_recording_of_observations_cannot_be_drawn():
    with pytest.raises(InputError, match="draws no pictures"):
        Drawing(made_up("anything", np.zeros((11, 2)), 1, 0.1, "observations"))


def test_frames_are_at_most_25_a_second_of_simulated_time():
    for seconds, stride, per_second in ((0.01, 4, 25.0), (0.05, 1, 20.0), (0.02, 2, 25.0)):
        recording = made_up("anything", np.zeros((101, 2)), 1, seconds)
        times, found = frame_times(recording)
        assert times.tolist() == list(range(0, 101, stride))
        assert found == pytest.approx(per_second)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 35])
def test_a_sheet_gives_back_its_pictures(count):
    pictures = [np.full((16, 32, 3), 7 * i, np.uint8) for i in range(count)]
    sheet = to_sheet(pictures, 95)
    np.testing.assert_allclose(from_sheet(sheet, count), pictures, atol=4)
    for content, number in ((sheet[: len(sheet) // 2], count), (b"", count), (sheet, count + 95)):
        with pytest.raises(ValueError, match=r"pictures"):
            from_sheet(content, number)


# Side by side


def labelled() -> np.ndarray:
    path = np.stack([np.linspace(0, 0.4, 11), np.zeros(11)], axis=1)
    recording = made_up("maml_rl.envs:finn2017/Navigation2D-v0", path, [0.4, 0.0], 0.1)
    with Drawing(recording, 320, 120) as drawing:
        return side_by_side(drawing, 0, (0, 1))


def test_labels_show_task_gradient_step_and_return():
    """Stored as a picture that a person has read; another version of the font may move its edges a little."""
    frames = labelled()
    assert frames.shape == (11, 164, 640, 3)
    label = frames[0, :44].astype(float)
    np.testing.assert_array_equal(frames[:, :44], np.broadcast_to(frames[0, :44], (11, 44, 640, 3)))
    stored = np.asarray(Image.open(STORED / "label.png").convert("RGB")).astype(float)
    assert stored.shape == label.shape
    assert np.abs(label - stored).mean() < 2.0
    # The tolerance is less than a changed word makes: halves differ by their second half only.
    assert np.abs(label[:, :320] - label[:, 320:]).mean() > 8.0


# Files


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames of a video and seconds from one to the next."""
    if path.suffix == ".mp4":
        ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
        command = [ffmpeg, "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        done = subprocess.run(command, capture_output=True, check=True)
        described = re.search(r", (\d+)x(\d+)[ ,].* (\d+) fps", done.stderr.decode())
        width, height, per_second = map(int, described.groups())
        return list(np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)), 1 / per_second
    with Image.open(path) as file:
        images = [(np.asarray(image.convert("RGB")), image.info["duration"]) for image in ImageSequence.Iterator(file)]
    return [image for image, _ in images], images[0][1] / 1000


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("ending", [".gif", ".webp", ".mp4"])
def test_a_video_has_the_robots_in_every_frame_and_the_label_above(tmp_path, ending):
    if ending == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
    recording = running("maml_rl.envs:finn2017/HalfCheetahVel-v0", [1.0], metres=6.6)  # no two frames are alike
    with Drawing(recording, 160, 120) as drawing:
        drawn = side_by_side(drawing, 0, (0, 1))
    write_video(tmp_path / f"video{ending}", drawn, frame_times(recording)[1])
    assert [path.name for path in tmp_path.iterdir()] == [f"video{ending}"]
    frames, seconds = frames_of(tmp_path / f"video{ending}")
    assert len(frames) == 21
    assert seconds == pytest.approx(0.04, rel=0.02)
    for frame, original in zip(frames, drawn, strict=True):
        assert frame.shape == (184, 320, 3)
        for panel in (frame[64:, :160], frame[64:, 160:]):
            assert len(robot(panel)) > 0.01 * 120 * 160
        assert np.abs(frame[:64].astype(float) - original[:64]).mean() < 6.0


def test_a_file_that_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch):
    frames = np.zeros((2, 20, 20, 3), np.uint8)
    with pytest.raises(InputError, match=r"must end in one of \.gif, \.webp, \.mp4"):
        write_video(tmp_path / "video.avi", frames, 25.0)
    with pytest.raises(InputError, match="there is no directory"):
        write_video(tmp_path / "no" / "video.gif", frames, 25.0)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r"pip install 'maml-rl\[video\]'"):
        write_video(tmp_path / "video.mp4", frames, 25.0)
    assert list(tmp_path.iterdir()) == []


def test_without_opengl_one_line_names_the_packages():
    """In a separate interpreter, since MuJoCo chooses its OpenGL when it is imported."""
    code = """
        import maml_rl.envs, gymnasium
        mdp = gymnasium.make("maml_rl.envs:finn2017/HalfCheetahVel-v0").unwrapped.mdp
        try:
            mdp.renderer(32, 32)
        except RuntimeError as error:
            print(error)
    """
    environment = {**os.environ, "MUJOCO_GL": "disabled"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.count("\n") == 1
    assert "apt install libegl1 libgl1-mesa-dri libopengl0" in done.stdout
    assert done.stderr == ""


if __name__ == "__main__":  # stores the label again, for a person to check
    STORED.mkdir(exist_ok=True)
    Image.fromarray(labelled()[0, :44]).save(STORED / "label.png")
