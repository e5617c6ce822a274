"""Advantages: discounted returns, the linear feature baseline and generalised advantage estimation.

Arrays are of one task `[K, T]` or of all, `[M, K, T]`; padding has mask 0. A time limit is part of the task, as in the
paper: the value after it is 0, which the baseline's time features let it express.
"""

import torch
from torch import Tensor

from maml_rl.types import Batch, Trajectories

_BLOCK = 128  # time steps summed by one product; the matrix of as many squared stays in a cache


def discounted_sum(values: Tensor, factor: float) -> Tensor:
    """sum over l >= 0 of factor^l values[t + l], `[..., T]`, for values that are 0 in padding.

    Blocks of time steps, the last first, each by one product with the triangular matrix of the factor's powers: several
    times as fast as a loop over time, and as linear in T.
    """
    steps = torch.arange(min(_BLOCK, values.shape[-1]), device=values.device)
    lags = steps[:, None] - steps  # from the time of a value (row) back to that of a sum (column)
    powers = (torch.pow(float(factor), lags.clamp(min=0).double()) * (lags >= 0)).to(values.dtype)
    to_next = torch.pow(float(factor), (len(steps) - steps).double()).to(values.dtype)
    blocks: list[Tensor] = []
    for block in reversed(torch.split(values, _BLOCK, dim=-1)):
        n = block.shape[-1]
        sums = block @ powers[:n, :n]
        if blocks:
            sums = sums + blocks[-1][..., :1] * to_next
        blocks.append(sums)
    return torch.cat(blocks[::-1], dim=-1)


def baseline_features(observations: Tensor) -> Tensor:
    """Features `[..., T, 2 obs + 4]` in float64: observations clipped to +-10, squares, powers of t/100, 1.

    From rllab's `LinearFeatureBaseline` (Duan et al. 2016), which the paper uses. Time counts within an episode.
    """
    clipped = observations.double().clamp(-10, 10)
    steps = observations.shape[-2]
    time = torch.arange(steps, dtype=torch.float64, device=observations.device) / 100
    powers = torch.stack([time, time**2, time**3, torch.ones_like(time)], -1)
    return torch.cat([clipped, clipped**2, powers.expand(*clipped.shape[:-1], 4)], -1)


def linear_baseline(observations: Tensor, returns: Tensor, mask: Tensor, ridge: float = 1e-5) -> Tensor:
    """Values `[..., K, T]` of a linear function of `baseline_features`, fitted to these returns for each task at once.

    Solves (X^T X + ridge I) w = X^T y over the K episodes of each task, in float64.

    Args:
        observations: `[..., K, T, obs]`.
        returns: Discounted returns `[..., K, T]`.
        mask: `[..., K, T]`.
        ridge: Weight of |w|^2.
    """
    features = baseline_features(observations)
    masked = (features * mask[..., None]).flatten(-3, -2)  # [..., K T, F]
    targets = (returns * mask).double().flatten(-2)[..., None]
    gram = masked.mT @ masked + ridge * torch.eye(masked.shape[-1], dtype=masked.dtype, device=masked.device)
    weights = torch.linalg.solve(gram, masked.mT @ targets)
    values: Tensor = (features.flatten(-3, -2) @ weights)[..., 0].reshape(returns.shape)
    return (values * mask).to(returns.dtype)


def generalised_advantages(rewards: Tensor, values: Tensor, mask: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates `[..., T]` (Schulman et al. 2016, equation 16), 0 in padding.

    A_t = sum over l of (discount lambda)^l delta_{t+l},  delta_t = r_t + discount V_{t+1} - V_t,  V = 0 after the end.
    """
    following = torch.zeros_like(values)
    following[..., :-1] = values[..., 1:] * mask[..., 1:]
    deltas = (rewards + discount * following - values) * mask
    return discounted_sum(deltas, discount * gae_lambda)


def normalised(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages of one task `[K, T]` shifted and scaled to mean 0 and standard deviation 1 over its steps."""
    count = mask.sum()
    mean = (advantages * mask).sum() / count
    centred = (advantages - mean) * mask
    std = (centred.square().sum() / count).sqrt()
    return centred / (std + 1e-8)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Share `[...]` of the returns' variance over a task's steps that the values explain: 1 is a perfect baseline."""
    count = mask.sum((-2, -1))
    residuals = (returns - values) * mask
    centred = (returns - ((returns * mask).sum((-2, -1)) / count)[..., None, None]) * mask
    bias = residuals.sum((-2, -1)) / count
    residual_variance = residuals.square().sum((-2, -1)) / count - bias.square()
    return 1 - residual_variance / (centred.square().sum((-2, -1)) / count + 1e-12)


def advantage_batch(trajectories: Trajectories, discount: float, gae_lambda: float) -> tuple[Batch, Tensor]:
    """The steps of one task with normalised advantages, and the explained variance `[]` of the baseline.

    The baseline is fitted to the same episodes whose advantages it gives, as in the paper's code.

    Args:
        trajectories: Episodes of one task, fields without the leading M.
        discount: Discount factor of a time step.
        gae_lambda: Lambda of generalised advantage estimation.
    """
    mask = trajectories.mask
    rewards = trajectories.rewards * mask
    returns = discounted_sum(rewards, discount)
    values = linear_baseline(trajectories.observations, returns, mask)
    advantages = normalised(generalised_advantages(rewards, values, mask, discount, gae_lambda), mask)
    steps = mask.bool()
    batch = Batch(
        trajectories.observations[steps], trajectories.actions[steps], trajectories.log_probs[steps], advantages[steps]
    )
    return batch, explained_variance(values, returns, mask)
