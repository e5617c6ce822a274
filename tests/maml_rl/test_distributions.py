import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, distributions

from maml_rl.distributions import Bernoulli, Categorical, DiagonalGaussian, multi_categorical

SIZES = range(1, 8)
ROWS = (3, 5)


def gaussian(size: int, seed: int = 0) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, *ROWS, size, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(draw[0], 0.5 * draw[1])


def categorical(size: int, seed: int = 0) -> Categorical:
    return Categorical(torch.randn(*ROWS, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def bernoulli(size: int, seed: int = 0) -> Bernoulli:
    return Bernoulli(2 * categorical(size, seed).logits)


def reference(ours: DiagonalGaussian | Categorical | Bernoulli) -> distributions.Distribution:
    if isinstance(ours, Bernoulli):
        return distributions.Independent(distributions.Bernoulli(logits=ours.logits), 1)
    if isinstance(ours, Categorical):
        return distributions.Categorical(logits=ours.logits)
    return distributions.Independent(distributions.Normal(ours.mean, ours.log_std.exp()), 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [gaussian, categorical, bernoulli])
class TestAgainstTorch:
    def test_log_prob_is_that_of_torch_and_summed_over_action_dimensions(self, make, size: int) -> None:
        ours = make(size)
        actions = reference(make(size, seed=1)).sample()
        assert ours.log_prob(actions).shape == ROWS
        torch.testing.assert_close(ours.log_prob(actions), reference(ours).log_prob(actions))

    def test_entropy_is_that_of_torch(self, make, size: int) -> None:
        ours = make(size)
        assert ours.entropy().shape == ROWS
        torch.testing.assert_close(ours.entropy(), reference(ours).entropy())

    def test_kl_is_that_of_torch(self, make, size: int) -> None:
        ours, other = make(size), make(size, seed=1)
        assert ours.kl(other).shape == ROWS
        torch.testing.assert_close(ours.kl(other), distributions.kl_divergence(reference(ours), reference(other)))

    def test_kl_of_a_distribution_from_itself_is_zero(self, make, size: int) -> None:
        torch.testing.assert_close(make(size).kl(make(size)), torch.zeros(ROWS, dtype=torch.float64))

    def test_fisher_product_is_that_of_the_hessian_of_the_kl(self, make, size: int) -> None:
        ours = type(make(size))(*(parameter[0, 0] for parameter in make(size)))
        tangents = tuple(parameter[0, 0] for parameter in make(size, seed=1))

        def kl(vector: Tensor) -> Tensor:
            return ours.kl(type(ours)(*vector.split(size)))

        hessian = torch.func.jacrev(torch.func.jacrev(kl))(torch.cat(ours.parameters()))
        product = torch.cat(ours.fisher_product(tangents))
        torch.testing.assert_close(product, hessian @ torch.cat(tangents))

    def test_fisher_product_treats_every_row_separately(self, make, size: int) -> None:
        ours, tangents = make(size), make(size, seed=1).parameters()
        product = ours.fisher_product(tangents)
        of_row = type(ours)(*(p[1, 2] for p in ours)).fisher_product(tuple(t[1, 2] for t in tangents))
        assert all(torch.equal(p[1, 2], r) for p, r in zip(product, of_row, strict=True))


def test_kl_of_gaussians_is_in_the_documented_direction() -> None:
    narrow = DiagonalGaussian(torch.zeros(1), torch.zeros(1))  # std 1
    wide = DiagonalGaussian(torch.zeros(1), torch.full((1,), math.log(2)))  # std 2
    # KL(narrow || wide) = log 2 + 1 / 8 - 1/2 = 0.3181, KL(wide || narrow) = -log 2 + 4 / 2 - 1/2 = 0.8069
    assert narrow.kl(wide).item() == pytest.approx(math.log(2) + 1 / 8 - 1 / 2)
    assert wide.kl(narrow).item() == pytest.approx(-math.log(2) + 2 - 1 / 2)


def test_kl_of_categoricals_is_in_the_documented_direction() -> None:
    fair = Categorical(torch.zeros(2))
    biased = Categorical(torch.tensor([0.9, 0.1]).log())
    # KL(fair || biased) = 1/2 log(0.5 / 0.9) + 1/2 log(0.5 / 0.1), KL(biased || fair) = 0.9 log 1.8 + 0.1 log 0.2
    assert fair.kl(biased).item() == pytest.approx(0.5 * math.log(5 / 9) + 0.5 * math.log(5))
    assert biased.kl(fair).item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))


moderate = hnp.arrays(np.float64, (4, 3), elements=st.floats(-5, 5))


@given(moderate, moderate, moderate, moderate)
def test_kl_of_gaussians_is_never_negative(m1, s1, m2, s2) -> None:
    first, second = (DiagonalGaussian(torch.tensor(m), torch.tensor(s)) for m, s in ((m1, s1), (m2, s2)))
    assert (first.kl(second) >= -1e-9).all()


@given(moderate, moderate)
def test_kl_of_categoricals_is_never_negative(first, second) -> None:
    assert (Categorical(torch.tensor(first)).kl(Categorical(torch.tensor(second))) >= -1e-12).all()


