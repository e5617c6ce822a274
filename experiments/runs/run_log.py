"""The log of a run: a row for each iteration in metrics.csv, and the same and more in TensorBoard."""

import csv
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from maml_rl.checkpoint import write_atomically
from maml_rl.errors import InputError, naming_file
from maml_rl.json_values import RESTORE, read_text
from maml_rl.run import METRICS

_OUTERMOST = 9e19  # TensorBoard's bins end at 1e20, and PyTorch raises an error where none holds a value


def run_logger(out: Path, finished: int, others: Sequence[KVWriter] = ()) -> Logger:
    """Logger of a run directory that continues after `finished` iterations, and writes to `others` last."""
    table = MetricsTable(out / METRICS, finished)
    return Logger(str(out), [table, TensorBoard(out / "tensorboard", finished), *others])


def log(logger: Logger, iteration: int, row: Mapping[str, float], shown: Mapping[str, Any]) -> None:
    """Writes the results of an iteration. What is `shown`, histograms (tensors) and clips, is left out of the table."""
    for name, value in row.items():
        logger.record(name, value)
    for name, value in shown.items():
        drawable = _within_bins(value) if isinstance(value, Tensor) else value
        if not isinstance(drawable, Tensor) or drawable.numel():
            logger.record(name, drawable, exclude="csv")
    logger.dump(iteration)


def _within_bins(values: Tensor) -> Tensor:
    """What a histogram can show of `values`: the finite ones, within the outermost of TensorBoard's bins."""
    return values[values.isfinite()].cpu().double().clamp(-_OUTERMOST, _OUTERMOST)


class Clip(NamedTuple):
    """An animated GIF, for TensorBoard's tab of images."""

    gif: bytes
    width: int  # pixels
    height: int


class TensorBoard(TensorBoardOutputFormat):
    """Stable-Baselines3's TensorBoard writer, which also takes clips, and hides what an interruption made obsolete.

    PyTorch is too new for the package that its own logging of videos needs; a GIF logged as a picture needs none.

    Args:
        folder: Directory of the event files.
        finished: Iterations that stay; points of later ones, lost in an interruption, are hidden.
    """

    def __init__(self, folder: Path, finished: int) -> None:
        self._folder = folder
        self._excepthook, threading.excepthook = threading.excepthook, self._thread_failed
        with self._closing_on_error():
            self.writer = SummaryWriter(str(folder), purge_step=finished + 1)
        self._is_closed = False

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Writes scalars, histograms and clips.

        Raises:
            OSError: With the directory, if they cannot be written.
        """
        with self._closing_on_error():
            self._write(key_values, key_excluded, step)

    def close(self) -> None:
        """Closes the file.

        Raises:
            OSError: With the directory, if it cannot be written.
        """
        with self._closing_on_error():
            super().close()
        threading.excepthook = self._excepthook

    def _write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int) -> None:
        super().write(key_values, key_excluded, step)
        file_writer: Any = self.writer.file_writer
        for name, value in key_values.items():
            if isinstance(value, Clip):
                image = Summary.Image(
                    height=value.height, width=value.width, colorspace=3, encoded_image_string=value.gif
                )
                file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
        self.writer.flush()

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            with naming_file(self._folder):
                yield
        except OSError:
            writer: Any = getattr(self, "writer", None)
            self.writer: Any = None  # closed, as the base class has it
            if writer:
                with suppress(OSError):
                    writer.file_writer.close()
            threading.excepthook = self._excepthook
            raise

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """Hides the traceback of TensorBoard's own thread, whose errors the next `write` raises."""
        of_tensorboard = type(failure.thread).__module__.startswith("tensorboard.")
        if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
            self._excepthook(failure)


class MetricsTable(KVWriter):
    """A csv file with a row for each iteration, columns in the order of their names.

    Stable-Baselines3's own writer overwrites the file and puts its columns in arbitrary order.

    Args:
        path: The file.
        finished: Iterations that stay, where the file exists; rows of later ones, lost in an interruption, are dropped.
    """

    def __init__(self, path: Path, finished: int) -> None:
        self._path = path
        self._columns: list[str] = []
        lines: list[str] = []
        if path.exists():
            lines = [f"{line}\n" for line in read_text(path).split("\n") if line]
            kept = [line for line in lines[1:] if _iteration(path, lines[0], line) <= finished]
            lines = [*lines[:1], *kept] if kept else []
        write_atomically(path, "".join(lines).encode())
        if lines:
            self._columns = next(csv.reader(lines))
        self._open()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Adds a row of everything that is not excluded from csv files, if there is anything.

        Raises:
            OSError: With the path, if it cannot be written.
        """
        key_values = {name: value for name, value in key_values.items() if "csv" not in (key_excluded[name] or ())}
        if not key_values:
            return
        try:
            with naming_file(self._path):
                if new := sorted(key_values.keys() - set(self._columns)):
                    self._add_columns(new)
                self._writer.writerow(key_values)
                self._file.flush()
        except OSError:
            with suppress(OSError):
                self._file.close()  # which would try once more to write what is left
            raise

    def close(self) -> None:
        """Closes the file."""
        with naming_file(self._path):
            self._file.close()

    def _open(self) -> None:
        self._file = self._path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, self._columns, restval="nan", lineterminator="\n")

    def _add_columns(self, new: Sequence[str]) -> None:
        """Rewrites the file with more columns, which are nan in the rows before."""
        self._file.close()
        rows = list(csv.DictReader(io.StringIO(read_text(self._path), newline="")))
        self._columns = [*self._columns, *new] if rows else sorted([*self._columns, *new])
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="nan", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._path, text.getvalue().encode())
        self._open()


def _iteration(path: Path, head: str, line: str) -> float:
    """A row's iteration; infinite for a row that was cut off while it was written."""
    try:
        row = next(csv.DictReader([head, line]), {})
        return float("inf") if None in row.values() else int(row.get("iteration") or "")
    except csv.Error as error:
        raise InputError(f"{path} is damaged ({error}): {RESTORE}") from error
    except ValueError:
        return float("inf")
