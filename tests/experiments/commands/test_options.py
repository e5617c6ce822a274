"""How options are read, and which of them a kind of learning has."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest

from maml_rl.config import SGD, Adam, MetaConfig, ProMP, TrustRegion
from maml_rl.errors import InputError
from maml_rl.experiments.commands.adapt import AdaptOptions
from maml_rl.experiments.commands.evaluate import EvaluateOptions
from maml_rl.experiments.commands.options import (
    OF_ONE_KIND,
    has_option,
    joined,
    parse,
    refuse_other_kinds,
    value_of,
)
from maml_rl.experiments.commands.train_arguments import ResumedRun
from maml_rl.experiments.commands.visualize import VisualizeOptions
from maml_rl.experiments.presets import PRESETS
from maml_rl.machine import Machine

RUN = Path("run")
LEARNED = "--meta.learned-lr needs inner_steps of at least 1, got 0: there is no step size to learn"
MAML, SINUSOID = PRESETS["navigation"].config, PRESETS["sinusoid"].config


@dataclass(frozen=True)
class Settings:
    """Settings for these tests."""

    name: str | None = None
    """A name; nobody's
    if None."""
    count: int = 1
    """A number."""
    meta: MetaConfig = field(default_factory=MetaConfig)


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str, **settings: Any) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(Settings, [*arguments, "--help"], "program", **settings)
    assert not stop.value.code
    return capsys.readouterr().out


def test_values_are_read_by_type_and_name() -> None:
    given = ["--name", "x", "--meta.inner-lr", "0.5", "--meta.first-order", "--meta.adapted=last-layer"]
    expected = MetaConfig(inner_lr=0.5, first_order=True, adapted="last-layer")
    assert parse(Settings, given, "program") == Settings("x", meta=expected)
    assert parse(Settings, ["--name", "None"], "program", Settings("x")) == Settings()


@pytest.mark.parametrize("rule", [TrustRegion(), Adam(lr=0.5), SGD(cosine_iterations=3), ProMP(clip=0.2)])
def test_a_choice_between_rules_has_the_options_of_the_default_rule(rule: Any, capsys: Any) -> None:
    settings = Settings(meta=MetaConfig(step=rule))
    assert parse(Settings, [], "program", settings) == settings
    assert parse(Settings, ["--meta.step", rule.rule], "program", settings) == settings
    text = help_of(capsys, default=settings)
    assert "--meta.step {trust-region,adam,sgd,promp}" in text
    shown = {name.replace("-", "_") for name in re.findall(r"--meta\.step\.([a-z-]+)", text)}
    assert shown == {one.name for one in fields(rule)} - {"rule"}


def test_the_help_has_paragraphs_and_shows_no_none(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, description="What it does.")
    assert "What it does." in text
    assert "A name; nobody's if None. (optional)" in " ".join(text.replace("│", " ").split())


def test_options_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--name" not in help_of(capsys, without=["name"])
    with pytest.raises(InputError, match=r"^Unrecognized options: --name; why \(see program --help\)$"):
        parse(Settings, ["--name", "x"], "program", without=["name"], remark="; why")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "two"], "--count needs a whole number, got 'two'"),
        (["--count"], "--count needs a value"),
        (["--meta.inner-lr", "much"], "--meta.inner-lr needs a number, got 'much'"),
        (["--meta.inner-lr", "0"], "--meta.inner-lr must be above 0, got 0.0"),
        (["--meta.learned-lr", "parameter", "--meta.inner-steps=0"], LEARNED),
        (["--meta.adapted", "none"], "--meta.adapted must be one of all, last-layer, context, got 'none'"),
        (["--meta.step.max-kl=0"], "--meta.step.max-kl must be above 0, got 0.0"),
        (["--cuont", "3"], "Unrecognized options: --cuont; perhaps you meant --count"),
        (["more"], "Unrecognized arguments: more"),
    ],
    ids=" ".join,
)
def test_an_unreadable_argument_is_reported_in_plain_words(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(Settings, arguments, "program")
    assert str(error.value) == f"{message} (see program --help)"


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(InputError, match=r"^evaluate needs a RUN \(see maml-rl evaluate --help\)$"):
        parse(EvaluateOptions, [], "maml-rl evaluate")
    with pytest.raises(InputError, match=r"^adapt needs a RUN and --out PATH \("):
        parse(AdaptOptions, [], "maml-rl adapt")


@dataclass
class OneChoice:
    tasks: Literal["paper"] | None = None


def test_a_single_choice_is_named_alone() -> None:
    with pytest.raises(InputError, match=r"^--tasks must be paper, got '4' \("):
        parse(OneChoice, ["--tasks", "4"], "maml-rl")


def test_an_option_and_its_value_are_found_in_both_forms() -> None:
    arguments = ["run", "--task", "-0.3,0.2", "--seed=1", "--task=4", "--task"]
    assert value_of("--task", arguments) == ("4", ["run", "--seed=1", "--task"])
    assert value_of("--out", arguments) == (None, arguments)
    assert joined("--task", arguments[:3]) == ["run", "--task=-0.3,0.2"]
    assert joined("--out", arguments) == arguments
    assert has_option("--seed", arguments)
    assert not has_option("--se", arguments)


@pytest.mark.parametrize(
    ("config", "options", "refused"),
    [
        (SINUSOID, EvaluateOptions(run=RUN, episodes=3), "episodes"),
        (SINUSOID, EvaluateOptions(run=RUN, record=True), "record"),
        (SINUSOID, EvaluateOptions(run=RUN, machine=Machine(processes=2)), "processes"),
        (SINUSOID, ResumedRun(RUN, machine=Machine(start_method="fork")), "start-method"),
        (SINUSOID, ResumedRun(RUN, render_every=5), "render-every"),
        (SINUSOID, VisualizeOptions(run=RUN, video=Path("a.mp4")), "video"),
        (MAML, EvaluateOptions(run=RUN, shots=(1,)), "shots"),
        (MAML, VisualizeOptions(run=RUN, data="images"), "data"),
    ],
)
def test_an_option_of_another_kind_is_refused_by_name(config: Any, options: Any, refused: str) -> None:
    with pytest.raises(InputError) as error:
        refuse_other_kinds(RUN, config, options)
    assert str(error.value) == f"run is a run of {config.kind} learning, which has no --{refused}: leave it out"
    other = MAML if config is SINUSOID else SINUSOID
    refuse_other_kinds(RUN, other, options)


def test_each_kind_has_its_options() -> None:
    assert OF_ONE_KIND.keys() == {config.kind for config in (MAML, SINUSOID)}
    refuse_other_kinds(RUN, SINUSOID, EvaluateOptions(run=RUN, gradient_steps=1, seed=3, machine=Machine("cuda", 2)))
