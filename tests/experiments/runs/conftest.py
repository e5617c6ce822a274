"""A fixture for full disks."""

from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Sets the size in bytes beyond which no file can be written, as no file can on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
