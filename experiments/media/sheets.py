"""Contact sheets: the pictures of an episode, row by row in one WebP image, as recordings and web pages hold them.

An animated image would be smaller, but its frames cannot be read by number, and a page cannot stop it at one.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLUMNS = 10  # pictures in a row; a WebP image has at most 16383 pixels on a side


def to_sheet(pictures: Sequence[NDArray[np.uint8]], quality: int = 75) -> bytes:
    """A WebP image of pictures `[height, width, 3]` of equal size, at least one."""
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // COLUMNS)
    sheet = np.full((rows * height, min(COLUMNS, len(pictures)) * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // COLUMNS * height, i % COLUMNS * width
        sheet[y : y + height, x : x + width] = picture
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "WEBP", quality=quality, method=2)
    return content.getvalue()


def from_sheet(sheet: bytes, count: int) -> NDArray[np.uint8]:
    """The `count` pictures `[count, height, width, 3]` of a sheet.

    Raises:
        ValueError: If it is not a picture, or not a sheet of so many.
    """
    columns, rows = min(COLUMNS, count), -(-count // COLUMNS)
    try:
        with Image.open(io.BytesIO(sheet)) as file:
            pixels = np.asarray(file.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"pictures cannot be read: {error}") from error
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    if pixels.shape[:2] != (rows * height, columns * width):
        raise ValueError(f"expected {rows} x {columns} pictures in {pixels.shape[0]} x {pixels.shape[1]} pixels")
    grid = pixels.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return grid.reshape(rows * columns, height, width, 3)[:count]
