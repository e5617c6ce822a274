"""What a preset is."""

from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar, get_args, get_type_hints

from maml_rl.config import ProMP, RLConfig, RunConfig, TrustRegion
from maml_rl.errors import InputError
from maml_rl.supervised.settings import SupervisedConfig

_OF = {"all": "", "last-layer": " of the last layer", "context": " of the context"}
Config = TypeVar("Config", bound=RunConfig)


class Preset(NamedTuple, Generic[Config]):
    """A run's settings with their source and what to expect of them."""

    config: Config
    task: str
    source: str
    expected: str  # after each number of gradient steps, the paper's own values where it says so

    def settings(self) -> str:
        """The settings in one line."""
        config: RunConfig = self.config
        meta = config.meta
        is_lstm = isinstance(config, SupervisedConfig) and config.meta.algorithm == "meta-lstm"
        size = "an LSTM" if is_lstm else f"{meta.inner_lr:g}"
        inner = f"{meta.inner_steps} inner step{'' if meta.inner_steps == 1 else 's'} of {size}"
        inner += _OF[meta.adapted]
        if isinstance(meta.step, TrustRegion):
            rule = f"max KL {meta.step.max_kl}"
        else:
            steps = f"{meta.step.epochs} steps of " if isinstance(meta.step, ProMP) else ""
            rule = f"{meta.step.rule} {steps}{meta.step.lr:g}"
        tasks = f"{meta.meta_batch_size} task{'' if meta.meta_batch_size == 1 else 's'}"
        episodes, others = "", ""
        if isinstance(config, RLConfig):
            episodes = f" x {config.meta.episodes} episodes"
            observations = "standardised" if config.network.standardise else "raw"
            others = f", lambda {config.meta.gae_lambda}, observations {observations}"
        return (
            f"{config.iterations} iterations of {tasks}{episodes}, "
            f"{inner if meta.inner_steps else 'no inner updates'}, {rule}{others}"
        )


def rules_for(config: Any) -> dict[str | None, type[Any]]:
    """Settings of each rule for the meta-step that this kind of learning has, by the rule's name."""
    return {kind.rule: kind for kind in get_args(get_type_hints(type(config.meta))["step"])}


def with_rule(config: Any, rule: str | None) -> Any:
    """Settings with another rule for the meta-step, with that rule's defaults; promp also gets the inner loss lvc.

    An unknown rule leaves the settings as they are.
    """
    rules = rules_for(config)
    if rule not in rules or rule == config.meta.step.rule:
        return config
    own = {"inner_objective": "lvc"} if rules[rule] is ProMP else {}
    return replace(config, meta=replace(config.meta, step=rules[rule](), **own))


def takes_rule(config: Any, rule: str) -> bool:
    """Whether settings can have a rule for the meta-step: imitation takes only adam or sgd."""
    try:
        with_rule(config, rule)
    except InputError:
        return False
    return True
