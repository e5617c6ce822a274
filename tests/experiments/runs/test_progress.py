import io
import sys
import time

import pytest

from maml_rl.experiments.runs.progress import ProgressBar, with_progress


class Terminal(io.StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets, in seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_every_few_seconds_with_the_time_left(clock, capsys):
    with ProgressBar("recording", "step", 100) as bar:
        for _ in range(40):
            clock[0] += 1
            bar.update(summary="return 3")
    assert capsys.readouterr().err.splitlines() == [
        "recording: step 16/100: return 3, 01:24 left",
        "recording: step 32/100: return 3, 01:08 left",
    ]


@pytest.mark.usefixtures("clock")
def test_work_of_a_few_seconds_leaves_no_line(capsys):
    assert list(with_progress("abc", "recording", "step", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_the_end_of_what_is_kept_is_shown_too(clock, capsys):
    with ProgressBar("", "iteration", 5_000, 4_998, keep=True) as bar:
        clock[0] += 1
        bar.update(summary="loss 2")
        bar.update(summary="loss 1")
    assert capsys.readouterr().err == "iteration 5,000/5,000: loss 1, 00:00 left\n"


def test_each_update_can_have_a_line(clock, capsys):
    with ProgressBar("", "env step", 2_000_000, every_update=True) as bar:
        bar.until(0, "return 1")
        clock[0] += 60
        bar.until(500_000, "return 2")
    assert capsys.readouterr().err.splitlines() == [
        "env step 0/2,000,000: return 1, ? left",
        "env step 500,000/2,000,000: return 2, 03:00 left",
    ]


def test_a_share_is_shown_in_percent_and_rounding_does_not_take_it_beyond_the_whole(clock, capsys):
    with ProgressBar("evaluating", "", 1.0, every_update=True) as bar:
        clock[0] += 10
        bar.update(0.25)
        clock[0] += 30
        bar.update(0.7500001)
    assert capsys.readouterr().err.splitlines() == ["evaluating: 25 %, 00:30 left", "evaluating: 100 %, 00:00 left"]


def test_the_time_left_is_that_of_the_last_minutes(clock, capsys):
    with ProgressBar("", "iteration", 1_000, every_update=True) as bar:
        for seconds in [100] * 50 + [1] * 10:
            clock[0] += seconds
            bar.update()
    assert capsys.readouterr().err.splitlines()[-1] == "iteration 60/1,000, 15:40 left"


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar("", "iteration", 2, keep=True) as bar:
        bar.update(summary="return 1")
        bar.update(summary="return 2")
    shown = terminal.getvalue()
    assert "2/2" in shown
    assert "return 2" in shown
    assert "left" not in shown
