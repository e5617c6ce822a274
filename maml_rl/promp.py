"""The objective of proximal meta-policy search, of one task (Rothfuss et al. 2019, ProMP, equation 13).

Several meta-steps use the same episodes, and each adapts again from the meta-parameters that the previous one reached.
Two limits keep them near the policies that sampled: once the adapted policy has changed the probability of an action
too much, it gains nothing more, and the KL of the policies that sampled the support steps is penalised.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config import ProMP
from maml_rl.derivatives import TaskLoss, derivatives
from maml_rl.distributions import Distribution
from maml_rl.inner import inner_path
from maml_rl.jacobian import linear_adaptation
from maml_rl.linear_policy import task_loss
from maml_rl.objectives import DistributionLoss, PolicyLoss
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
    first_order: bool
    support: Sequence[Batch]
    query: Batch
    old: Sequence[Distribution]  # `[N]` each: that sampled the support steps of each inner update, and last the query's
    credited: Sequence[TaskLoss] = ()  # credit to the sampling, of the parameters before each inner update; or none

    def gradient(self, meta: Params) -> Params:
        """Gradient with respect to the meta-parameters that are learned."""
        path, jacobian = linear_adaptation(self.losses, self.rates, meta, self.first_order)
        outer = self._gradient(partial(clipped_ratio, clip=self.rule.clip), path[-1], self.query)
        along = [self._before(params, step) for step, params in enumerate(path[:-1])]
        return jacobian.transposed_product(outer, along)

    def _gradient(self, loss: DistributionLoss, params: Params, batch: Batch) -> Params:
        return derivatives(task_loss(PolicyLoss(self.policy, loss), batch), params).gradient(params)

    def _before(self, params: Params, step: int) -> Params:
        """Gradient of the terms of the policy before an inner update: its penalty, and its credit if there is any."""
        old, weight = self.old[step], self.rule.kl_penalty / len(self.support)
        result = self._gradient(lambda new, _: weight * old.kl(new).mean(), params, self.support[step])
        for credit in self.credited[step : step + 1]:
            result = {n: result[n] + g for n, g in derivatives(credit, params).gradient(params).items()}
        return result

    def metrics(self, meta: Params) -> Params:
        """What to log of the objective there, `[]` each (docs/metrics.md)."""
        with torch.no_grad():
            path = inner_path(self.losses, theta(meta), [self.rates.at(meta, k) for k in range(len(self.losses))])
            new = self.policy(path[-1], self.query.observations)
            outer = clipped_ratio(new, self.query, self.rule.clip)
            outer = sum((credit(path[k]) for k, credit in enumerate(self.credited)), start=outer)
            before = zip(self.old, path, self.support, strict=False)
            kls = [old.kl(self.policy(params, batch.observations)).mean() for old, params, batch in before]
            support_kl = torch.stack(kls).mean() if kls else torch.zeros_like(outer)
            return {
                "meta/loss_after": outer + self.rule.kl_penalty * support_kl,
                "meta/kl": self.old[-1].kl(new).mean(),
                "meta/support_kl": support_kl,
                "meta/clipped": clipped_share(new, self.query, self.rule.clip),
            }
