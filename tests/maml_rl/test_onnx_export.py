"""A policy as an ONNX model: what a runtime computes is what the policy does."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import maml_rl
from maml_rl.errors import InputError
from maml_rl.logged import explorer
from maml_rl.numpy_policy import NumpyPolicy
from maml_rl.onnx_export import OPSET, to_onnx

TRAINED = Path(__file__).parents[2] / "trained"


def random_policy(activation: str = "tanh", clip: float = 1.5, *, has_std: bool = True) -> NumpyPolicy:
    generator = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    sizes = [(7, 4), (5, 7), (2, 5)]
    return NumpyPolicy(
        weights=[array(*size) for size in sizes],
        biases=[array(size[0]) for size in sizes],
        activation=activation,
        mean=array(4),
        std=np.exp(array(4)),
        clip=clip,
        log_std=array(2) if has_std else None,
        low=np.float32([-0.5, -2.0]) if has_std else np.float32(3),
        high=np.float32([0.1, 1.0]) if has_std else np.float32(4),
    )


def outputs(policy: NumpyPolicy, observations: np.ndarray, opset: int = OPSET) -> dict[str, np.ndarray]:
    """What ONNX's runtime computes."""
    session = onnxruntime.InferenceSession(to_onnx(policy, opset))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"observation": observations}), strict=True))


@pytest.mark.parametrize("opset", [13, OPSET, 21])
@pytest.mark.parametrize(("activation", "clip"), [("tanh", 1.5), ("relu", float("inf"))])
def test_a_normal_distribution_is_computed_to_rounding(activation, clip, opset):
    policy = random_policy(activation, clip)
    observations = 3 * np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)
    found = outputs(policy, observations, opset)
    assert list(found) == ["action", "mean", "std"]
    np.testing.assert_allclose(found["mean"], policy.output(observations), rtol=1e-5, atol=1e-5)
    acted = np.stack([policy.act(observation) for observation in observations])
    np.testing.assert_allclose(found["action"], acted, rtol=1e-5, atol=1e-5)
    assert ((found["action"] >= policy.low) & (found["action"] <= policy.high)).all()
    assert (found["action"] != found["mean"]).any()
    np.testing.assert_allclose(found["std"], np.exp(policy.log_std), rtol=1e-6)


def test_choices_are_computed():
    policy = random_policy(has_std=False)
    observations = 3 * np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)
    found = outputs(policy, observations)
    assert list(found) == ["action", "logits"]
    assert found["action"].tolist() == [int(policy.act(observation)) for observation in observations]
    assert set(found["action"]) == {3, 4}


def test_a_trained_policy_is_computed_as_pytorch_does():
    run = maml_rl.load_run(TRAINED / "half-cheetah-dir")
    with run.open(maml_rl.Machine(threads=1)) as learner:
        _, episodes = next(learner.adaptation(run.state, [np.int64(0)], maml_rl.RLEvaluation(episodes=2)))
        seen = episodes.observations.reshape(-1, 20)
        ours = learner.policy(run.state.meta, seen).mean
    found = outputs(explorer(run), seen.numpy())
    np.testing.assert_allclose(found["mean"], ours, atol=1e-5 * float(ours.abs().max()))


@pytest.mark.parametrize("opset", [12, 1000])
def test_an_unsupported_opset_is_refused(opset):
    with pytest.raises(InputError, match=f"opset must be from 13 to {onnx.defs.onnx_opset_version()}.* got {opset}"):
        to_onnx(random_policy(), opset)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'maml-rl\[onnx\]'"):
        to_onnx(random_policy())
