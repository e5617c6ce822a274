import numpy as np
import pytest
import torch

from maml_rl.config import PolicyConfig, RLConfig, RLMeta
from maml_rl.errors import InputError
from maml_rl.gradient_noise import gradient_noise, meta_gradients, noise_of
from maml_rl.reinforcement import open_rl
from maml_rl.types import flatten

NAVIGATION = RLConfig(
    env_id="maml_rl.envs:finn2017/Navigation2D-v0",
    meta=RLMeta(meta_batch_size=2, episodes=2, learned_lr="parameter"),
    network=PolicyConfig(hidden_sizes=(4,), standardise=False),
    max_episode_steps=5,
)


def test_signal_and_noise_by_hand() -> None:
    # Two draws with product 1 * 3 + 2 * 0 = 3, lengths sqrt 5 and 3, and variances 2 and 2.
    found = noise_of(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    assert (found.signal_squared, found.noise_squared, found.draws) == pytest.approx((3, 4, 2))
    assert found.cosine == pytest.approx(3 / (3 * 5**0.5))
    assert found.relative_deviation == pytest.approx((4 / 3) ** 0.5)
    # Three: products 3, 1 + 2 * 1 = 3 and 3 * 1 = 3.
    assert noise_of(torch.tensor([[1.0, 2.0], [3.0, 0.0], [1.0, 1.0]])).signal_squared == pytest.approx(3)


def test_opposite_draws_show_no_signal() -> None:
    found = noise_of(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]))
    assert found.signal_squared == -5
    assert (found.signal, found.relative_deviation, found.cosine) == (0, float("inf"), pytest.approx(-1))
    still = noise_of(torch.zeros(3, 2))
    assert (still.signal, still.noise, still.cosine) == (0, 0, 0)


def test_the_estimates_of_signal_and_noise_have_no_bias() -> None:
    # s = (3, 4, 0, ..., 0), 25 squared, and noise of deviation 2 in 10 numbers, 40 squared. The spread of the estimates
    # over 2000 sets of 5 draws gives the standard error of their mean.
    generator = torch.Generator().manual_seed(0)
    signal = torch.tensor([3.0, 4.0] + [0.0] * 8)
    sets = signal + 2 * torch.randn(2000, 5, 10, generator=generator)
    found = np.array([noise_of(draws)[:2] for draws in sets])
    errors = found.std(0) / len(found) ** 0.5
    assert (np.abs(found.mean(0) - [25, 40]) < 4 * errors).all()
    assert (errors < [0.5, 0.5]).all()
    biased = sets.mean(1).square().sum(1).mean()  # the squared length of the mean of 5 draws has a fifth of the noise
    assert biased == pytest.approx(33, abs=0.5)


def test_the_draws_are_the_meta_gradients_of_the_next_iterations_by_theta() -> None:
    with open_rl(NAVIGATION) as learner:
        state = learner.initial()._replace(iteration=3)
        gradients = [flatten(gradient) for gradient in meta_gradients(learner, state, 2)]
        for draw, gradient in enumerate(gradients):
            metrics = learner.iterate(state._replace(iteration=3 + draw))[1].values
            assert gradient.norm().item() == pytest.approx(metrics["meta/gradient_norm"], rel=1e-6)
        assert not torch.equal(*gradients)
        found = gradient_noise(learner, state, 2)
        count = sum(value.numel() for name, value in state.meta.items() if not name.startswith("inner_lr."))
        assert count < len(gradients[0])
        assert found == noise_of(torch.stack([gradient[:count] for gradient in gradients]))


def test_one_draw_is_refused() -> None:
    with pytest.raises(InputError, match="draws must be at least 2, got 1"):
        noise_of(torch.ones(1, 3))
