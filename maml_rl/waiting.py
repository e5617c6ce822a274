"""Reports slow operations on stderr, such as an environment that hangs.

Nothing in this module imports PyTorch, so that processes of an environment may import it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, repeat
from operator import mul
from threading import Event, Thread
from time import monotonic

REPORT_AFTER = 60.0  # seconds
_LONGEST_WAIT = 3600.0  # seconds; the system's waits refuse infinity


def report_times(first: float) -> Iterator[float]:
    """Seconds of waiting after which to report: `first`, then each time that the wait has doubled."""
    return accumulate(repeat(2.0), mul, initial=first)


def report_waiting(what: str, seconds: float) -> None:
    """Prints how long something unfinished has taken."""
    print(f"maml-rl: {what} for {seconds:g} s: is it hanging? Ctrl-C stops", file=sys.stderr, flush=True)


@contextmanager
def reporting_waits(what: str, first: float = REPORT_AFTER) -> Iterator[None]:
    """Reports while the block takes longer than `first` seconds, from a thread that ends with the block.

    Args:
        what: What has not come back, such as "ENV_ID has not been made".
        first: See `report_times`.
    """
    finished = Event()

    def report() -> None:
        begun = monotonic()
        for time in report_times(first):
            while (left := begun + time - monotonic()) > 0:
                if finished.wait(min(left, _LONGEST_WAIT)):
                    return
            report_waiting(what, time)

    thread = Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
