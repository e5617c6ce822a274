"""Types that every part of the method shares, and the letters of their shapes.

M tasks, K episodes per task, T time steps per episode; N steps of one task, with episodes joined and padding removed.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from maml_rl.errors import InputError

Params = dict[str, Tensor]
"""Parameters by name, as `dict(policy.named_parameters())`; with a leading M where each task has its own."""


class State(NamedTuple):
    """State of training: everything that the next iteration depends on."""

    meta: Params  # theta under its own names, and learned step sizes under "inner_lr." and the name of their parameter
    # Adam's moments, or the mean meta-gradient of a trust region with momentum; maps of the feature regression of an
    # imitation; else empty
    optimizer: Params
    iteration: int  # meta-iterations finished

    def to(self, device: torch.device) -> "State":
        """The same state, on a device."""
        meta, optimizer = ({n: v.to(device) for n, v in params.items()} for params in (self.meta, self.optimizer))
        return State(meta, optimizer, self.iteration)

    def ordered(self, names: Sequence[str]) -> "State":
        """The same state with its meta-parameters in this order, which files do not keep.

        Vectors of all parameters are in this order: Adam's moments, and vectors whose sums are rounded by it.
        """
        return self._replace(meta={name: self.meta[name] for name in names})


class Trajectories(NamedTuple):
    """Episodes as sampled. Entries after an episode's end are padding, where `mask` is 0."""

    observations: Tensor  # [M, K, T, obs]
    actions: Tensor  # [M, K, T, act], or [M, K, T] for discrete actions
    log_probs: Tensor  # [M, K, T]   under the policy that acted
    rewards: Tensor  # [M, K, T]
    mask: Tensor  # [M, K, T]   1 while the episode runs, else 0
    terminated: Tensor  # [M, K]   bool: ended by the process; otherwise by the time limit

    @property
    def returns(self) -> Tensor:
        """Undiscounted return of each episode, `[M, K]`."""
        return (self.rewards * self.mask).sum(-1)

    @property
    def lengths(self) -> Tensor:
        """Steps of each episode, `[M, K]` int64."""
        return self.mask.sum(-1).long()


class Batch(NamedTuple):
    """Joined steps of one task's episodes, as input for the losses."""

    observations: Tensor  # [N, obs]
    actions: Tensor  # [N, act], or [N] for discrete actions
    log_probs: Tensor  # [N]   under the policy that acted
    advantages: Tensor  # [N]
    episodes: Tensor  # [N]   int64: which of the K episodes a step is of
    times: Tensor  # [N]   int64: which time step of its episode it is, from 0


def frozen_names(module: object) -> frozenset[str]:
    """Names of the parameters that no update changes: those of a module frozen with `requires_grad_(False)`.

    Raises:
        InputError: If that is all of them.
    """
    if not isinstance(module, nn.Module):
        return frozenset()
    names = [name for name, value in module.named_parameters() if not value.requires_grad]
    if names and len(names) == len(list(module.parameters())):
        raise InputError(
            f"all parameters of the {type(module).__name__} are frozen, so there is nothing to learn: call "
            "requires_grad_(True) on those to learn"
        )
    return frozenset(names)


def split(params: Params, names: Collection[str]) -> tuple[Params, Params]:
    """The parameters of these names, and the others."""
    chosen = {name: value for name, value in params.items() if name in names}
    return chosen, {name: value for name, value in params.items() if name not in names}


def flatten(params: Params) -> Tensor:
    """All parameters in one vector `[P]`, in the order of their names' mapping."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of `flatten`: parts of `vector` `[P]` with names and shapes of `like`."""
    parts = torch.split(vector, [value.numel() for value in like.values()])
    return {name: part.view_as(value) for part, (name, value) in zip(parts, like.items(), strict=True)}


def detached(params: Params) -> Params:
    """The same values without their graph, so that what is computed from them carries none."""
    return {name: value.detach() for name, value in params.items()}


def aligned(tensor: Tensor) -> Tensor:
    """The same values, contiguous and starting at a 64-byte boundary, where PyTorch puts every new tensor.

    How matrix products and sums round depends on where their operands are in memory (Intel's oneMKL guide,
    "Reproducibility Conditions", asks for 64 bytes). Views of a vector, NumPy arrays and tensors from a file may start
    anywhere, so whatever enters an iteration or an evaluation passes through here. Nothing is copied unnecessarily.
    """
    flat = tensor.reshape(-1)
    return (flat.clone() if flat.data_ptr() % 64 else flat).view(tensor.shape)


def laid_out(params: Params) -> Params:
    """The same parameters, each `aligned` and without its graph."""
    return {name: aligned(value.detach()) for name, value in params.items()}


def repeat(params: Params, count: int) -> Params:
    """The same parameters for each of `count` tasks: a leading M that takes no memory."""
    return {name: value.expand(count, *value.shape) for name, value in params.items()}


def stack(params: Sequence[Params]) -> Params:
    """Parameters of each task, with a leading M."""
    return {name: torch.stack([p[name] for p in params]) for name in params[0]}


def select(params: Params, index: int) -> Params:
    """Parameters of one task, of those with a leading M."""
    return {name: value[index] for name, value in params.items()}
