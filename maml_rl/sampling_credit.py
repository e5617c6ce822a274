"""Credit for the support episodes that theta samples, the term of E-MAML (Stadie et al. 2018, equations 3 and 4).

The return after adaptation to support episodes D, V(theta) = E_D[J(theta'(theta, D))], depends on theta in two ways:
through theta', and through the distribution that D comes from. With R what theta' reached and b a baseline,

    grad V = E[ (d theta' / d theta)^T grad J(theta') + (R - b) sum over D of grad log pi_theta(a | s) ]

MAML has only the first part. With the paper's inner loss, whose advantages are constants, both together are the exact
gradient for any number of episodes, if the outer loss has exact advantages and one unit of return for all tasks. With
several inner steps, the episodes of step k count through the parameters theta_k that sampled them. Their part passes on
through the earlier steps, to learned step sizes too.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from maml_rl.derivatives import TaskLoss
from maml_rl.policies import Policy
from maml_rl.types import Batch, Params

_SLOPE_TASKS = 4  # number of other tasks at which a slope is fitted to them


def episode_credits(reached: Tensor, units: Tensor, before: Tensor) -> Tensor:
    """(R_i - b_ik) / u_i of each support episode, `[M, K]`: how much better task i fared than expected.

    The baseline is fitted to the other tasks j: b_ik = mean R_j + s_i (G_ik - mean G_j). G_ik is the mean return of the
    support episodes of task i except k, G_j that of task j, and s_i the slope of R_j over G_j. So the baseline knows
    how hard a task is, and yet does not depend on episode k. Nor does the unit u_i, the mean of the other tasks' units.
    That is why neither changes the expectation. (A baseline of the task's own advantages would leave nothing: their
    mean is 0.)

    Args:
        reached: Mean return R_i of the adapted policies `[M]`.
        units: What a return is divided by in the outer loss, `[M]`: standard deviation of the advantages times steps of
            an episode. Where that of the other tasks is 0, so is the credit.
        before: Return of each support episode, `[M, K]`.
    """
    reached, units, before = reached.double(), units.double(), before.double()
    level, unit, difficulty = (_mean_of_others(values)[:, None] for values in (reached, units, before.mean(1)))
    others = (before.sum(1, keepdim=True) - before) / max(before.shape[1] - 1, 1)
    slope = _slopes(before.mean(1), reached)[:, None] if before.shape[1] > 1 else 0.0
    credit = (reached[:, None] - level - slope * (others - difficulty)) / unit
    return torch.where(unit > 0, credit, 0.0)


def _mean_of_others(values: Tensor) -> Tensor:
    """For each task, the mean over all others, `[M]`."""
    return (values.sum() - values) / (len(values) - 1)


def _slopes(x: Tensor, y: Tensor) -> Tensor:
    """For each task, the slope of the line through all others' (x, y), `[M]`; 0 for few tasks or if all x are equal."""
    if len(x) <= _SLOPE_TASKS:
        return torch.zeros_like(x)
    unlike = 1 - torch.eye(len(x), dtype=x.dtype, device=x.device)
    from_x, from_y = (unlike * (values - _mean_of_others(values)[:, None]) for values in (x, y))  # [M, M]
    spread = from_x.square().sum(1)
    return torch.where(spread > 0, (from_x * from_y).sum(1) / spread, 0.0)


def credit_losses(policy: Policy, support: Sequence[Batch], credit: Sequence[Tensor]) -> list[TaskLoss]:
    """Minus the credited log-probability of a task's support, as a loss of the parameters that sampled each batch.

    Args:
        policy: The policy.
        support: Steps sampled before each inner update.
        credit: `[K]` of the episodes of each; none for no credit.
    """
    return [partial(_credit_loss, policy, batch, of_batch) for batch, of_batch in zip(support, credit, strict=False)]


def _credit_loss(policy: Policy, batch: Batch, credit: Tensor, params: Params) -> Tensor:
    """-sum over steps of c (pi(a|s) / pi_sampled(a|s) - 1), 0 at the sampling parameters.

    Its gradient there is that of -sum c log pi(a|s). Away from them, the expectation of each summand stays 0 where c is
    constant. That of log pi / pi_sampled is a KL divergence. Over all steps, it would hide the rest, and reward without
    bound making the episodes of a task that fared badly impossible.
    """
    log_ratios = policy(params, batch.observations).log_prob(batch.actions) - batch.log_probs
    return -(credit[batch.episodes] * log_ratios.expm1()).sum()
