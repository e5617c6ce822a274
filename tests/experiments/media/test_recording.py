"""Recordings: what is in them, their files, and what makes them."""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.errors import InputError
from maml_rl.experiments.media import filming
from maml_rl.experiments.media.filming import film, film_held_out, spread
from maml_rl.experiments.media.recording import (
    RECORDING,
    Recording,
    content_digest,
    in_the_plane,
    load_recording,
    save_recording,
)
from maml_rl.experiments.runs.adapting import adapt_run
from maml_rl.experiments.runs.evaluating import evaluate
from maml_rl.experiments.runs.training import train
from maml_rl.machine import Machine
from maml_rl.reinforcement import make_envs
from maml_rl.run import load_run
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.tasks import evaluation_tasks

ONE_THREAD = Machine(threads=1)
NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
SMALL = RLConfig(
    env_id=NAVIGATION,
    iterations=1,
    meta=RLMeta(meta_batch_size=2, episodes=3),
    network=PolicyConfig(hidden_sizes=(8,)),
    evaluation=RLEvaluation(tasks=6, gradient_steps=2, episodes=3, seed=4),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Callable[..., Path]:
    """Trains small runs, each environment's once. No test changes their directories."""
    runs: dict[str, Path] = {}

    def run(env_id: str = NAVIGATION) -> Path:
        if env_id not in runs:
            runs[env_id] = tmp_path_factory.mktemp("run") / "run"
            train(replace(SMALL, env_id=env_id), runs[env_id], Machine(threads=1, processes=2, start_method="fork"))
        return runs[env_id]

    return run


def recording_on(directory: Path, count: int = 3) -> Recording:
    """The first of the held-out tasks, recorded."""
    run = load_run(directory)
    with run.open_rl(Machine(threads=1, processes=1, start_method="fork"), SMALL.evaluation.episodes) as learner:
        tasks = evaluation_tasks(learner.task_space, 6, 4)[:count]
        return film(learner, run.state, tasks, run.rl_config.evaluation)


@pytest.fixture(scope="module")
def recording(trained) -> Recording:
    return recording_on(trained())


# What is recorded


def test_the_recorded_motion_explains_the_recorded_rewards(recording):
    """Navigation pays minus the distance from the goal after each step."""
    assert recording.motion.shape == (3, 3, 101, 2)
    for step, task in np.ndindex(3, 3):
        path = recording.episode(task, step)
        distances = np.linalg.norm(path[1:] - recording.tasks[task], axis=1)
        np.testing.assert_allclose(recording.rewards[step, task, : len(distances)], -distances, atol=1e-6)
        assert recording.returns[step, task] == pytest.approx(-distances.sum(), rel=1e-5)


def test_a_robots_poses_are_those_of_its_environment(trained):
    """Actions are not recorded, but the first pose follows from the seed of the reset, by Gymnasium alone."""
    directory = trained("maml_rl.envs:finn2017/HalfCheetahVel-v0")
    recording = recording_on(directory, 2)
    assert recording.kind == "poses"
    assert recording.motion.shape == (3, 2, 201, 9)
    env = gymnasium.make("maml_rl.envs:finn2017/HalfCheetahVel-v0")
    for task in range(2):
        (seed,) = Draw(4, Phase.RECORDING).integers(Purpose.RESETS, 1, task)
        observation, _ = env.reset(seed=seed)
        # qpos without x, then velocities; x is the torso's, which the observation ends without
        np.testing.assert_allclose(recording.motion[0, task, 0, 1:], observation[:8], atol=1e-6)
    speed = np.diff(recording.motion[0, :, :, 0]) / recording.seconds_per_step
    goals = np.ravel(recording.tasks)
    costs = -recording.rewards[0].mean(1) - np.abs(speed.mean(1) - goals)
    assert (costs > -0.1).all()  # the reward is no better than the speed of the recorded motion allows


def test_episodes_of_a_task_begin_alike_and_differ_by_the_policy_only(recording):
    np.testing.assert_array_equal(recording.motion[:, :, 0], np.broadcast_to(recording.motion[0, :, 0], (3, 3, 2)))
    assert not np.array_equal(recording.motion[0], recording.motion[1])
    first_moves = recording.motion[:, :, 1]  # the same noise on means that one gradient step has changed a little
    assert np.abs(first_moves[0] - first_moves[1]).max() < 0.05


def test_recording_a_run_twice_gives_the_same_recording(trained, recording):
    again = recording_on(trained())
    for name in ("motion", "rewards", "lengths", "mean_returns"):
        np.testing.assert_array_equal(getattr(again, name), getattr(recording, name))


def test_some_tasks_of_an_evaluation_are_recorded_as_the_evaluation_adapts_to_them(trained):
    """Equal but for rounding, which the number of tasks in a product of matrices may change."""
    run, evaluation = load_run(trained()), evaluate(trained(), machine=ONE_THREAD)
    settings = run.rl_config.evaluation
    with run.open_rl(ONE_THREAD) as learner:
        chosen = evaluation_tasks(learner.task_space, settings.tasks, settings.seed)[1:5:3]
        recorded = film(learner, run.state, chosen, settings, indices=[1, 4])
        at_other_places = film(learner, run.state, chosen, settings)
    np.testing.assert_allclose(recorded.mean_returns, evaluation.curves[0].values[:, [1, 4]], rtol=1e-5)
    assert not np.allclose(at_other_places.mean_returns, recorded.mean_returns, rtol=1e-3)
    assert not np.array_equal(at_other_places.motion[0], recorded.motion[0])
    assert recorded.inner_lrs == [0.1, 0.05]
    few = film_held_out(run, settings, 4, ONE_THREAD)
    assert few.tasks == list(evaluation.curves[0].tasks[:4])
    np.testing.assert_allclose(few.mean_returns, evaluation.curves[0].values[:, :4], rtol=1e-5)


def test_an_adaptation_records_its_task(trained):
    adapted = adapt_run(trained(), "0.3,-0.2", machine=ONE_THREAD, extras=["recording"])
    assert adapted.recording.tasks == [pytest.approx([0.3, -0.2])]
    assert adapted.recording.task_names == ["goal (0.30, -0.20)"]
    np.testing.assert_allclose(adapted.recording.mean_returns[:, 0], adapted.mean_return)


def test_tasks_are_chosen_from_the_lowest_to_the_highest_and_never_twice():
    velocities = [np.array([value], np.float32) for value in (1.5, 0.1, 0.7, 1.9, 0.3)]
    assert spread(velocities, 3) == [1, 2, 3]
    assert spread(velocities, 9) == [1, 4, 2, 0, 3]
    assert spread([np.int64(i % 2) for i in range(10)], 4) == [0, 1]
    assert spread(["b", "a", "b"], 2) == [0, 1]  # not numbers: in their order
    goals = [np.array(goal) for goal in ([0, 1], [1, 0], [0, 1], [2, 2])]
    assert spread(goals, 2) == [0, 1]
    assert spread([{"a": 1}, {"a": 1}, {"a": 2}], 4) == [0, 2]
    assert spread([2.0, None, 1], 3) == [0, 1, 2]
    assert spread([[1.0, "a"], [[1.0], (2,)], [[1.0], [2]]], 3) == [0, 1]  # a list is shown as a tuple is
    assert spread([2.5, 1, True, 0.25], 2) == [3, 0]


# Third-party environments


@pytest.fixture
def foreign(monkeypatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "environments")


@pytest.mark.usefixtures("foreign")
def test_an_environment_that_draws_is_recorded_as_pictures(trained):
    recording = recording_on(trained("drawing_environments:DotForTests-v0"))
    assert recording.kind == "pictures"
    assert recording.seconds_per_step == pytest.approx(0.1)
    for task in range(3):
        ends_early = recording.tasks[task][0] > 0.5
        length = 5 if ends_early else 9
        assert recording.lengths[:, task].tolist() == [length] * 3
        pictures, times = recording.pictures_of(task, 1)
        assert times.tolist() == list(range(length + 1))
        assert pictures.shape == (length + 1, 120, 240, 3)
        for time, picture in enumerate(pictures):
            red = np.argwhere(picture[..., 1] < 128)
            assert red[:, 1].mean() / 240 == pytest.approx((40 * time + 20) / 400, abs=0.01)
    assert len({recording.tasks[task][0] > 0.5 for task in range(3)}) == 2  # both kinds were there


@pytest.mark.usefixtures("foreign")
def test_an_environment_that_cannot_draw_here_is_recorded_as_observations(trained, capsys):
    recording = recording_on(trained("drawing_environments:BrokenDotForTests-v0"), 1)
    assert recording.kind == "observations"
    assert "cannot draw: the display is on fire\n" in capsys.readouterr().err
    np.testing.assert_array_equal(recording.episode(0, 0)[1:, 0], np.arange(1, recording.lengths[0, 0] + 1))


@pytest.mark.usefixtures("foreign")
def test_an_environment_that_ends_early_and_never_draws_is_recorded_as_observations(trained):
    recording = recording_on(trained("plain_environments:WalkForTests-v0"))
    assert recording.kind == "observations"
    episode = recording.episode(0, 0)
    np.testing.assert_array_equal(episode[:, 1], np.arange(recording.lengths[0, 0] + 1))


def test_a_recording_uses_the_machine_settings_that_are_given(trained, monkeypatch):
    used = []

    def make_noted(config, num_envs, machine, **settings):
        used.append(machine)
        return make_envs(config, num_envs, machine, **settings)

    monkeypatch.setattr(filming, "make_envs", make_noted)
    machine = Machine(threads=1, processes=1, start_method="fork", report_hang_after=5.0)
    film_held_out(load_run(trained()), SMALL.evaluation, 2, machine)
    assert used == [replace(machine, processes=2)]


# Files


def test_a_file_gives_back_what_was_saved_and_is_small(recording, tmp_path):
    save_recording(tmp_path / "r.npz", recording)
    again = load_recording(tmp_path / "r.npz")
    for ours, theirs in zip(recording, again, strict=True):
        np.testing.assert_equal(theirs, ours)
    assert (tmp_path / "r.npz").stat().st_size < 20_000


def archive(**arrays: object) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def changed(recording: Recording, path: Path, **changes: object) -> bytes:
    """The file of a recording with other arrays, or with other values in its record, and their checksum."""
    save_recording(path, recording)
    with np.load(path) as file:
        arrays = dict(file)
    record = json.loads(str(arrays["record"]))
    record |= {name: value for name, value in changes.items() if name not in arrays}
    arrays |= {name: value for name, value in changes.items() if name in arrays}
    text, content = json.dumps(record), {n: a for n, a in arrays.items() if n not in ("record", "sha256")}
    return archive(record=np.array(text), sha256=np.array(content_digest(text, content)), **content)


def test_a_damaged_file_is_refused_in_one_line(recording, tmp_path):
    path = tmp_path / "r.npz"
    whole = changed(recording, path)
    np.save(array := io.BytesIO(), np.zeros(3))
    contents = {
        "empty": b"",
        "text": b"no archive",
        "cut": whole[: len(whole) // 2],
        "another archive": archive(a=np.zeros(3)),
        "an array": array.getvalue(),
        "objects": archive(record=np.array([{"a": 1}], dtype=object)),
        "another format": changed(recording, path, format="something"),
        "no number": changed(recording, path, motion=np.full_like(recording.motion, np.nan)),
        "another shape": changed(recording, path, rewards=recording.rewards[:, :2]),
        "too long": changed(recording, path, lengths=recording.lengths + 100),
        "other tasks": changed(recording, path, tasks=[[0.1, 0.2]]),
        "another kind": changed(recording, path, kind="pictures"),
        "no kind": changed(recording, path, kind="smells"),
        "unknown": changed(recording, path, colour="blue"),
    }
    for name, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"remove it, to record again") as refusal:
            load_recording(path)
        assert "\n" not in str(refusal.value), name
        assert str(path) in str(refusal.value), name


def read_back(path: Path) -> Recording | None:
    """The recording in a file, or None if it is refused, in one line."""
    with contextlib.suppress(InputError):
        return load_recording(path)
    with pytest.raises(InputError, match=r"^[^\n]+$"):
        load_recording(path)
    return None


def unchanged(path: Path, recording: Recording) -> bool:
    """Whether a file gives back a recording, bit for bit; False if it is refused."""
    if (again := read_back(path)) is None:
        return False
    for ours, theirs in zip(recording, again, strict=True):
        np.testing.assert_equal(theirs, ours)
    return True


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_with_a_flipped_bit_is_refused_or_gives_back_the_same(recording, tmp_path, compressed):
    path = tmp_path / "r.npz"
    save_recording(path, recording)
    whole = path.read_bytes() if compressed else changed(recording, path)
    same = 0
    for place in np.random.default_rng(0).integers(8 * len(whole), size=400):
        content = bytearray(whole)
        content[place // 8] ^= 1 << (place % 8)
        path.write_bytes(content)
        same += unchanged(path, recording)
    assert same < 200  # only what says when and how a part was packed


@pytest.mark.parametrize("name", ["motion", "rewards", "lengths", "mean_returns", "pictures", "picture_sizes"])
def test_an_array_that_does_not_match_the_checksum_is_refused(recording, tmp_path, name):
    path = tmp_path / "r.npz"
    save_recording(path, recording)
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name] = arrays[name] + 1 if arrays[name].size else np.zeros(1, arrays[name].dtype)
    path.write_bytes(archive(**arrays))
    with pytest.raises(InputError, match="does not match its checksum"):
        load_recording(path)


@pytest.mark.parametrize("version", ["\u00b2", "2\u0663", None, True, 1.5, [1], "01", 0, -3])
def test_a_version_that_is_not_a_number_is_refused(recording, tmp_path, version):
    (tmp_path / "r.npz").write_bytes(changed(recording, tmp_path / "r.npz", version=version))
    with pytest.raises(InputError, match="its version should be 1"):
        load_recording(tmp_path / "r.npz")


HOSTILE = [None, True, -1, 10**40, 1.5, "text", [], [[]], {}, [None], ["1", 2]]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("name", [n for n in Recording._fields if n not in ("motion", "rewards", "lengths")])
def test_a_record_with_any_other_value_is_refused_or_read(recording, tmp_path, name, value):
    if name in ("mean_returns", "pictures"):
        value = np.array([0.0]) if value is None else np.array(str(value))
    (tmp_path / "r.npz").write_bytes(changed(recording, tmp_path / "r.npz", **{name: value}))
    if (read := read_back(tmp_path / "r.npz")) is not None:
        assert getattr(read, name) == value  # of the field's own type
        assert in_the_plane(read) in (True, False)


def test_a_file_of_a_newer_version_says_so(recording, tmp_path):
    (tmp_path / "r.npz").write_bytes(changed(recording, tmp_path / "r.npz", version=2))
    with pytest.raises(InputError, match="upgrade maml-rl"):
        load_recording(tmp_path / "r.npz")
    with pytest.raises(InputError, match="there is no recording at"):
        load_recording(tmp_path / "none.npz")


# The commands


def test_the_commands_record_on_request_only(trained, tmp_path, run_command):
    def command(*arguments: object) -> str:
        result = run_command(*arguments, "--threads=1")
        assert result.code == 0, result.err
        return result.out

    assert "recording" not in command("evaluate", trained(), "--out", tmp_path)
    assert not (tmp_path / RECORDING).exists()
    assert str(tmp_path / RECORDING) in command("evaluate", trained(), "--out", tmp_path, "--record")
    assert len(load_recording(tmp_path / RECORDING).tasks) == 4

    run = tmp_path / "run"
    train(SMALL, run, ONE_THREAD)
    out = command("adapt", run, "--task=0.3,-0.2", "--gradient-steps=1", "--out", tmp_path / "p.zip", "--record")
    assert str(run / RECORDING) in out
    adapted = load_recording(run / RECORDING)
    assert adapted.gradient_steps == 1
    assert adapted.tasks == [pytest.approx([0.3, -0.2])]
