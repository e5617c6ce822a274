"""Trackers get what TensorBoard gets, without a network; one that fails costs a line of warning and nothing else."""

import json
import os
import sqlite3
import struct
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from maml_rl.config import PolicyConfig, TrustRegion
from maml_rl.errors import InputError
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs import tracker_options, trackers
from maml_rl.experiments.runs.run_log import Clip
from maml_rl.experiments.runs.tracker_options import NO_TRACKER, Tracking, check_tracker
from maml_rl.experiments.runs.trackers import TRACKER, Tracker, send_file
from maml_rl.experiments.runs.training import resume, train
from maml_rl.machine import Machine
from maml_rl.run import METRICS, load_run

# Trackio reads this once, when it is imported, which only its tracker does.
_TRACKIO = Path(tempfile.mkdtemp(prefix="trackio-"))
os.environ["TRACKIO_DIR"] = str(_TRACKIO)

ONE = Machine(threads=1)
_NAVIGATION = PRESETS["navigation"].config
CONFIG = replace(
    _NAVIGATION,
    iterations=2,
    max_episode_steps=10,
    meta=replace(_NAVIGATION.meta, meta_batch_size=2, episodes=5, step=TrustRegion(cg_iterations=2)),
    network=PolicyConfig(hidden_sizes=(4,)),
)
GIF = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002024401003b")
NAMES = ("wandb", "trackio")


class Seen(NamedTuple):
    """What a tracker has stored of a run."""

    ids: set[str]
    config: dict[str, Any]
    group: str
    steps: list[int]
    scalars: dict[str, list[float]]
    histograms: set[str]
    clips: list[bytes]
    artifacts: dict[str, list[str]]  # files of each, by its type


