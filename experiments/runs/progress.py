"""Progress of anything that takes long: a bar on a terminal, and lines in a log."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")

_SECONDS = 15.0  # between lines
_LINES = 9  # from which the time left is estimated, so about two minutes
_SHARE = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
_SCALED = 1_000_000  # a total from which a bar writes 1.2M for 1200000


class ProgressBar:
    """A progress bar on a terminal; elsewhere, such as in the log of a cluster, a line every few seconds.

    Both go to stderr. What ends within the first seconds leaves no line, unless it has one for every update. The time
    left is that at the speed of the last minutes.

    Args:
        what: What is done, such as "evaluating"; "" where the unit says enough.
        unit: What is counted, in the singular, or "" where the total is 1 and its share is shown in percent.
        total: How much there is to do.
        done: How much of it was done before.
        keep: Whether its end is shown too: the bar stays, or there is a last line.
        every_update: Whether each update has a line, since there are minutes between them.
    """

    def __init__(
        self, what: str, unit: str, total: float, done: float = 0, *, keep: bool = False, every_update: bool = False
    ) -> None:
        self._what, self._unit, self._total, self._done = what, unit, total, done
        self._keep, self._every = keep, every_update
        self._lines = deque([(time.monotonic(), done)], maxlen=_LINES)
        self._bar = tqdm(
            desc=what or None,
            total=total,
            initial=done,
            unit=unit or "it",
            unit_scale=total >= _SCALED,
            bar_format=None if unit else _SHARE,
            smoothing=0.1,
            leave=keep,
            disable=None,
        )

    def update(self, more: float = 1, summary: str = "") -> None:
        """Shows that more is done, and what was reached."""
        more = min(more, self._total - self._done)  # which the sum of shares may exceed by rounding
        self._done += more
        self._bar.set_postfix_str(summary, refresh=False)
        self._bar.update(more)
        if self._bar.disable and self._is_due():
            self._lines.append((time.monotonic(), self._done))
            print(self._line(summary), file=sys.stderr, flush=True)

    def until(self, done: float, summary: str = "") -> None:
        """Shows that so much is done in all."""
        self.update(done - self._done, summary)

    def _is_due(self) -> bool:
        waited = time.monotonic() - self._lines[-1][0]
        return self._every or waited > _SECONDS or (self._keep and self._done >= self._total)

    def _line(self, summary: str) -> str:
        (began, first), (now, done) = self._lines[0], self._lines[-1]
        left = self._bar.format_interval((now - began) / (done - first) * (self._total - done)) if done > first else "?"
        counted = f"{self._unit} {done:,}/{self._total:,}" if self._unit else f"{100 * done / self._total:.0f} %"
        return f"{': '.join(filter(None, [self._what, counted, summary]))}, {left} left"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def with_progress(items: Iterable[_Item], what: str, unit: str, total: int) -> Iterator[_Item]:
    """The same items, with a progress bar that counts those that are dealt with."""
    with ProgressBar(what, unit, total) as bar:
        for item in items:
            yield item
            bar.update()
