"""Losses of one task for the inner and the outer update, each a mean over the steps of a `Batch`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maml_rl.config import RLMeta
from maml_rl.dice import loaded_dice
from maml_rl.distributions import Distribution
from maml_rl.errors import InputError, one_line, place, reason
from maml_rl.imports import import_named
from maml_rl.policies import Policy
from maml_rl.types import Batch, Params

Loss = Callable[[Params, Batch], Tensor]
DistributionLoss = Callable[[Distribution, Batch], Tensor]
"""A loss as a function of the policy's distribution in the batch's steps, `[N]`."""


@dataclass(frozen=True)
class PolicyLoss:
    """A loss that depends on the parameters only through the policy's distribution."""

    policy: Policy
    of_distribution: DistributionLoss

    def __call__(self, params: Params, batch: Batch) -> Tensor:
        """The loss of the policy with these parameters, `[]`."""
        return self.of_distribution(self.policy(params, batch.observations), batch)


def reinforce(distribution: Distribution, batch: Batch) -> Tensor:
    """-mean(log pi(a|s) A): the policy gradient's surrogate (Finn et al. 2017, equation 4), the paper's inner loss.

    Away from the sampling parameters, its gradient is for actions that the policy would no longer take: nothing weights
    the steps by how likely they have become.
    """
    return -(distribution.log_prob(batch.actions) * batch.advantages).mean()


def likelihood_ratio(distribution: Distribution, batch: Batch) -> Tensor:
    """-mean(pi(a|s) / pi_sampled(a|s) A), with A fixed.

    Its gradient equals that of `reinforce` at the sampling parameters. Its Hessian is closer to that of the expected
    return, but not equal: it leaves out how an action changes the probability of later ones (low-variance curvature,
    LVC: Rothfuss et al. 2019, ProMP, equation 9). As an outer loss it is TRPO's surrogate (Schulman et al. 2015,
    equation 14).
    """
    return -((distribution.log_prob(batch.actions) - batch.log_probs).exp() * batch.advantages).mean()


_OBJECTIVES: dict[str, DistributionLoss] = {"reinforce": reinforce, "lvc": likelihood_ratio}


def inner_loss(policy: Policy, config: RLMeta) -> Loss:
    """The inner loss that `config.inner_objective` names; those of this module are a `PolicyLoss`.

    Args:
        policy: The policy.
        config: Settings; a `module:function` is called as `loss(policy, params, batch)` and returns a scalar that can
            be differentiated twice with respect to `params`.

    Raises:
        InputError: If your own loss cannot be imported; and when it is called, if it fails or does not return a scalar.
    """
    objective = config.inner_objective
    if objective == "dice":
        return PolicyLoss(policy, partial(loaded_dice, dice_lambda=config.dice_lambda))
    if objective in _OBJECTIVES:
        return PolicyLoss(policy, _OBJECTIVES[objective])
    return partial(_own_loss, import_named("inner_objective", objective), objective, policy)


def check_own_loss(policy: Policy, params: Params, config: RLMeta, observation_size: int) -> None:
    """Tests your own loss on artificial episodes of two steps, so that errors appear before training starts.

    Args:
        policy: The policy.
        params: Its parameters.
        config: See `inner_loss`; the losses of this module are not tried.
        observation_size: Components of an observation.

    Raises:
        InputError: If there is no such loss, if it fails or returns no scalar, if that does not depend on `params`, or
            if it or its gradient is not finite.
    """
    loss, objective = inner_loss(policy, config), config.inner_objective
    if isinstance(loss, PolicyLoss):
        return
    steps, like = 2 * config.episodes, next(iter(params.values()))
    generator = np.random.default_rng(0)
    with torch.no_grad():
        observations = torch.from_numpy(generator.standard_normal((steps, observation_size))).to(like)
        acting = policy(params, observations)
        actions = acting.sample(torch.from_numpy(acting.noise(generator, (steps,), policy.noise_size)).to(like))
        log_probs = acting.log_prob(actions)
    advantages = torch.linspace(-1.0, 1.0, steps).to(like)
    index = torch.arange(steps, device=like.device)
    batch = Batch(observations, actions, log_probs, advantages, episodes=index // 2, times=index % 2)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
    with torch.enable_grad():
        value = loss(leaves, batch)
    if not value.requires_grad:
        raise InputError(
            f"inner_objective {objective!r} does not depend on params, so the inner update would have no effect: "
            "compute it from policy(params, batch.observations)"
        )
    gradient = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    if not all(bool(found.isfinite().all()) for found in (value, *gradient) if found is not None):
        raise InputError(
            f"inner_objective {objective!r} or its gradient is not finite on artificial episodes: look for a division "
            "by 0, a logarithm of 0 or a square root of 0"
        )


def _own_loss(function: Callable[..., Any], name: str, policy: Policy, params: Params, batch: Batch) -> Tensor:
    try:
        loss = function(policy, params, batch)
    except InputError:
        raise
    except Exception as error:  # the user's code may raise anything
        is_inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None  # not the call itself
        where = f"; {place(error)}" if is_inside else ""
        raise InputError(
            f"inner_objective {name!r} failed ({reason(error)}{where}): it is called as loss(policy, params, batch)"
        ) from error
    if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
        found = f"{loss.dtype} of shape {list(loss.shape)}" if isinstance(loss, Tensor) else one_line(loss)
        raise InputError(
            f"inner_objective {name!r} must return a floating-point tensor of shape [], the mean over the steps of the "
            f"batch, got {found}"
        )
    return loss


class Surrogate(NamedTuple):
    """Quantities that the line search compares, for one task or averaged over tasks."""

    loss: Tensor  # []   likelihood_ratio of the adapted policy on the query steps
    kl: Tensor  # []     mean KL(old adapted || new adapted) over the query steps, nats


def surrogate_and_kl(new: Distribution, batch: Batch, old: Distribution) -> Surrogate:
    """Outer loss and KL(old || new).

    Args:
        new: Distributions `[N]` of the new adapted policy in the query steps.
        batch: Query steps of this task.
        old: Those of the old adapted policy.
    """
    return Surrogate(likelihood_ratio(new, batch), old.kl(new).mean())
