"""Losses of one task, each a mean over the steps of a `Batch`: what the inner and the outer update minimise."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from maml_rl.distributions import Distribution
from maml_rl.policies import Policy
from maml_rl.types import Batch, Params

InnerObjective = Literal["reinforce", "lvc"]
Loss = Callable[[Params, Batch], Tensor]


def reinforce_loss(policy: Policy, params: Params, batch: Batch) -> Tensor:
    """-mean(log pi(a|s) A): the policy gradient's surrogate (Finn et al. 2017, equation 4), the paper's inner loss."""
    return -(policy(params, batch.observations).log_prob(batch.actions) * batch.advantages).mean()


def likelihood_ratio_loss(policy: Policy, params: Params, batch: Batch) -> Tensor:
    """-mean(pi(a|s) / pi_sampled(a|s) A), with A fixed.

    Its gradient equals that of `reinforce_loss` at the sampling parameters. Its Hessian is closer to that of the
    expected return, but not equal: it leaves out how an action changes the probability of later ones (low-variance
    curvature, LVC: Rothfuss et al. 2019, ProMP, equation 9). As an outer loss it is TRPO's surrogate (Schulman et al.
    2015, equation 14).
    """
    log_probs = policy(params, batch.observations).log_prob(batch.actions)
    return -((log_probs - batch.log_probs).exp() * batch.advantages).mean()


def inner_loss(policy: Policy, objective: InnerObjective) -> Loss:
    """The inner loss of that name, as a function of parameters and batch."""
    function = {"reinforce": reinforce_loss, "lvc": likelihood_ratio_loss}[objective]
    return lambda params, batch: function(policy, params, batch)


class Surrogate(NamedTuple):
    """What the line search compares, of one task or averaged over tasks."""

    loss: Tensor  # []   likelihood_ratio_loss of the adapted policy on the query steps
    kl: Tensor  # []     mean KL(old adapted || new adapted) over the query steps, nats


def surrogate_and_kl(policy: Policy, params: Params, batch: Batch, old: Distribution) -> Surrogate:
    """Outer loss and KL(old || new) from one evaluation of the policy.

    Args:
        policy: The policy.
        params: New adapted parameters of this task.
        batch: Query steps of this task.
        old: Distributions `[N]` of the old adapted policy in those steps.
    """
    new = policy(params, batch.observations)
    ratios = (new.log_prob(batch.actions) - batch.log_probs).exp()
    return Surrogate(-(ratios * batch.advantages).mean(), old.kl(new).mean())
