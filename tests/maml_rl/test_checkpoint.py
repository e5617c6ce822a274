"""Checkpoints: what is written is read, what is not ours is refused in one line, and nothing is half written."""

import json
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from maml_rl.checkpoint import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_VERSION,
    Checkpoint,
    NamedArray,
    digest,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)
from maml_rl.errors import InputError

RECORD = {"config": {"inner_lr": 0.1, "hidden_sizes": [100, 100], "clip": None, "name": 'ä "quoted"'}, "iteration": 7}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight_0": torch.randn(5, 3, generator=generator),
        "bias_0": torch.randn(5, generator=generator),
        "double": torch.randn(4, generator=generator, dtype=torch.float64),
        "count": torch.arange(3),
        "scalar": torch.tensor(0.1),
    }


def refused(path: Path) -> str:
    """Message with which a file is refused: one line that names it."""
    with pytest.raises(InputError) as raised:
        load_checkpoint(path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, Checkpoint(tensors(), RECORD))
    return path


def test_tensors_and_record_are_loaded_bit_for_bit(path):
    loaded = load_checkpoint(path)
    assert loaded.record == RECORD
    assert loaded.tensors.keys() == tensors().keys()
    for name, value in tensors().items():
        assert loaded.tensors[name].dtype == value.dtype
        assert torch.equal(loaded.tensors[name], value)


def test_numbers_of_the_record_keep_every_digit(tmp_path):
    record = {"seconds": 0.1 + 0.2, "small": 1e-300, "steps": 2**53 + 1}
    save_checkpoint(tmp_path / "c", Checkpoint({}, record))
    assert load_checkpoint(tmp_path / "c").record == record


def test_tensors_that_are_not_contiguous_are_kept(tmp_path):
    value = torch.arange(12.0).reshape(3, 4)
    save_checkpoint(tmp_path / "c", Checkpoint({"transposed": value.T, "expanded": torch.ones(1).expand(4)}, {}))
    loaded = load_checkpoint(tmp_path / "c").tensors
    assert torch.equal(loaded["transposed"], value.T)
    assert torch.equal(loaded["expanded"], torch.ones(4))


def test_the_file_says_what_it_is(path):
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    metadata = json.loads(header)["__metadata__"]
    assert metadata["format"] == CHECKPOINT_FORMAT
    assert metadata["version"] == str(CHECKPOINT_VERSION)


