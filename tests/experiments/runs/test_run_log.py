"""The log of a run: whatever number an iteration brought, it is written."""

import csv
import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maml_rl.experiments.runs.run import METRICS
from maml_rl.experiments.runs.run_log import log, run_logger

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
def test_a_histogram_of_ordinary_numbers_has_them_as_they_are(tmp_path, value):
    histogram = logged(tmp_path, 0.0, torch.tensor([value])).Histograms("tasks/values")[0].histogram_value
    assert histogram.min == histogram.max == torch.tensor(value).item()


def test_larger_numbers_than_the_outermost_bin_are_counted_in_it(tmp_path):
    histogram = logged(tmp_path, 0.0, torch.tensor([1e25, 1.0])).Histograms("tasks/values")[0].histogram_value
    assert histogram.num == 2
    assert histogram.min == 1
    assert histogram.max == pytest.approx(9e19)
