"""Files that are read: whatever JSON they hold, they are read as what they should be, or refused in one line."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gymnasium.spaces import Box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maml_rl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from maml_rl.config import MetaConfig, PolicyConfig
from maml_rl.errors import InputError
from maml_rl.evaluation import EvaluationConfig
from maml_rl.experiments.media.plots import read_learning_curve, read_log
from maml_rl.experiments.media.supervised_plots import learning_curve
from maml_rl.experiments.paper.figure4 import PathsRecord
from maml_rl.experiments.paper.results_page import _section as results_section
from maml_rl.experiments.paper.sb3_baselines import read_learner
from maml_rl.experiments.runs.adapting import read_task
from maml_rl.experiments.runs.comparison_files import csv_text, read_comparison, stored_runs, table
from maml_rl.experiments.runs.evaluations import read_evaluation
from maml_rl.experiments.runs.provenance import MACHINES, trained_on
from maml_rl.experiments.runs.records import from_record, read_record
from maml_rl.experiments.runs.run import CHECKPOINT, EVALUATION, METRICS, RunConfig, load_config, new_run, save_run
from maml_rl.experiments.runs.run_log import MetricsTable
from maml_rl.experiments.runs.supervised_evaluations import read_evaluation as read_supervised_evaluation
from maml_rl.experiments.runs.supervised_run import load_config as load_supervised_config
from maml_rl.tasks import vectorize

ROOT = Path(__file__).parents[3]
TRAINED, RESULTS = ROOT / "trained", ROOT / "results"
DEEP, LONG = "[" * 100_000, "9" * 5_000
HOSTILE = {
    "nested": DEEP.encode(),
    "nested and closed": (DEEP + "]" * 100_000).encode(),
    "nested objects": ('{"a":' * 100_000).encode(),
    "nested somewhat": ("[" * 500 + "]" * 500).encode(),
    "an integer of many digits": LONG.encode(),
    "a float of many digits": f"{LONG}.0".encode(),
    "a large float": b"1e999",
    "NaN": b"NaN",
    "Infinity": b"[-Infinity]",
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "text": b'"text"',
    "half a character": b'{"env_id": "\\ud800"}',
    "an array": b"[]",
    "an array of null": b"[null]",
    "an object": b"{}",
    "an object of null": b'{"env_id": null, "tasks": null, "methods": null}',
    "not UTF-8": b'{"env_id": "\xff\xfe"}',
    "UTF-16": '{"env_id": "a"}'.encode("utf-16"),
    "NUL": b'{"env_id": "\x00"}',
    "nothing": b"",
    "half": b'{"env_id": "a", ',
}


def refuses(read: Callable[[], object]) -> bool:
    """Whether a file is refused, in one line."""
    try:
        read()
    except InputError as refusal:
        return "\n" not in str(refusal) and len(str(refusal)) < 2_000
    return False


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, of a list the first and the last."""
    yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = list(parts)
    for key, part in inner if isinstance(value, dict) else [*inner[:1], *inner[1:][-1:]]:
        yield from places(part, (*place, key))


