"""Custom networks, valid and invalid, which runs import by name."""

import torch
from torch import Tensor, nn


class Layered(nn.Module):
    """A residual network with normalisation and `width` units."""

    def __init__(self, shape: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(shape[0], width), nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        return self.norm(hidden + torch.tanh(self.second(hidden)))


class OfTask(nn.Module):
    """Sees only the task, from a dict of parts."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.layer = nn.Linear(shapes["task"][0], 4)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return torch.tanh(self.layer(x["task"]))


class Fourier(nn.Module):
    """Random features in a buffer, drawn from the seed."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(shape[0], 6))
        self.layer = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.sin(x @ self.frequencies)))


class WithPart(nn.Module):
    """A linear layer and one more part, given by name."""

    def __init__(self, shape: tuple[int, ...], part: str) -> None:
        super().__init__()
        self.layer = nn.Linear(shape[0], 4)
        parts = {
            "gru": lambda: nn.GRU(4, 4),
            "cell": lambda: nn.LSTMCell(4, 4),
            "norm": lambda: nn.BatchNorm1d(4),
            "dropout": lambda: nn.Dropout(0.5),
        }
        self.part = parts[part]()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Counting(Layered):
    """Counts its calls."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Centring(Layered):
    """Looks at the other observations."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Flat(Layered):
    """Returns a number for each observation, instead of a row."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 0]


class Deaf(Layered):
    """Returns an output that does not depend on its parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Failing(Layered):
    """Fails."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("out of luck")


def bare(shape: tuple[int, ...]) -> str:
    """Not a class."""
    return str(shape)


class Empty(nn.Module):
    """Has no parameters."""

    def __init__(self, _: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