@given(moderate, st.floats(-50, 50))
def test_a_constant_added_to_the_logits_changes_nothing(logits, constant: float) -> None:
    first, second = Categorical(torch.tensor(logits)), Categorical(torch.tensor(logits + constant))
    actions = torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(first.log_prob(actions), second.log_prob(actions))
    torch.testing.assert_close(first.kl(second), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(first.entropy(), second.entropy())


def test_gaussian_samples_are_mean_plus_std_times_noise() -> None:
    distribution = DiagonalGaussian(torch.tensor([1.0, -2.0]), torch.tensor([0.0, math.log(3)]))
    sample = distribution.sample(torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(sample, torch.tensor([1.5, -5.0]))  # 1 + 1 * 0.5, -2 + 3 * -1


def test_gaussian_samples_have_the_mean_and_the_standard_deviation() -> None:
    count, mean, std = 100_000, torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    noise = torch.from_numpy(DiagonalGaussian.noise(np.random.default_rng(0), (count,), 2))
    samples = DiagonalGaussian(mean, std.log()).sample(noise)
    # Standard errors: std / sqrt(n) of the mean, std / sqrt(2 n) of the standard deviation; 5 of them.
    assert ((samples.mean(0) - mean).abs() < 5 * std / count**0.5).all()
    assert ((samples.std(0) - std).abs() < 5 * std / (2 * count) ** 0.5).all()
    correlation = torch.corrcoef(samples.T)[0, 1]
    assert correlation.abs() < 5 / count**0.5


def test_categorical_samples_have_the_probabilities() -> None:
    count, probs = 100_000, torch.tensor([0.5, 0.3, 0.15, 0.05])
    noise = torch.from_numpy(Categorical.noise(np.random.default_rng(0), (count,), 4))
    samples = Categorical(probs.log() + 7).sample(noise)
    assert samples.dtype == torch.int64
    frequencies = torch.bincount(samples, minlength=4) / count
    assert ((frequencies - probs).abs() < 5 * (probs * (1 - probs) / count).sqrt()).all()


def test_several_choices_are_a_product_of_categorical_distributions() -> None:
    """Each with its own number of alternatives; the Fisher product is that of the Hessian of their KL."""
    sizes = (2, 3, 1)
    kind = multi_categorical(sizes)
    ours, other = (kind(categorical(sum(sizes), seed).logits) for seed in (0, 1))
    parts = [[Categorical(part) for part in d.logits.split(sizes, -1)] for d in (ours, other)]
    actions = torch.stack([torch.randint(n, ROWS, generator=torch.Generator().manual_seed(n)) for n in sizes], -1)
    singles = list(zip(*parts, actions.unbind(-1), strict=True))
    torch.testing.assert_close(ours.log_prob(actions), sum(own.log_prob(chosen) for own, _, chosen in singles))
    torch.testing.assert_close(ours.entropy(), sum(own.entropy() for own, *_ in singles))
    torch.testing.assert_close(ours.kl(other), sum(own.kl(others) for own, others, _ in singles))
    logits, tangent = ours.logits[0, 0], other.logits[0, 0]
    hessian = torch.autograd.functional.hessian(lambda vector: kind(logits).kl(kind(vector)), logits)
    torch.testing.assert_close(kind(logits).fisher_product((tangent,))[0], hessian @ tangent)


def test_known_answers_of_several_choices_and_switches() -> None:
    # A fair coin and a choice among three with 1/2, 1/4, 1/4: log 1/2 + log 1/4, and log 2 + 3/2 log 2 nats.
    choices = multi_categorical((2, 3))(torch.tensor([0.0, 0.0, 2.0, 1.0, 1.0]) * math.log(2))
    assert choices.log_prob(torch.tensor([1, 2])).item() == pytest.approx(math.log(1 / 8))
    assert choices.entropy().item() == pytest.approx(2.5 * math.log(2))
    # Switches that are on with 3/4 and 1/2: both on 3/8; KL from fair ones 3/4 log 3/2 + 1/4 log 1/2.
    switches = Bernoulli(torch.tensor([math.log(3), 0.0]))
    assert switches.log_prob(torch.tensor([1, 1])).item() == pytest.approx(math.log(3 / 8))
    assert switches.kl(Bernoulli(torch.zeros(2))).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    certain = Bernoulli(torch.tensor([200.0, -200.0]))
    assert certain.log_prob(torch.tensor([1, 0])).item() == 0.0
    assert certain.entropy().item() == 0.0


def test_samples_of_several_choices_and_switches_have_the_probabilities() -> None:
    count, generator = 100_000, np.random.default_rng(0)
    kind, first, second = multi_categorical((2, 3)), torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.3, 0.2])
    noise = torch.from_numpy(kind.noise(generator, (count,), 5))
    samples = kind(torch.cat([first, second]).log()).sample(noise)
    assert samples.dtype == torch.int64
    assert samples.shape == (count, 2)
    for column, probs in zip(samples.T, (first, second), strict=True):
        frequencies = torch.bincount(column, minlength=len(probs)) / count
        assert ((frequencies - probs).abs() < 5 * (probs * (1 - probs) / count).sqrt()).all()
    probs = torch.tensor([0.1, 0.5, 0.9])
    noise = torch.from_numpy(Bernoulli.noise(generator, (count,), 3))
    switched = Bernoulli(probs.logit()).sample(noise)
    assert switched.dtype == torch.int64
    assert ((switched.float().mean(0) - probs).abs() < 5 * (probs * (1 - probs) / count).sqrt()).all()


@pytest.mark.parametrize("distribution", [DiagonalGaussian, Categorical, Bernoulli, multi_categorical((1, 3))])
def test_noise_is_a_function_of_the_generator(distribution) -> None:
    first, second, other = (distribution.noise(np.random.default_rng(seed), (2, 3), 4) for seed in (1, 1, 2))
    assert first.shape == (2, 3, 4)
    assert first.dtype == np.float32
    assert (first == second).all()
    assert (first != other).any()