def records(path: Path) -> Iterator[Any]:
    """Records of wandb's log of an offline run, in LevelDB's format: blocks of 32 KiB, after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def seen_by_wandb(out: Path) -> Seen:
    seen = Seen(set(), {}, "", [], {}, set(), [], {})
    group = ""
    for log in sorted(out.glob("wandb/offline-run-*/*.wandb")):
        for record in records(log):
            kind = record.WhichOneof("record_type")
            if kind == "run" and not seen.ids:
                seen.config.update({one.key: json.loads(one.value_json) for one in record.run.config.update})
            if kind == "run":
                seen.ids.add(record.run.run_id)
                group = record.run.run_group
            elif kind == "history":
                items = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                seen.steps.append(record.history.step.num)
                for name, value in items.items():
                    if isinstance(value, (int, float)) and "." not in name and name[0] != "_":
                        seen.scalars.setdefault(name, []).append(value)
                seen.histograms.update(name.removesuffix(".bins") for name in items if name.endswith(".bins"))
            elif kind == "artifact":
                files = [one.path for one in record.artifact.manifest.contents]
                seen.artifacts.setdefault(record.artifact.type, []).extend(files)
    seen.clips.extend(path.read_bytes() for path in sorted(out.glob("wandb/*/files/media/videos/*.gif")))
    return seen._replace(group=group)


def seen_by_trackio(out: Path) -> Seen:
    (identity,) = json.loads((out / TRACKER).read_text())["trackio"]["id"].split()
    seen = Seen(set(), {}, "", [], {}, set(), [], {})
    with sqlite3.connect(_TRACKIO / "tests.db") as database:

        def rows(query: str) -> list[Any]:
            return database.execute(query, (f"%-{identity}",)).fetchall()

        for key, config in rows("SELECT run_id, config FROM configs WHERE run_name LIKE ?"):
            seen.ids.add(key)
            seen.config.update(json.loads(config))
        for step, content in rows("SELECT step, metrics FROM metrics WHERE run_name LIKE ? ORDER BY id"):
            seen.steps.append(step)
            for name, value in json.loads(content).items():
                if not isinstance(value, dict):
                    seen.scalars.setdefault(name, []).append(value)
                elif value["_type"] == "trackio.histogram":
                    seen.histograms.add(name)
                else:
                    seen.clips.append((_TRACKIO / "media" / value["file_path"]).read_bytes())
        artifacts = database.execute("SELECT name, type FROM artifacts").fetchall()
    seen.artifacts.update({kind: ["report.html"] for name, kind in artifacts if name == f"{out.name}-report"})
    return seen._replace(group=seen.config.get("_Group", ""))


SEEN = {"wandb": seen_by_wandb, "trackio": seen_by_trackio}


def to(name: Any) -> Tracking:
    return Tracking(name, "tests")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def online(monkeypatch):
    """Lets wandb read its variables again, which it does once in a process."""
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    yield
    wandb.teardown()


def clips(_: object) -> Any:
    return lambda run: {"adaptation": Clip(GIF, 1, 1)} if run.state.iteration == 1 else {}


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_has_settings_metrics_histograms_clips_and_the_report_and_a_resumed_run_is_one(tmp_path, name, capfd):
    out = tmp_path / f"tracked-by-{name}-seed7"
    train(CONFIG, out, ONE, clips, to(name))
    resume(out, 3, None, ONE, None, to(name))
    report = tmp_path / "report.html"
    report.write_text("<p>a report</p>")
    assert send_file(to(name), out, CONFIG, report, "report")
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("tracker: ") == 3
    assert "warning" not in printed.err

    seen = SEEN[name](out)
    assert len(seen.ids) == 1
    assert seen.group == f"tracked-by-{name}"
    assert seen.config["env_id"] == CONFIG.env_id
    assert seen.config["meta"]["step"]["max_kl"] == CONFIG.meta.step.max_kl
    assert seen.steps == [1, 2, 3]
    table = [line.split(",") for line in (out / METRICS).read_text().splitlines()]
    for i, column in enumerate(table[0]):
        assert seen.scalars[column] == pytest.approx([float(row[i]) for row in table[1:]], rel=1e-6), column
    assert "tasks/return/after_1_steps" in seen.histograms
    assert seen.clips == [GIF]
    assert seen.artifacts == {"report": ["report.html"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_changes_no_result(tmp_path, name):
    tracked = train(CONFIG, tmp_path / "tracked", ONE, None, to(name))
    alone = train(CONFIG, tmp_path / "alone", ONE, None, NO_TRACKER)
    assert all(value.equal(alone.state.meta[key]) for key, value in tracked.state.meta.items())


def check_survived(out: Path, err: str, *expected: str) -> None:
    """The run has all of its iterations, and there is one line of warning."""
    assert load_run(out).state.iteration == 2
    assert len((out / METRICS).read_text().splitlines()) == 3
    (warning,) = [line for line in err.splitlines() if line.startswith("warning: ")]
    for text in expected:
        assert text in warning


@pytest.mark.usefixtures("online")
def test_a_server_that_cannot_be_reached_costs_a_warning(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(trackers, "_SECONDS", 1.0)
    train(CONFIG, tmp_path / "run", ONE, None, to("wandb"))
    check_survived(tmp_path / "run", capfd.readouterr().err, "the tracker wandb failed", "WANDB_MODE=offline")
    assert not (tmp_path / "run" / TRACKER).exists()


@pytest.mark.usefixtures("online")
def test_no_account_costs_a_warning(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    train(CONFIG, tmp_path / "run", ONE, None, to("wandb"))
    check_survived(tmp_path / "run", capfd.readouterr().err, "the tracker wandb failed", "wandb login")


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_whatever_a_tracker_raises_costs_a_warning(tmp_path, capfd, monkeypatch, failing):
    calls: list[str] = []

    def does(name: str) -> Any:
        def called(*_: Any, **__: Any) -> Any:
            calls.append(name)
            if name == failing:
                raise RuntimeError("the disk\nis full")
            return SimpleNamespace(log=does("log"), project="tests", name="run")

        return called

    module = SimpleNamespace(init=does("init"), finish=does("finish"), Histogram=lambda **_: None)
    monkeypatch.setitem(sys.modules, "trackio", module)
    train(CONFIG, tmp_path / "run", ONE, None, to("trackio"))
    check_survived(tmp_path / "run", capfd.readouterr().err, "the tracker trackio failed", "the disk is full")
    expected = ["init", "log", "log", "finish"]
    assert calls == expected[: expected.index(failing) + 1]  # after it has failed, it is left alone


def test_a_damaged_file_of_the_tracker_costs_a_warning(tmp_path, capfd):
    train(CONFIG, tmp_path / "run", ONE)
    (tmp_path / "run" / TRACKER).write_text("[]")
    resume(tmp_path / "run", 2, None, ONE, None, to("trackio"))
    check_survived(tmp_path / "run", capfd.readouterr().err, "tracker.json is damaged", "remove it")


def test_values_that_a_histogram_cannot_show_are_left_out(tmp_path, capfd):
    import torch

    (tmp_path / "run").mkdir()
    tracker = Tracker(to("trackio"), tmp_path / "run", CONFIG, 1)
    values = torch.tensor([1e19, 1e19 * (1 + 2**-52)], dtype=torch.float64)  # neighbours: no room for bins
    tracker.write({"iteration": 1, "tasks/x": values}, {"iteration": (), "tasks/x": ("csv",)}, 1)
    tracker.close()
    seen = seen_by_trackio(tmp_path / "run")
    assert (seen.steps, seen.histograms) == ([1], set())
    assert "warning" not in capfd.readouterr().err


def test_a_tracker_that_is_not_installed_is_refused_before_anything_begins(monkeypatch):
    monkeypatch.setattr(tracker_options, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs the package trackio: pip install 'maml-rl\[trackio\]'"):
        check_tracker(to("trackio"))
    check_tracker(NO_TRACKER)


def test_the_command_sends_the_report_at_the_end(run_command, tmp_path):
    small = ("--meta.meta-batch-size=2", "--meta.episodes=4", "--max-episode-steps=5", "--network.hidden-sizes=4")
    evaluation = ("--evaluation.tasks=2", "--evaluation.episodes=2", "--evaluation.gradient-steps=1")
    given = ("--tracker=trackio", "--tracker-project=tests", "--out=reported", "--threads=1")
    result = run_command("train", "navigation", "--iterations=1", *small, *evaluation, *given)
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == "report: reported/report.html, and in the tracker"
    assert seen_by_trackio(tmp_path / "reported").artifacts == {"report": ["report.html"]}
    record = json.loads((tmp_path / "reported" / TRACKER).read_text())
    again = run_command("visualize", "reported", "--tracker=trackio", "--tracker-project=other")
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "reported" / TRACKER).read_text()) == record
