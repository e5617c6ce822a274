"""The log of a run: every number is written, and rows that were cut off are dropped."""

import csv
import math
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maml_rl.errors import InputError
from maml_rl.experiments.runs.run_log import Clip, MetricsTable, log, run_logger
from maml_rl.run import METRICS

numbers = st.floats() | st.floats(width=32) | st.integers(-(10**30), 10**30).map(float)


def logged(out: Path, scalar: float, values: torch.Tensor) -> EventAccumulator:
    """Logs one iteration, and reads TensorBoard's file."""
    logger = run_logger(out, 0)
    log(logger, 1, {"iteration": 1, "scalar": scalar}, {"tasks/values": values})
    logger.close()
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return events


@settings(max_examples=60, deadline=None)
@given(numbers, st.lists(numbers, min_size=1, max_size=5), st.sampled_from([torch.float32, torch.float64]))
@example(1e25, [1e25, -1e300], torch.float64)
@example(math.nan, [math.nan, math.inf], torch.float32)
@example(-math.inf, [1e20], torch.float32)
@example(0.0, [0.0, 5e-324], torch.float64)
def test_no_number_ends_a_run_or_is_lost_from_the_table(scalar, values, dtype):
    tensor = torch.tensor(values, dtype=dtype)
    with tempfile.TemporaryDirectory() as directory:
        events = logged(Path(directory), scalar, tensor)
        with (Path(directory) / METRICS).open(newline="") as file:
            (row,) = csv.DictReader(file)
    written = float(row["scalar"])
    assert written == scalar or (math.isnan(written) and math.isnan(scalar))
    assert len(events.Scalars("scalar")) == 1
    finite = tensor[tensor.isfinite()]
    assert events.Tags()["histograms"] == (["tasks/values"] if len(finite) else [])
    if len(finite):
        histogram = events.Histograms("tasks/values")[0].histogram_value
        assert histogram.num == sum(histogram.bucket) == len(finite)


@pytest.mark.parametrize("value", [3.0, -2e19, 0.0])
def test_a_histogram_of_ordinary_numbers_keeps_their_values(tmp_path, value):
    histogram = logged(tmp_path, 0.0, torch.tensor([value])).Histograms("tasks/values")[0].histogram_value
    assert histogram.min == histogram.max == torch.tensor(value).item()


def test_larger_numbers_than_the_outermost_bin_are_counted_in_it(tmp_path):
    histogram = logged(tmp_path, 0.0, torch.tensor([1e25, 1.0])).Histograms("tasks/values")[0].histogram_value
    assert histogram.num == 2
    assert histogram.min == 1
    assert histogram.max == pytest.approx(9e19)


# Resumed logs


ROWS = "iteration,a\n1,2\n2,0.25\n"


@pytest.mark.parametrize(("finished", "kept"), [(0, ""), (1, "iteration,a\n1,2\n"), (2, ROWS), (9, ROWS)])
def test_rows_of_iterations_that_were_lost_are_dropped(tmp_path, finished, kept):
    (tmp_path / METRICS).write_text(ROWS)
    MetricsTable(tmp_path / METRICS, finished).close()
    assert (tmp_path / METRICS).read_text() == kept


@pytest.mark.parametrize("end", ["3", "3,", "\u00b2,3\n", "\u0663\u0664,3\n", "9" * 5_000 + ",3\n", "1.5,3\n", ",3\n"])
def test_a_row_that_is_cut_off_or_has_no_number_is_dropped_and_the_next_one_follows(tmp_path, end):
    (tmp_path / METRICS).write_text(ROWS + end, encoding="utf-8")
    table = MetricsTable(tmp_path / METRICS, 2)
    table.write({"iteration": 3, "a": 4.0, "b": 1}, {"iteration": (), "a": (), "b": ("csv",)})
    table.close()
    assert (tmp_path / METRICS).read_text(encoding="utf-8") == ROWS + "3,4.0\n"


@pytest.mark.parametrize("content", [b"iteration\n\xff\n", b'iteration\n1,"' + b"2" * 200_000 + b"\n"])
def test_a_log_that_cannot_be_read_is_not_written_to(tmp_path, content):
    (tmp_path / METRICS).write_bytes(content)
    with pytest.raises(InputError) as refused:
        MetricsTable(tmp_path / METRICS, 2)
    assert "\n" not in str(refused.value)
    assert (tmp_path / METRICS).read_bytes() == content


def test_an_error_in_tensorboards_thread_is_raised_by_the_call_that_logs(tmp_path, capfd, file_size_limit):
    before = threading.excepthook
    logger = run_logger(tmp_path, 0)
    assert threading.excepthook is not before
    file_size_limit(1000)
    with pytest.raises(OSError, match="tensorboard"):
        log(logger, 1, {}, {"clip": Clip(bytes(100_000), 2, 2)})
    file_size_limit(10**9)
    logger.close()
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is before


def test_the_log_of_an_older_version_continues_with_new_quantities(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("b,iteration\n1.5,1\n2.5,2\n3.5,3\n")
    table = MetricsTable(path, finished=2)
    for iteration in (3, 4):
        row = {"a": 0.5, "b": 4.5, "iteration": iteration}
        table.write(row, dict.fromkeys(row, ()), iteration)
    table.close()
    assert path.read_text().splitlines() == ["b,iteration,a", "1.5,1,nan", "2.5,2,nan", "4.5,3,0.5", "4.5,4,0.5"]
