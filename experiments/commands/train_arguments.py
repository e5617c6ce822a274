"""The arguments of `maml-rl train`: its help, its options, and the runs that they describe."""

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from maml_rl.config import RLConfig, RunConfig
from maml_rl.errors import InputError
from maml_rl.experiments.commands.options import (
    NO_OTHERS,
    OF_ONE_KIND,
    GivenMachine,
    GivenTracking,
    GivenTrust,
    has_option,
    parse,
    value_of,
)
from maml_rl.experiments.commands.seeds import seeds_of
from maml_rl.experiments.commands.settings_file import read_settings
from maml_rl.experiments.presets import CUSTOM, PRESETS, UNNAMED, Preset, find_preset, rules_for, with_rule
from maml_rl.experiments.runs.tracker_options import NO_TRACKER
from maml_rl.hub import is_on_hub
from maml_rl.machine import THIS_MACHINE
from maml_rl.supervised.settings import SupervisedConfig

_HELP = """\
usage: maml-rl train PRESET [OPTIONS]
       maml-rl train --env-id module:My-v0 [--preset PRESET] [OPTIONS]
       maml-rl train --config FILE [PRESET] [OPTIONS]
       maml-rl train --resume RUN [OPTIONS]

Meta-trains, and saves a run directory. Without a preset, your own environment is trained with the preset custom.

presets:
{presets}

examples:
  maml-rl train navigation --iterations 20 --out runs/short
  maml-rl train half-cheetah-dir --meta.adapted last-layer          adapt the last layer only (ANIL)
  maml-rl train navigation --meta.adapted context --network.context-size 5   adapt a context only (CAVIA)
  maml-rl train half-cheetah-dir --meta.learned-lr parameter        learn the inner step sizes (Meta-SGD)
  maml-rl train sinusoid --meta.step sgd --meta.step.lr 0.01        another rule for the meta-step
  maml-rl train half-cheetah-dir --seeds 0-4                        five seeds in turn
  maml-rl train --config run.toml --seed 3                          settings from a file, or from a run's config.json
  maml-rl train navigation --tracker wandb                          log to Weights & Biases, or trackio, as well
  maml-rl train --resume runs/short --iterations 40

maml-rl train PRESET --help and maml-rl train --resume --help list the options.
"""


@dataclass(frozen=True)
class NewRun:
    """Meta-trains with the settings of a preset, except those that are given."""

    run: Annotated[RLConfig | SupervisedConfig, tyro.conf.arg(name="")]
    config: Path | None = None
    """File with settings in TOML, or a run's config.json. Options take precedence over it."""
    seeds: str | None = None
    """Train several seeds in turn, such as 0-4 or 0,2,5. Each is a separate run, with -seedN after its directory's
    name."""
    out: Path | None = None
    """Directory of the run, which must not exist yet. Default: runs/PRESET, or runs/My-v0 with the preset custom;
    --seed N adds -seedN to it."""
    resume_if_exists: bool = False
    """Resume the run if its directory exists. The settings must be the same, except for more iterations. So one command
    starts a run and, requeued by a cluster, resumes it."""
    render_every: int = 0
    """Meta-iterations between animated clips in TensorBoard, which show episodes before and after adaptation; 0 for no
    clips. Clips of robots need OpenGL."""
    tracking: GivenTracking = NO_TRACKER
    machine: GivenMachine = THIS_MACHINE


@dataclass(frozen=True)
class ResumedRun:
    """Resumes a run from its last checkpoint, bit for bit."""

    resume: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    iterations: int | None = None
    """New number of meta-iterations. Default: the run's own."""
    data: str | None = None
    """Directory of the images (supervised learning). Default: the run's own."""
    render_every: int = 0
    """Meta-iterations between animated clips in TensorBoard (reinforcement learning); 0 for no clips."""
    tracking: GivenTracking = NO_TRACKER
    trust: GivenTrust = NO_OTHERS
    machine: GivenMachine = THIS_MACHINE


class AskedRun(NamedTuple):
    """What the user asked for."""

    out: Path
    options: NewRun | ResumedRun


def train_help() -> str:
    """The help of `maml-rl train` without a preset."""
    return _HELP.format(presets="\n".join(_listed_presets()))


def asked_runs(arguments: Sequence[str]) -> list[AskedRun]:
    """The runs that arguments describe: one, or one for each of several seeds.

    Raises:
        InputError: If an argument is unknown, missing or of no use.
    """
    return [_resumption(arguments)] if has_option("--resume", arguments) else _beginnings(arguments)


def _about(preset: Preset[Any]) -> str:
    return f"  task      {preset.task}\n  source    {preset.source}\n  expected  {preset.expected}"


def _listed_presets() -> Iterator[str]:
    for kind in OF_ONE_KIND:
        names = ", ".join(name for name, preset in PRESETS.items() if preset.config.kind == kind)
        yield textwrap.fill(names, 100, initial_indent=f"  {kind}: ", subsequent_indent="    ", break_on_hyphens=False)


def _resumption(arguments: Sequence[str]) -> AskedRun:
    """The run that `--resume` names."""
    directory, options = value_of("--resume", arguments)
    if directory is not None and is_on_hub(directory):
        raise InputError(
            f"{directory} is a run on the Hub, which cannot be resumed there: --start-from {directory} "
            "begins a new run from its policy"
        )
    given = [*([] if directory is None else [directory]), *(option for option in options if option != "--resume")]
    if arguments[-1] in ("-h", "--help"):
        given = ["--help"]
    others = "--iterations, --data, --render-every, --trust-module, --tracker and those of the machine"
    remark = f"; a resumed run keeps its settings and takes only {others}"
    chosen = parse(ResumedRun, given, "maml-rl train --resume", remark=remark)
    return AskedRun(chosen.resume, chosen)


