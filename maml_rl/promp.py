"""The objective of proximal meta-policy search, of one task (Rothfuss et al. 2019, ProMP, equation 13).

Several meta-steps use the same episodes, each after adapting again from the meta-parameters that the one before has
reached. Two bounds keep them near the policies that sampled: where the adapted policy has changed the probability of an
action too much, it gains nothing more, and the policies that sampled the support steps pay for their KL.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config import ProMP
from maml_rl.derivatives import TaskLoss
from maml_rl.distributions import Distribution
from maml_rl.inner import inner_path
from maml_rl.jacobian import adaptation_jacobian
from maml_rl.policies import Policy
from maml_rl.rates import InnerRates, theta
from maml_rl.types import Batch, Params


def clipped_ratio(distribution: Distribution, batch: Batch, clip: float) -> Tensor:
    """-mean(min(r A, clip(r, 1 - eps, 1 + eps) A)), r = pi(a|s) / pi_sampled(a|s) (Schulman et al. 2017, PPO).

    Where r lies outside and A rewards going further, the step has no gradient. Inside, it is `likelihood_ratio`.
    """
    ratios = (distribution.log_prob(batch.actions) - batch.log_probs).exp()
    clipped = ratios.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratios * batch.advantages, clipped * batch.advantages).mean()


def clipped_share(distribution: Distribution, batch: Batch, clip: float) -> Tensor:
    """Share of the steps without a gradient, because their r lies outside where A rewards going further."""
    change = (distribution.log_prob(batch.actions) - batch.log_probs).expm1()
    return (change * batch.advantages.sign() > clip).to(change.dtype).mean()


class ProximalTask(NamedTuple):
    """The objective of one task at any meta-parameters, after adapting from them on the same support steps.

    With theta_0 = theta and theta_k after k inner updates, n of them in all, it is the loss
    clipped_ratio(pi_theta_n) + eta / n sum_k KL(old_k || pi_theta_k), k < n.
    """

    policy: Policy
    rule: ProMP
    losses: Sequence[TaskLoss]  # of each inner update
    rates: InnerRates
    fixed: Params  # meta-parameters that no step changes, a context among them
    first_order: bool
    support: Sequence[Batch]
    query: Batch
    old: Sequence[Distribution]  # `[N]` each: that sampled the support steps of each inner update, and last the query's
    credited: Sequence[TaskLoss] = ()  # credit to the sampling, of the parameters before each inner update; or none

    def gradient(self, meta: Params) -> Params:
        """Gradient with respect to the meta-parameters that are learned."""
        path = self._path(meta)
        jacobian = adaptation_jacobian(self.losses, path, self.rates, self.fixed | meta, self.first_order)
        outer: Params = torch.func.grad(self._outer)(path[-1])
        counts = self.rule.kl_penalty > 0 or len(self.credited) > 0
        sampling: list[Params] = [
            torch.func.grad(self._sampling)(params, k) for k, params in enumerate(path[:-1]) if counts
        ]
        return jacobian.transposed_product(outer, along=sampling)

    def _path(self, meta: Params) -> list[Params]:
        whole = self.fixed | meta
        updates = [self.rates.at(whole, k) for k in range(len(self.losses))]
        with torch.no_grad():
            return inner_path(self.losses, theta(whole), updates)

    def _outer(self, params: Params) -> Tensor:
        return clipped_ratio(self.policy(params, self.query.observations), self.query, self.rule.clip)

    def _sampling(self, params: Params, step: int) -> Tensor:
        """What the policy before an inner update adds to the loss: its penalty, and its credit where there is some."""
        penalty = self.rule.kl_penalty / len(self.support) * self._kl(params, step, self.support[step])
        return penalty + self.credited[step](params) if self.credited else penalty

    def _kl(self, params: Params, step: int, batch: Batch) -> Tensor:
        return self.old[step].kl(self.policy(params, batch.observations)).mean()

    def metrics(self, meta: Params) -> Params:
        """What to log of the objective there, `[]` each (docs/metrics.md)."""
        with torch.no_grad():
            path = self._path(meta)
            kls = [self._kl(path[k], k, batch) for k, batch in enumerate([*self.support, self.query])]
            support_kl = torch.stack(kls[:-1]).mean() if self.support else torch.zeros_like(kls[-1])
            new = self.policy(path[-1], self.query.observations)
            outer = clipped_ratio(new, self.query, self.rule.clip)
            outer = sum((credit(path[k]) for k, credit in enumerate(self.credited)), start=outer)
            clipped = clipped_share(new, self.query, self.rule.clip)
        return {
            "meta/loss_after": outer + self.rule.kl_penalty * support_kl,
            "meta/kl": kls[-1],
            "meta/support_kl": support_kl,
            "meta/clipped": clipped,
        }
