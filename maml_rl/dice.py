"""Loaded DiCE: an inner loss whose Hessian credits an action with changing the probability of later ones.

Foerster et al. 2018 (DiCE), with baselines in all of its terms (Mao et al. 2019); Farquhar, Whiteson, Foerster 2019
(Loaded DiCE) discount that credit by the time between the two.
"""

from torch import Tensor

from maml_rl.advantages import discounted_sum
from maml_rl.distributions import Distribution
from maml_rl.types import Batch


def loaded_dice(distribution: Distribution, batch: Batch, dice_lambda: float) -> Tensor:
    """-mean((rho_t + d_t V_t) A_t), for its gradient and Hessian at the parameters that sampled the batch.

    d_t = log pi(a_t|s_t) - log pi_sampled(a_t|s_t), rho_t = exp d_t, V_t = sum over k < t of lambda^(t-k) d_k within an
    episode. At these parameters d is 0. With g_t and h_t the first two derivatives of log pi(a_t|s_t) and v_t that of
    V_t

        value -mean A_t,  gradient -mean A_t g_t,  Hessian -mean A_t (h_t + g_t g_t^T + g_t v_t^T + v_t g_t^T).

    Gradient and Hessian are those of the published objective, exp of discounted sums of d. With lambda = 0 it is
    `likelihood_ratio`. With lambda = 1 and unbiased advantages of the undiscounted return, the Hessian's expectation is
    that of the return. Elsewhere it is an expansion that weights a step by its past to first order only, so that long
    episodes cannot make it explode.

    Args:
        distribution: Of the policy in the batch's steps, `[N]`.
        batch: Whole episodes, each step of them once, in any order.
        dice_lambda: Factor on the credit for each time step, from 0 to 1.
    """
    differences = distribution.log_prob(batch.actions) - batch.log_probs
    weights = differences.exp() + differences * _earlier(differences, batch, dice_lambda)
    return -(weights * batch.advantages).mean()


def _earlier(values: Tensor, batch: Batch, factor: float) -> Tensor:
    """sum over k < t of factor^(t-k) values_k of the same episode, `[N]`."""
    shape = int(batch.episodes.max()) + 1, int(batch.times.max()) + 1
    grid = values.new_zeros(shape).index_put((batch.episodes, batch.times), values)  # [K, T], 0 after an episode's end
    sums = discounted_sum(grid.flip(-1), factor).flip(-1)
    return sums[batch.episodes, batch.times] - values