def _beginnings(arguments: Sequence[str]) -> list[AskedRun]:
    """A new run, or one for each of several seeds."""
    seeds, others = value_of("--seeds", arguments)
    if seeds is None:
        return [_beginning(arguments)]
    if has_option("--seed", others):
        raise InputError("--seed is for one run, and --seeds for several: leave one of them out")
    runs = []
    for seed in seeds_of(seeds):
        asked = _beginning([*others, f"--seed={seed}"])
        given = has_option("--out", others)
        runs.append(asked._replace(out=asked.out.with_name(f"{asked.out.name}-seed{seed}")) if given else asked)
    return runs


def _start(arguments: Sequence[str]) -> tuple[str, RunConfig, str, list[str]]:
    """Name of the preset, settings to start from, what the help says about them, and the other arguments."""
    file, arguments = value_of("--config", arguments)
    if file is None:
        name, options = _preset_and_options(arguments)
        preset = find_preset(name)
        return name, preset.config, f"of the preset {name}, except those that are given.\n\n{_about(preset)}", options
    named, options = arguments[0] if arguments and not arguments[0].startswith("-") else None, arguments
    options = options[1:] if named else options
    if named is None:
        named, options = value_of("--preset", options)
    given = read_settings(Path(file), named)
    return given.preset, given.config, f"of {file}, except those that are given.", options


def _beginning(arguments: Sequence[str]) -> AskedRun:
    """A new run, or with `--resume-if-exists` the one that is there."""
    name, config, about, options = _start(arguments)
    config = with_rule(config, rule := value_of("--meta.step", options)[0])
    _refuse_options_of_others(name, config, options)
    if rule is None or rule in rules_for(config):
        _refuse_options_of_other_rules(config, options)
    other_kinds = [option for kind, names in OF_ONE_KIND.items() if kind != config.kind for option in names]
    described = f"Meta-trains with the settings {about}"
    new = parse(NewRun, options, f"maml-rl train {name}", NewRun(config), described, other_kinds)
    if isinstance(new.run, RLConfig) and new.run.env_id == UNNAMED:
        raise InputError(f"the preset {name} is for your own environment: give its id, --env-id {UNNAMED}")
    return AskedRun(new.out or _default_out(name, new.run, has_option("--seed", options)), new)


def _refuse_options_of_others(name: str, config: RunConfig, options: Sequence[str]) -> None:
    """Refuses options of a kind of learning other than the preset's."""
    other = next(preset.config for preset in PRESETS.values() if preset.config.kind != config.kind)
    absent = {*_names(other), *OF_ONE_KIND[other.kind]} - {*_names(config)}
    absent |= _names_of_rules(other) - _names_of_rules(config)
    for option in options:
        given = option.partition("=")[0]
        if given.startswith("--") and given.removeprefix("--").replace("-", "_") in absent:
            raise InputError(f"{name} is a preset of {config.kind} learning, which has no {given}: leave it out")


def _names_of_rules(config: RunConfig) -> set[str]:
    """Whole names of the settings of all rules for the meta-step."""
    return {f"meta.step.{field.name}" for kind in rules_for(config).values() for field in fields(kind)}


def _refuse_options_of_other_rules(config: RunConfig, options: Sequence[str]) -> None:
    """Refuses options of a rule for the meta-step other than that of the settings."""
    rules, prefix = rules_for(config), "--meta.step."
    for option in options:
        given = option.partition("=")[0]
        name = given.removeprefix(prefix).replace("-", "_")
        having = [rule for rule, kind in rules.items() if name in {field.name for field in fields(kind)}]
        if given.startswith(prefix) and having and config.meta.step.rule not in having:
            *others, last = map(str, having)
            needed = f"{', '.join(others)} or {last}" if others else last
            raise InputError(f"{given} needs --meta.step {needed}, and the meta-step is {config.meta.step.rule}")


def _names(settings: Any, prefix: str = "") -> Iterator[str]:
    """Whole names of settings, but those of the meta-step, which depend on its rule."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "step" or not is_dataclass(value):
            yield prefix + field.name
        else:
            yield from _names(value, f"{prefix}{field.name}.")


def _default_out(name: str, config: RunConfig, names_seed: bool) -> Path:
    """Default directory of a run; its name includes the seed, if one is given."""
    if name == CUSTOM:  # runs in different environments are kept apart
        name = config.problem.rpartition(":")[2].rpartition("/")[2]
    return Path("runs") / (f"{name}-seed{config.seed}" if names_seed else name)


def _preset_and_options(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Name of the preset, which comes first or as `--preset NAME` anywhere, and the other arguments.

    It is `custom` if only an environment is named.
    """
    if not arguments[0].startswith("-"):
        return arguments[0], [*arguments[1:]]
    name, others = value_of("--preset", arguments)
    if name:
        return name, others
    if has_option("--preset", others):
        raise InputError("--preset needs a name (see maml-rl presets)")
    if has_option("--env-id", others):
        return CUSTOM, others
    near = get_close_matches("--env-id", [argument.partition("=")[0] for argument in others], 1)
    meant = f"; for {near[0]}, perhaps you meant --env-id" if near else ""
    command = f"maml-rl train PRESET {shlex.join(arguments)}"
    raise InputError(f"train needs a preset: {command}{meant} (see maml-rl presets)")
