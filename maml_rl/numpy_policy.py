"""A policy that needs only NumPy, to act and collect episodes where PyTorch is not installed, such as on a robot.

It is stored as an npz archive of plain arrays. Reading it executes no code.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.errors import InputError

FloatArray = NDArray[np.float32]


class NumpyPolicy(NamedTuple):
    """A multilayer perceptron on standardised observations, and its rule for actions.

    With `log_std` it is a normal distribution around the network's output. Without it, the output holds the logits of
    one or more choices, one after the other, each from its bound `low` to `high`.
    """

    weights: Sequence[FloatArray]  # of each layer [out, in]
    biases: Sequence[FloatArray]  # of each layer [out]
    activation: Literal["relu", "tanh"]  # of the hidden layers
    mean: FloatArray  # [obs]   subtracted from an observation
    std: FloatArray  # [obs]   by which the difference is divided
    clip: float  # bound of the quotient; infinite if there is none
    log_std: FloatArray | None  # [act]   None for choices
    low: FloatArray  # bounds of an action, in its shape; for a choice, the first one
    high: FloatArray  # and the last one

    def __repr__(self) -> str:
        sizes = " -> ".join(str(size) for size in [len(self.mean), *(len(bias) for bias in self.biases)])
        kind = "choices" if self.log_std is None else "a normal distribution"
        return f"NumpyPolicy({sizes}, {self.activation}, {kind})"

    def output(self, observation: Any) -> FloatArray:
        """The network's output `[..., out]` for observations `[..., obs]`, or one picture: mean actions, or logits."""
        hidden: FloatArray = np.asarray(observation, np.float32)
        if hidden.shape[-1:] != self.mean.shape:
            hidden = hidden.reshape(self.mean.shape)
        hidden = np.clip((hidden - self.mean) / self.std, -self.clip, self.clip)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = hidden @ weight.T + bias
            hidden = np.tanh(hidden) if self.activation == "tanh" else np.maximum(hidden, 0)
        return hidden @ self.weights[-1].T + self.biases[-1]

    def act(self, observation: Any) -> NDArray[Any]:
        """The most likely action in an observation `[obs]`, or a picture of as many numbers, within the bounds."""
        output = self.output(observation)
        if self.log_std is None:
            return self._likeliest(output)
        return self.within(output.reshape(self.low.shape))

    def sample(self, observation: Any, generator: np.random.Generator) -> NDArray[Any]:
        """A random action in an observation `[obs]`. It may be out of bounds: apply `within(action)`, log `action`."""
        output = self.output(observation)
        if self.log_std is None:
            return self._likeliest(output + generator.gumbel(size=output.shape))
        noise = generator.standard_normal(output.shape, dtype=np.float32)
        return (output + np.exp(self.log_std) * noise).reshape(self.low.shape)

    def within(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action within the bounds, as the robot takes it."""
        return np.clip(action, self.low, self.high) if self.log_std is not None else action

    @property
    def choices(self) -> list[int]:
        """Number of alternatives of each choice, of a policy without `log_std`."""
        return [int(count) for count in np.ravel(self.high - self.low + 1)]

    def _likeliest(self, logits: NDArray[Any]) -> NDArray[Any]:
        parts = np.split(logits, np.cumsum(self.choices)[:-1], axis=-1)
        best = np.stack([part.argmax(-1) for part in parts], axis=-1)
        return np.asarray(self.low.astype(np.int64) + best.reshape(best.shape[:-1] + self.low.shape))

    def to_bytes(self) -> bytes:
        """The policy as the content of an npz file."""
        arrays: dict[str, Any] = {f"weight_{i}": weight for i, weight in enumerate(self.weights)}
        arrays |= {f"bias_{i}": bias for i, bias in enumerate(self.biases)}
        arrays |= {"activation": self.activation, "mean": self.mean, "std": self.std, "clip": np.float32(self.clip)}
        arrays |= {"low": self.low, "high": self.high}
        if self.log_std is not None:
            arrays["log_std"] = self.log_std
        content = io.BytesIO()
        np.savez(content, **arrays)
        return content.getvalue()


def load_policy(path: str | Path) -> NumpyPolicy:
    """Reads a policy from an npz file, such as `maml-rl adapt --out policy.npz` writes.

    Raises:
        InputError: If the file is not there, or holds no policy.
    """
    arrays = read_arrays(path, "a policy of maml-rl adapt --out policy.npz")
    layers = sum(name.startswith("weight_") for name in arrays)
    try:
        weights, biases = ([arrays[f"{kind}_{i}"] for i in range(layers)] for kind in ("weight", "bias"))
        policy = NumpyPolicy(
            weights=weights,
            biases=biases,
            activation="tanh" if str(arrays["activation"]) == "tanh" else "relu",
            mean=arrays["mean"],
            std=arrays["std"],
            clip=float(arrays["clip"]),
            log_std=arrays.get("log_std"),
            low=arrays["low"],
            high=arrays["high"],
        )
        policy.act(np.zeros_like(policy.mean))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"{path} does not contain a policy ({' '.join(str(error).split())}): write it with maml-rl adapt --out "
            "policy.npz"
        ) from error
    return policy


def read_arrays(path: str | Path, expected: str) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, none of which may execute code.

    Raises:
        InputError: If the file is missing or not such an archive.
    """
    try:
        content = io.BytesIO(Path(path).read_bytes())  # NumPy would leave a damaged file open
        if not zipfile.is_zipfile(content):  # NumPy would advise to load it as a pickle
            raise ValueError("it is not a zip file")
        with np.load(content, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: expected {expected}") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        reason = "it contains Python objects" if "allow_pickle" in str(error) else " ".join(str(error).split())
        raise InputError(f"{path} is not an npz archive of plain arrays ({reason}): expected {expected}") from error