def with_value(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A JSON value with another one at a place."""
    if not place:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[place[0]] = with_value(value[place[0]], place[1:], new)
    return changed


def without(value: Any, place: tuple[Any, ...]) -> Any:
    """A JSON value from which an entry was taken."""
    changed = dict(value) if isinstance(value, dict) else list(value)
    if len(place) == 1:
        del changed[place[0]]
    else:
        changed[place[0]] = without(value[place[0]], place[1:])
    return changed


class Kind(NamedTuple):
    """A kind of file with JSON."""

    example: Any
    read: Callable[[Path], Any]  # reads one, and uses what was read


def used_comparison(path: Path) -> None:
    record = read_comparison(path)
    table(record), csv_text(record), results_section([record])
    stored_runs(path)


def used_machines(path: Path) -> None:
    for machine in trained_on(path.parent):
        assert isinstance(machine["processor"], str)
        assert isinstance(machine["cores"], int)


def used_record_of(directory: Path) -> Callable[[Path], None]:
    """Reads a checkpoint whose record is in a JSON file."""
    tensors = load_checkpoint(directory / CHECKPOINT).tensors

    def used(path: Path) -> None:
        save_checkpoint(path.with_suffix(".safetensors"), Checkpoint(tensors, json.loads(path.read_text())))
        load = load_supervised_config if directory.name == "sinusoid" else load_config
        config, progress, *_ = load(path.with_suffix(".safetensors"))
        assert json.loads(json.dumps(asdict(config)))
        assert progress.iteration >= 0

    return used


def read(path: Path) -> Any:
    return json.loads(path.read_text())


NAVIGATION = TRAINED / "navigation-pretrained"
KINDS = {
    "evaluation.json": Kind(read(NAVIGATION / EVALUATION), read_evaluation),
    "evaluation.json of a supervised run": Kind(read(TRAINED / "sinusoid" / EVALUATION), read_supervised_evaluation),
    "evaluation.json of a classification": Kind(
        read(TRAINED / "omniglot-5way-1shot" / EVALUATION), read_supervised_evaluation
    ),
    "machines.json": Kind(read(NAVIGATION / MACHINES), used_machines),
    "comparison.json": Kind(read(RESULTS / "half-cheetah-dir" / "comparison.json"), used_comparison),
    "sb3.json": Kind(read(RESULTS / "half-cheetah-dir" / "sb3-from-scratch.json"), read_learner),
    "paths.json": Kind(
        read(RESULTS / "navigation" / "paths.json") | {"maml": {"run": "a", "paths": [[[[0.0, 1.0]]]]}},
        lambda path: read_record(path, PathsRecord),
    ),
    "the record of a checkpoint": Kind(load_checkpoint(NAVIGATION / CHECKPOINT).record, used_record_of(NAVIGATION)),
    "the record of a supervised checkpoint": Kind(
        load_checkpoint(TRAINED / "sinusoid" / CHECKPOINT).record, used_record_of(TRAINED / "sinusoid")
    ),
}
FILES = [name for name in KINDS if not name.startswith("the record")]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def file_of(name: str, directory: Path) -> Path:
    return directory / (MACHINES if name == "machines.json" else "file.json")


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_is_read(name, tmp_path):
    path = file_of(name, tmp_path)
    path.write_text(json.dumps(KINDS[name].example))
    KINDS[name].read(path)


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_in_one_line(name, content, tmp_path):
    if name == "machines.json" and content == b"[]":
        return  # no machine was noted
    path = file_of(name, tmp_path)
    path.write_bytes(content)
    assert refuses(lambda: KINDS[name].read(path))


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_comparison_counts_as_none(content, tmp_path):
    (tmp_path / "comparison.json").write_bytes(content)
    assert stored_runs(tmp_path / "comparison.json") == set()


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_place_is_read_or_refused_in_one_line(name, tmp_path, data):
    kind, path = KINDS[name], file_of(name, tmp_path)
    place = data.draw(st.sampled_from(list(places(kind.example))))
    changed = with_value(kind.example, place, data.draw(VALUES))
    if place and data.draw(st.booleans()):
        changed = without(kind.example, place)
    path.write_text(json.dumps(changed))
    if not refuses(lambda: kind.read(path)):
        kind.read(path)  # otherwise it raises nothing at all


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("config", "env_id"), 7, "config.env_id should be text, is 7"),
        (("config", "env_id"), None, "config.env_id should be text, is None"),
        (("config", "iterations"), "10", "config.iterations should be an integer, is '10'"),
        (("config", "iterations"), 1.5, "config.iterations should be an integer, is 1.5"),
        (("config", "iterations"), True, "config.iterations should be an integer, is True"),
        (("config", "observe_task"), 1, "config.observe_task should be true or false, is 1"),
        (("config", "meta", "inner_lr"), True, "config.meta.inner_lr should be a number, is True"),
        (("config", "meta", "inner_lr"), -1, "inner_lr must be above 0"),
        (("config", "meta", "inner_objective"), "best", "should be one of reinforce, lvc, is 'best'"),
        (("config", "meta", "trust_region"), [], "config.meta.trust_region should be an object, is []"),
        (("config", "policy", "hidden_sizes"), [8, "8"], "config.policy.hidden_sizes[1] should be an integer, is '8'"),
        (("config", "policy", "hidden_sizes"), 8, "config.policy.hidden_sizes should be a list, is 8"),
        (("progress", "iteration"), -1, "progress.iteration in"),
        (("progress", "seconds"), None, "progress.seconds should be a number, is None"),
        (("progress",), 3, "progress should be an object, is 3"),
        (("config",), "x" * 1000, "config should be an object, is 'xxxx"),
        (("other",), 1, "'other' is unknown"),
    ],
)
def test_a_setting_of_another_type_is_named(place, value, told, tmp_path):
    kind = KINDS["the record of a checkpoint"]
    record = kind.example | {"other": 0} if place == ("other",) else kind.example
    path = tmp_path / "record.json"
    path.write_text(json.dumps(with_value(record, place, value)))
    with pytest.raises(InputError) as refused:
        kind.read(path)
    assert told in str(refused.value)
    assert len(str(refused.value)) < 600


def test_an_integer_is_a_number_and_stays_one():
    read = from_record(RunConfig, {"env_id": "x", "meta": {"inner_lr": 1}, "policy": {"observation_clip": None}})
    assert read == RunConfig("x", meta=MetaConfig(inner_lr=1.0), policy=PolicyConfig(observation_clip=None))


# The log


@pytest.mark.parametrize(
    "content",
    [
        b"iteration,a\n1,2\n\xff,3\n4,5\n",
        b"iteration,a\n1,text\n2,3\n",
        b"iteration,a\n1\n2,3\n",
        b"iteration,a\n1,2,3\n2,3\n",
        b'iteration,a\n1,"' + b"2" * 200_000 + b'"\n3,4\n',
        b"iteration,a\n1,2\n",
        b"iteration,sampling/env_steps\n1,2\n",
    ],
)
def test_a_hostile_log_is_refused_in_one_line(content, tmp_path):
    (tmp_path / METRICS).write_bytes(content)
    assert refuses(lambda: read_learning_curve(tmp_path / METRICS, 1))
    assert refuses(lambda: learning_curve(tmp_path / METRICS))


def test_a_log_that_was_cut_off_has_its_whole_rows(tmp_path):
    (tmp_path / METRICS).write_text("iteration,a\n1,2.5\n2,1e")
    assert read_log(tmp_path / METRICS) == [{"iteration": 1.0, "a": 2.5}]


@pytest.mark.parametrize("number", ["\u00b2", "\u0663\u0664", LONG, "1.5", "", '"', "x"])
def test_a_row_whose_iteration_is_no_number_is_dropped_when_a_run_goes_on(tmp_path, number):
    (tmp_path / METRICS).write_text(f"iteration,a\n1,2\n{number},3\n", encoding="utf-8")
    MetricsTable(tmp_path / METRICS, 2).close()
    assert (tmp_path / METRICS).read_text(encoding="utf-8") == "iteration,a\n1,2\n"


@pytest.mark.parametrize("content", [b"iteration\n\xff\n", b'iteration\n1,"' + b"2" * 200_000 + b"\n"])
def test_a_log_that_cannot_be_read_is_not_written_to(tmp_path, content):
    (tmp_path / METRICS).write_bytes(content)
    assert refuses(lambda: MetricsTable(tmp_path / METRICS, 2))
    assert (tmp_path / METRICS).read_bytes() == content


# What a user types


@pytest.mark.parametrize(
    "text", [DEEP[:50_000], LONG, "NaN", "Infinity", "[1e999]", '"\\ud800"', "null", "{}", '{"a": 1}']
)
def test_a_task_that_cannot_be_is_refused_in_one_line(text):
    with pytest.raises(InputError) as refused:
        read_task(Box(-1.0, 1.0, (1,)), text)
    assert "\n" not in str(refused.value)


# The commands


@pytest.fixture
def run(tmp_path) -> Path:
    """An untrained run, with an evaluation that is current."""
    config = RunConfig(
        "maml_rl.envs:finn2017/Navigation2D-v0",
        iterations=0,
        policy=PolicyConfig((4,), standardise=False),
        evaluation=EvaluationConfig(tasks=2, gradient_steps=1, episodes=2),
    )
    with closing(vectorize(config.env_id, 1)) as envs:
        made = new_run(replace(config, seed=1), envs)
    save_run(tmp_path / "run", made)
    return tmp_path / "run"


READERS = {
    CHECKPOINT: (["evaluate", "run"], ["compare", "run"], ["adapt", "run", "--out=p.zip"], ["visualize", "run"]),
    EVALUATION: (["compare", "run"], ["adapt", "run", "--out=p.zip"], ["visualize", "run"]),
    MACHINES: (["train", "--resume", "run"],),
}


@pytest.mark.parametrize("content", [HOSTILE[n] for n in ("nested", "an integer of many digits", "NaN", "not UTF-8")])
@pytest.mark.parametrize("name", READERS)
def test_every_command_refuses_a_hostile_file_in_one_line(maml_rl, run, name, content):
    for arguments in READERS[name]:
        (run / name).write_bytes(content)
        result = maml_rl(*arguments)
        assert result.code == 2
        assert result.out == ""
        assert result.err.startswith("maml-rl: ")
        assert result.err.count("\n") == 1
        assert str(Path("run") / name) in result.err


NEWER, NO_VERSION = "upgrade maml-rl", "its version should be 1"


@pytest.mark.parametrize(
    ("version", "told"),
    [("2", NEWER), ("12", NEWER), ("2" * 5_000, NEWER)]
    + [(version, NO_VERSION) for version in ("\u00b2", "\u0662", "-1", "1.0", "", "x", "01", "0")],
)
def test_a_version_is_a_number_or_the_file_is_damaged(run, version, told):
    content = (run / CHECKPOINT).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["version"] = version
    changed = json.dumps(header).encode()
    (run / CHECKPOINT).write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
    with pytest.raises(InputError, match=told):
        load_checkpoint(run / CHECKPOINT)


def test_the_files_that_come_with_the_repository_are_read(tmp_path):
    for path in TRAINED.glob("*/evaluation*.json"):
        supervised = load_checkpoint(path.with_name(CHECKPOINT)).record.get("kind") == "supervised"
        (read_supervised_evaluation if supervised else read_evaluation)(path)
        trained_on(path.parent)
        assert read_log(path.with_name(METRICS))
    for path in RESULTS.glob("*/comparison*.json"):
        shutil.copy(path, tmp_path / "comparison.json")
        used_comparison(tmp_path / "comparison.json")
        assert stored_runs(path)
    for path in RESULTS.glob("*/sb3-*.json"):
        read_learner(path)