def test_saving_again_replaces_the_old_checkpoint_and_leaves_nothing_else(path):
    save_checkpoint(path, Checkpoint({"other": torch.ones(2)}, {"iteration": 8}))
    loaded = load_checkpoint(path)
    assert loaded.record == {"iteration": 8}
    assert list(loaded.tensors) == ["other"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kept", [0, 4, 8, 40, 0.5, -1])
def test_a_truncated_file_is_refused(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert "truncated or damaged" in refused(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_safetensors_file_of_someone_else_is_refused(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(3)}, path, metadata)
    assert "not a maml-rl checkpoint" in refused(path)


@pytest.mark.parametrize("text", ["hello\n", "{}", "iteration,return\n1,2\n" * 100])
def test_a_text_file_is_refused(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    refused(path)


NEWER, NO_VERSION = "upgrade maml-rl", "its version should be 1"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2", NEWER), ("12", NEWER), ("2" * 5_000, NEWER)]
    + [(version, NO_VERSION) for version in ("\u00b2", "\u0662", "-1", "1.0", "", "x", "01", "0")],
    ids=lambda text: text[:10],
)
def test_an_unknown_version_is_refused(tmp_path, version, expected):
    path = tmp_path / "checkpoint.safetensors"
    metadata = {"format": CHECKPOINT_FORMAT, "version": version, "record": "{}"}
    save_file({"weight": torch.ones(3)}, path, metadata)
    message = refused(path)
    assert expected in message
    assert ("newer" in message) == (expected == NEWER)
    assert len(message) < 400


def test_a_missing_file_or_a_directory_is_refused(tmp_path):
    assert "no checkpoint" in refused(tmp_path / "absent" / "checkpoint.safetensors")
    assert "no checkpoint" in refused(tmp_path)


def same(loaded: Checkpoint) -> bool:
    expected = tensors()
    return (
        loaded.record == RECORD
        and loaded.tensors.keys() == expected.keys()
        and all(loaded.tensors[name].dtype == value.dtype for name, value in expected.items())
        and all(torch.equal(loaded.tensors[name], value) for name, value in expected.items())
    )


def test_a_flipped_bit_anywhere_is_refused(path):
    content, generator = path.read_bytes(), random.Random(0)
    size = 8 + int.from_bytes(content[:8], "little")
    turned = [(place, generator.randrange(8)) for place in range(size)]  # of the header a bit of every byte
    turned += [(place, bit) for place in range(size, len(content)) for bit in range(8)]  # of the tensors every bit
    silent = 0
    for place, bit in turned:
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            loaded = load_checkpoint(path)
        except InputError:
            continue
        assert same(loaded), (place, bit)
        silent += 1
    assert silent == 0  # today; a bit that means nothing would be no fault


@pytest.mark.parametrize("change", ["value", "name", "type", "shape", "record", "no digest"])
def test_content_that_does_not_match_its_digest_is_refused(path, change):
    with safe_open(path, framework="pt") as file:
        metadata, values = file.metadata(), {name: file.get_tensor(name) for name in tensors()}
    if change == "value":
        values["count"][1] = 7
    elif change == "name":
        values["other"] = values.pop("count")
    elif change == "type":
        values["count"] = values["count"].view(torch.float64)
    elif change == "shape":
        values["weight_0"] = values["weight_0"].reshape(3, 5)
    elif change == "record":
        metadata["record"] = metadata["record"].replace("0.1", "0.2")
    else:
        del metadata["sha256"]
    save_file(values, path, metadata)
    assert "does not match its checksum" in refused(path)


def test_the_digest_does_not_depend_on_the_order_of_tensors():
    arrays = [NamedArray("a", "int8", (2,), b"ab"), NamedArray("b", "int8", (1,), b"c")]
    assert digest("{}", arrays) == digest("{}", arrays[::-1])
    moved = [NamedArray("a", "int8", (1,), b"a"), NamedArray("b", "int8", (2,), b"bc")]
    assert digest("{}", arrays) != digest("{}", moved)


def test_types_that_numpy_does_not_have_are_stored_too(tmp_path):
    value = torch.arange(4.0).to(torch.bfloat16).reshape(2, 2).requires_grad_()
    save_checkpoint(tmp_path / "c", Checkpoint({"value": value, "empty": torch.zeros(0, 3)}, {}))
    loaded = load_checkpoint(tmp_path / "c").tensors
    assert torch.equal(loaded["value"], value)
    assert loaded["empty"].shape == (0, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_setting_that_is_not_finite_is_refused_and_the_old_file_stays(path, value):
    with pytest.raises(InputError, match="should be finite"):
        save_checkpoint(path, Checkpoint({}, {"config": {"inner_lr": value}}))
    assert same(load_checkpoint(path))


@pytest.mark.parametrize("record", ["[]", "null", "1", '"text"', "[" * 100_000, "9" * 5000, '{"a": NaN}', "{", ""])
def test_a_record_that_is_not_an_object_is_refused(tmp_path, record):
    path = tmp_path / "checkpoint.safetensors"
    metadata = {
        "format": CHECKPOINT_FORMAT,
        "version": str(CHECKPOINT_VERSION),
        "record": record,
        "sha256": digest(record, []),
    }
    path.write_bytes(save({}, metadata))
    assert "damaged record" in refused(path)


class RunsCode:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_is_refused_without_running_its_code(tmp_path, write):
    path, trace = tmp_path / "checkpoint.safetensors", tmp_path / "trace"
    write({"weight": RunsCode(trace)}, path)
    refused(path)
    assert not trace.exists()


def test_a_checkpoint_is_loaded_without_unpickling(path, monkeypatch):
    def unpickle(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", unpickle)
    monkeypatch.setattr(pickle, "loads", unpickle)
    monkeypatch.setattr(pickle, "Unpickler", unpickle)
    monkeypatch.setattr(torch, "load", unpickle)
    assert load_checkpoint(path).record == RECORD


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")])
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_checkpoint(path, monkeypatch, owner, name, error):
    def interrupted(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        with pytest.raises(type(error)):
            save_checkpoint(path, Checkpoint({"other": torch.ones(2)}, {"iteration": 8}))
    loaded = load_checkpoint(path)
    assert loaded.record == RECORD
    assert all(torch.equal(loaded.tensors[name], value) for name, value in tensors().items())
    save_checkpoint(path, Checkpoint({"other": torch.ones(2)}, {"iteration": 8}))  # what was left is not in the way
    assert load_checkpoint(path).record == {"iteration": 8}


def test_content_is_on_disk_before_it_takes_the_old_place(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(number: int) -> None:
        fsync(number)
        seen.append(("fsync", path.read_bytes()))

    def seen_replace(self: Path, target: Path) -> Path:
        seen.append(("replace", self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    write_atomically(path, b"new")
    assert seen == [("fsync", b"old"), ("replace", b"new")]
    assert path.read_bytes() == b"new"
