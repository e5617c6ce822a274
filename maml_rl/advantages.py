"""Advantages: discounted returns, the linear feature baseline and generalised advantage estimation.

Arrays are for one task `[K, T]` or for all, `[M, K, T]`; padding has mask 0. A time limit is part of the task, as in
the paper: the value after it is 0, which the baseline can express through its time features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.types import Batch, Trajectories

_NO_SPREAD = 1e-5  # relative spread of returns that counts as none; in float32, equal ones differ by about 1e-7
_LARGE = 2.0**40  # rewards at which squares of returns approach float32's largest number
_SMALL = 2.0**-10  # rewards below which the constants that avoid a division by 0 are no longer small in comparison
_BLOCK = 128  # time steps summed by one product; its square matrix stays in a cache


def discounted_sum(values: Tensor, factor: float) -> Tensor:
    """sum over l >= 0 of factor^l values[t + l], `[..., T]`, for values that are 0 in padding.

    It sums blocks of time steps, the last first. Each is one product with the triangular matrix of the factor's powers:
    several times as fast as a loop over time, and just as linear in T.
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


def enough_episodes(observation_size: int, horizon: int) -> int:
    """Episodes per task that the baseline needs for a real fit: at least five, and five time steps for each feature.

    With fewer, it passes through the returns whatever they are, and the advantages are only the remainder.
    """
    features = 2 * observation_size + 4
    return max(5, -(-5 * features // horizon))


class Baseline(NamedTuple):
    """A baseline fitted to episodes."""

    values: Tensor  # [..., K, T]   of the episodes that it was fitted to, 0 in padding
    left_out: Tensor | None  # [..., L, T]   of the last episodes, fitted to the others; None for a single episode


def linear_baseline(observations: Tensor, returns: Tensor, mask: Tensor, ridge: float = 1e-5) -> Baseline:
    """Values of a linear function of `baseline_features`, fitted to these returns for each task separately.

    Solves (X^T X + ridge I) w = X^T y over the K episodes of each task, in float64. For the last fifth of the episodes,
    at least one, it solves again without them. This costs little, because the sums over the others are a difference.

    Args:
        observations: `[..., K, T, obs]`.
        returns: Discounted returns `[..., K, T]`.
        mask: `[..., K, T]`.
        ridge: Weight of `|w|^2`.
    """
    features = baseline_features(observations)
    masked = features * mask[..., None]
    targets = (returns * mask).double()[..., None]
    rows, of_rows = masked.flatten(-3, -2), targets.flatten(-3, -2)  # [..., K T, F] and [..., K T, 1]
    identity = ridge * torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    gram, moments = rows.mT @ rows, rows.mT @ of_rows
    weights = torch.linalg.solve(gram + identity, moments)
    values: Tensor = (features.flatten(-3, -2) @ weights)[..., 0].reshape(returns.shape)
    fitted = (values * mask).to(returns.dtype)
    episodes = returns.shape[-2]
    if episodes == 1:
        return Baseline(fitted, None)
    first = episodes - -(-episodes // 5)
    last, of_last = masked[..., first:, :, :].flatten(-3, -2), targets[..., first:, :, :].flatten(-3, -2)
    weights = torch.linalg.solve(gram - last.mT @ last + identity, moments - last.mT @ of_last)
    left_out = (last @ weights)[..., 0].reshape(returns[..., first:, :].shape)
    return Baseline(fitted, left_out.to(returns.dtype))


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
    """Share `[...]` of the returns' variance over a task's steps that the values explain: 1 if they are the returns."""
    count = mask.sum((-2, -1))
    residuals = (returns - values) * mask
    bias = residuals.sum((-2, -1)) / count
    residual_variance = residuals.square().sum((-2, -1)) / count - bias.square()
    return 1 - residual_variance / (_variance(returns, mask) + 1e-12)


def _variance(values: Tensor, mask: Tensor) -> Tensor:
    """Variance `[...]` over a task's steps."""
    count = mask.sum((-2, -1))
    centred = (values - ((values * mask).sum((-2, -1)) / count)[..., None, None]) * mask
    return centred.square().sum((-2, -1)) / count


def left_out_explained_variance(left_out: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Share `[]` of the returns' variance that a baseline explains in episodes that it was not fitted to.

    1 - mean (R - V)^2 / Var(R), with R and V of the episodes left out and the variance of all. Their values are clipped
    to the range of the other episodes' returns: where a feature is almost always 0, the fit is unconstrained, and a
    single step would decide the mean.

    Args:
        left_out: Values `[L, T]` of the last L episodes, of a baseline fitted to the others.
        returns: Discounted returns `[K, T]` of all episodes.
        mask: `[K, T]`.
    """
    first = len(returns) - len(left_out)
    known, unseen = returns[:first][mask[:first].bool()], mask[first:]
    residuals = (returns[first:] - left_out.clamp(known.min(), known.max())) * unseen
    return 1 - residuals.square().sum() / unseen.sum() / (_variance(returns, mask) + 1e-12)


def relative_spread(returns: Tensor, mask: Tensor) -> Tensor:
    """How much the returns `[K, T]` of a task's episodes differ from each other, relative to their size, `[]`.

    The standard deviation over episodes at the same time step (pooled over time steps), divided by the root mean square
    of all. It is 0 where no action changed a reward, and for a single episode.
    """
    running = mask.sum(0)
    mean = (returns * mask).sum(0) / running.clamp(min=1)
    between = ((returns - mean) * mask).square().sum() / (running - 1).clamp(min=0).sum().clamp(min=1)
    square = (returns * mask).square().sum() / mask.sum()
    return torch.where(square > 0, between / square, torch.zeros_like(square)).sqrt()


def advantage_batch(
    trajectories: Trajectories, discount: float, gae_lambda: float, seen: Tensor | None = None
) -> tuple[Batch, dict[str, Tensor]]:
    """The steps of one task with normalised advantages, and what to log of returns and baseline, `[]` each.

    The baseline is fitted to the same episodes whose advantages it gives, as in the paper's code. Advantages are 0
    where no action made a difference, since they would only show the misfit of the baseline: where the episodes'
    returns do not differ, or all rewards of a single episode are equal.

    Args:
        trajectories: Episodes of one task, fields without the leading M.
        discount: Discount factor of a time step.
        gae_lambda: Lambda of generalised advantage estimation.
        seen: Observations `[K, T, obs]` that the baseline is a function of, for example standardised ones; those of
            the trajectories if None.
    """
    mask = trajectories.mask
    exponent = _exponent(trajectories.rewards * mask)  # of a unit in which rewards are neither large nor small
    rewards = torch.ldexp(trajectories.rewards * mask, -exponent)
    returns = discounted_sum(rewards, discount)
    values, left_out = linear_baseline(trajectories.observations if seen is None else seen, returns, mask)
    estimates = generalised_advantages(rewards, values, mask, discount, gae_lambda)
    advantages = normalised(estimates, mask)
    steps = mask.bool()
    measured = {"baseline/explained_variance": explained_variance(values, returns, mask)}
    if left_out is None:
        spread = relative_spread(rewards[steps][:, None], mask[steps][:, None])
    else:
        measured["baseline/explained_variance_left_out"] = left_out_explained_variance(left_out, returns, mask)
        measured["return/relative_spread"] = spread = relative_spread(returns, mask)
    measured["advantage/deviation"] = torch.ldexp(_variance(estimates, mask).sqrt(), exponent)
    if spread <= _NO_SPREAD:
        advantages = torch.zeros_like(advantages)
        measured["advantage/deviation"] = torch.zeros_like(spread)
    episodes, times = steps.nonzero(as_tuple=True)
    batch = Batch(
        observations=trajectories.observations[steps],
        actions=trajectories.actions[steps],
        log_probs=trajectories.log_probs[steps],
        advantages=advantages[steps],
        episodes=episodes,
        times=times,
    )
    return batch, measured


def _exponent(rewards: Tensor) -> Tensor:
    """Power of two by which rewards are divided, so that their unit changes no result: 0 unless large or small."""
    largest = rewards.abs().max()
    exponent = torch.frexp(largest).exponent.clamp(min=-126)
    return torch.zeros_like(exponent) if largest == 0 or _SMALL <= largest <= _LARGE else exponent
