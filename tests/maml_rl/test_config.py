import dataclasses
import math

import pytest

from maml_rl.config import Adam, PolicyConfig, ProMP, RLConfig, RLMeta, TrustRegion
from maml_rl.errors import InputError
from maml_rl.supervised.settings import NetworkConfig, SupervisedMeta, TasksConfig

THINNED = TrustRegion(hessian_fraction=0.5)
OUT_OF_RANGE = [
    (TrustRegion, "max_kl", [0.0, -0.01, math.nan, math.inf]),
    (TrustRegion, "cg_iterations", [0, -1]),
    (TrustRegion, "cg_damping", [-1e-5, math.nan]),
    (TrustRegion, "curvature_fraction", [0.0, -0.5, 1.5, math.nan]),
    (TrustRegion, "hessian_fraction", [0.0, -0.5, 1.5, math.nan]),
    (TrustRegion, "momentum", [-0.1, 1.0, math.nan]),
    (TrustRegion, "backtrack_ratio", [0.0, 1.0, -0.8, 2.0, math.nan]),
    (TrustRegion, "max_backtracks", [0, -1]),
    (ProMP, "lr", [0.0, -1e-3, math.nan]),
    (ProMP, "epochs", [0, -5]),
    (ProMP, "clip", [0.0, 1.0, -0.3, math.nan]),
    (ProMP, "kl_penalty", [-5e-4, math.nan, math.inf]),
    (RLMeta, "meta_batch_size", [0, -40]),
    (RLMeta, "episodes", [0, -20]),
    (RLMeta, "inner_steps", [-1]),
    (RLMeta, "inner_lr", [0.0, -0.1, math.nan, math.inf]),
    (RLMeta, "discount", [0.0, -0.5, 1.01, math.nan]),
    (RLMeta, "gae_lambda", [-0.1, 1.1, math.nan]),
    (RLMeta, "sampling_credit", [-0.1, math.nan]),
    (RLMeta, "dice_lambda", [-0.1, 1.1, math.nan]),
]
LIMITS = [
    (TrustRegion, {"max_kl": 1e-8, "cg_iterations": 1, "cg_damping": 0.0, "max_backtracks": 1}),
    (TrustRegion, {"curvature_fraction": 1.0, "backtrack_ratio": 0.99}),
    (ProMP, {"lr": 1e-9, "epochs": 1, "clip": 0.99, "kl_penalty": 0.0}),
    (RLMeta, {"meta_batch_size": 1, "episodes": 1, "inner_steps": 0, "discount": 1.0, "gae_lambda": 0.0}),
    (TrustRegion, {"hessian_fraction": 1.0, "momentum": 0.99}),
    (RLMeta, {"adapted_std_factor": 1e-3, "filtered_lr": True, "episodes": 2}),
    (RLMeta, {"gae_lambda": 1.0, "inner_objective": "lvc", "first_order": True}),
]


@pytest.mark.parametrize(
    ("settings", "field", "value"), [(kind, field, value) for kind, field, values in OUT_OF_RANGE for value in values]
)
def test_a_value_out_of_range_is_refused_in_one_line_with_field_and_value(settings, field: str, value: float) -> None:
    with pytest.raises(InputError) as caught:
        settings(**{field: value})
    message = str(caught.value)
    assert field in message
    assert message.endswith(f"got {value}")
    assert "\n" not in message


@pytest.mark.parametrize(("settings", "values"), LIMITS)
def test_values_at_the_limits_are_accepted(settings, values: dict[str, object]) -> None:
    built = settings(**values)
    assert {name: getattr(built, name) for name in values} == values


def test_every_number_has_a_range_that_is_tested() -> None:
    tested = {(kind, field) for kind, field, _ in OUT_OF_RANGE}
    numbers = {
        (kind, field.name)
        for kind in (TrustRegion, ProMP, RLMeta)
        for field in dataclasses.fields(kind)
        if type(getattr(kind(), field.name)) in (int, float)
    }
    assert tested == numbers


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RLMeta().inner_lr = 1.0


def test_changed_copies_are_checked_too() -> None:
    with pytest.raises(InputError, match="inner_lr"):
        dataclasses.replace(RLMeta(), inner_lr=-1.0)


