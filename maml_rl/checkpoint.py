"""Checkpoints: one safetensors file with tensors and a JSON record, written completely or not at all.

Loading executes no code. A digest of tensors and record in the header reveals a file that has changed since it was
written, which is rejected. A new file is written next to the old one and then renamed, so an interrupted run always
leaves a readable checkpoint.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from maml_rl.errors import InputError, naming_file
from maml_rl.json_values import RESTORE, json_text, parse_json

CHECKPOINT_FORMAT = "maml-rl checkpoint"
CHECKPOINT_VERSION = 1


class Checkpoint(NamedTuple):
    """Tensors by name and a record of JSON values."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


class NamedArray(NamedTuple):
    """Form of a named array for the digest."""

    name: str
    dtype: str
    shape: Sequence[int]
    content: bytes


def digest(record: str, arrays: Iterable[NamedArray]) -> str:
    """SHA-256 of a record's text and of arrays (names, types, shapes and bytes), whatever the order of the arrays."""
    sha = hashlib.sha256(json.dumps(record).encode())
    for array in sorted(arrays):
        sha.update(json.dumps([array.name, array.dtype, list(array.shape), len(array.content)]).encode())
        sha.update(array.content)
    return sha.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file's content in one step.

    Raises:
        OSError: With the path, if the file cannot be written; the old one stays.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with naming_file(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                temporary.unlink()  # on a full disk, a partial file takes the space that other files need
            raise
        temporary.replace(path)


def write_json(path: Path, record: Any, indent: int = 1) -> None:
    """Replaces a file's content with JSON values in one step; a number that is not finite becomes null."""
    write_atomically(path, (json_text(record, indent) + "\n").encode())


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint; the file at `path` is the old one or the new one, never a part.

    Raises:
        InputError: If the record holds a number that is not finite.
    """
    try:
        record = json.dumps(checkpoint.record, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{path} cannot be written: every number of its settings should be finite") from error
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    metadata = {
        "format": CHECKPOINT_FORMAT,
        "version": str(CHECKPOINT_VERSION),
        "record": record,
        "sha256": _digest(record, tensors),
    }
    write_atomically(path, save(tensors, metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint, tensors on the CPU.

    Raises:
        InputError: If the file is missing, truncated, damaged, not of this package, or from a newer version of it.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path}: give the directory of a run")
    try:
        with path.open("rb"):  # where permission is missing, this says so
            pass
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is not a mapping
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or damaged ({error}): {RESTORE}") from error
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path} is not a maml-rl checkpoint: give the directory of a run")
    text = metadata.get("record", "")
    check_version(f"{path}", metadata.get("version"), CHECKPOINT_VERSION)
    if metadata.get("sha256") != _digest(text, tensors):
        raise InputError(f"{path} is damaged (its content does not match its checksum): {RESTORE}")
    try:
        record = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path} has a damaged record ({error}): {RESTORE}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} has a damaged record (it should be a JSON object): {RESTORE}")
    return Checkpoint(tensors, record)


def check_version(source: str, found: object, newest: int) -> None:
    """Checks that this package reads a file's version.

    Raises:
        InputError: If the file has a newer version, or none.
    """
    version = str(found)
    if version == str(newest):
        return
    if version.isascii() and version.isdecimal() and not version.startswith("0"):
        raise InputError(
            f"{source} was written by a newer maml-rl (version {version[:20]} of its format, this one reads {newest}): "
            "upgrade maml-rl"
        )
    raise InputError(f"{source} is damaged (its version should be {newest}): {RESTORE}")


def _digest(record: str, tensors: dict[str, Tensor]) -> str:
    contents = {name: value.reshape(-1).view(torch.uint8).numpy(force=True) for name, value in tensors.items()}
    arrays = (NamedArray(name, str(v.dtype), v.shape, contents[name].tobytes()) for name, v in tensors.items())
    return digest(record, arrays)
