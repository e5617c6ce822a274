"""Checkpoints: one safetensors file with tensors and a JSON record, written whole or not at all.

Loading executes no code. A file is written beside the old one and renamed over it, so a run that is interrupted at any
moment leaves a readable checkpoint.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from maml_rl.errors import InputError

FORMAT = "maml-rl checkpoint"
VERSION = 1


class Checkpoint(NamedTuple):
    """Tensors by name and a record of JSON values."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file's content in one step."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, record: Any, indent: int = 1) -> None:
    """Replaces a file by JSON values in one step."""
    write_atomically(path, (json.dumps(record, indent=indent) + "\n").encode())


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint; the file at `path` is the old one or the new one, never a part."""
    metadata = {"format": FORMAT, "version": str(VERSION), "record": json.dumps(checkpoint.record)}
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    write_atomically(path, save(tensors, metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint, tensors on the CPU.

    Raises:
        InputError: If the file is missing, truncated, not of this package, or from a newer version of it.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path}: give the directory of a run")
    try:
        with path.open("rb"):  # a file that may not be read says so itself
            pass
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or damaged ({error}): restore it from a copy") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of maml-rl: give the directory of a run that it trained")
    version, record = metadata.get("version", ""), metadata.get("record", "")
    if version.isdigit() and int(version) > VERSION:
        raise InputError(
            f"{path} was written by a newer maml-rl (checkpoint version {version}, this one reads up to "
            f"{VERSION}): upgrade maml-rl"
        )
    try:
        return Checkpoint(tensors, json.loads(record))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} has a damaged record ({error}): restore it from a copy") from error