def test_defaults_are_those_of_the_paper() -> None:
    config = RLMeta()
    assert (config.meta_batch_size, config.episodes, config.inner_steps, config.inner_lr) == (40, 20, 1, 0.1)
    assert (config.discount, config.gae_lambda, config.first_order) == (0.99, 1.0, False)
    assert (config.inner_objective, config.step.max_kl) == ("reinforce", 0.01)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RLMeta, "learned_lr", "yes"),
        (RLMeta, "adapted", "last_layer"),
        (RLMeta, "baseline_observations", "Raw"),
        (PolicyConfig, "activation", "gelu"),
        (SupervisedMeta, "algorithm", "fomaml"),
        (NetworkConfig, "architecture", "resnet"),
        (TasksConfig, "family", "sinusoids"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(kind, name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"^{name} must be one of .*, got '{value}'$"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapted": "context", "inner_steps": 0}, r"adapted context needs inner_steps of at least 1, got 0: .*"),
        ({"adapted_std_factor": 0.0}, "adapted_std_factor must be above 0 or None, got 0.0"),
        ({"adapted_std_factor": -0.5}, "adapted_std_factor must be above 0 or None, got -0.5"),
        ({"adapted_std_factor": 0.5, "inner_steps": 0}, "adapted_std_factor needs inner_steps of at least 1, .*"),
        ({"filtered_lr": True, "inner_steps": 0}, "filtered_lr needs inner_steps of at least 1, got 0: .*"),
        ({"filtered_lr": True, "episodes": 1}, "filtered_lr needs episodes of at least 2, got 1: .*"),
        ({"dice_lambda": 0.4}, "dice_lambda is for inner_objective dice, got reinforce: remove dice_lambda"),
        ({"dice_lambda": 0.0, "inner_objective": "lvc"}, "dice_lambda is for inner_objective dice, got lvc: .*"),
        ({"inner_objective": "dice", "first_order": True}, ".* set inner_objective to reinforce"),
        ({"step": THINNED, "first_order": True}, "step.hessian_fraction 0.5 .*: set it to 1"),
        ({"step": ProMP()}, "step promp .*: set inner_objective to lvc, or step.epochs to 1"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused_in_one_line(settings, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        RLMeta(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"step": THINNED, "first_order": True, "inner_steps": 0},
        {"step": ProMP(), "inner_steps": 0},
        {"step": ProMP(epochs=1)},
        {"step": ProMP(), "inner_objective": "losses:mine"},
        {"step": ProMP(), "inner_objective": "dice", "dice_lambda": 0.0, "first_order": True},
    ],
)
def test_similar_settings_that_make_sense_are_accepted(settings) -> None:
    assert RLMeta(**settings).step.rule in ("trust-region", "promp")


def test_supervised_learning_refuses_a_context_without_inner_steps_too() -> None:
    with pytest.raises(InputError, match=r"^adapted context needs inner_steps of at least 1, got 0: "):
        SupervisedMeta(adapted="context", inner_steps=0)


def test_dice_needs_whole_episodes_in_its_hessian() -> None:
    with pytest.raises(InputError, match=r"^inner_objective dice needs .* step.hessian_fraction 0.5 .*: set it to 1$"):
        RLMeta(inner_objective="dice", step=THINNED)
    for meta in (RLMeta(inner_objective="lvc", step=THINNED), RLMeta(inner_objective="dice", step=Adam())):
        assert meta.inner_objective in ("lvc", "dice")


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({}, "maml"),
        ({"inner_objective": "lvc"}, "maml-lvc"),
        ({"inner_objective": "dice", "adapted": "last-layer"}, "anil-dice"),
        ({"inner_objective": "losses:mine", "first_order": True}, "first-order-mine"),
        ({"inner_objective": "lvc", "inner_steps": 0}, "pretrained"),
        ({"inner_objective": "lvc", "step": ProMP()}, "promp"),
        ({"step": ProMP(epochs=1)}, "promp-reinforce"),
        ({"inner_objective": "lvc", "step": ProMP(), "adapted": "last-layer"}, "anil-promp"),
        ({"learned_lr": "parameter", "first_order": True}, "meta-sgd-first-order"),
        ({"learned_lr": "tensor-and-step", "adapted": "last-layer"}, "anil-maml++"),
        ({"filtered_lr": True}, "maml-filtered"),
        ({"filtered_lr": True, "adapted_std_factor": 0.5, "inner_objective": "lvc"}, "maml-lvc-filtered-std-factor"),
        ({"sampling_credit": 1.0, "inner_objective": "losses:mine"}, "e-maml-mine"),
    ],
)
def test_a_run_is_named_after_what_differs_from_maml(settings: dict[str, object], method: str) -> None:
    config = RLConfig(env_id="Mine-v0", meta=RLMeta(**settings))
    assert config.method == method
    assert dataclasses.replace(config, iterations=0).method == "random"


def test_an_oracle_is_named_after_its_inner_objective_too() -> None:
    config = RLConfig(env_id="Mine-v0", observe_task=True, meta=RLMeta(inner_objective="lvc"))
    assert config.method == "maml-oracle-lvc"
    anil = RLMeta(adapted="last-layer")
    assert dataclasses.replace(config, meta=anil).method == "anil-oracle"


@pytest.mark.parametrize("rule", [TrustRegion(), ProMP()])
def test_supervised_learning_has_no_meta_step_that_compares_policies(rule) -> None:
    with pytest.raises(InputError, match=f"^meta.step {rule.rule} needs a policy: [^\n]* use adam or sgd$"):
        SupervisedMeta(step=rule)
