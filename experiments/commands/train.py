"""`maml-rl train`: meta-training, from a preset or from a run's last checkpoint."""

import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from maml_rl.config import RLConfig, RunConfig, TrustRegion
from maml_rl.errors import InputError, NonFiniteEnvironmentError, NonFiniteError, RankError, WorkerError
from maml_rl.experiments.commands.options import (
    NO_OTHERS,
    OF_ONE_KIND,
    GivenMachine,
    GivenTracking,
    GivenTrust,
    Trust,
    has_option,
    parse,
    refuse_other_kinds,
    value_of,
)
from maml_rl.experiments.commands.seeds import seeds_of
from maml_rl.experiments.commands.settings_file import read_settings
from maml_rl.experiments.presets import CUSTOM, PRESETS, UNNAMED, Preset, find_preset, rules_for, with_rule
from maml_rl.experiments.runs.tracker_options import NO_TRACKER, Tracking, check_tracker
from maml_rl.hub import is_on_hub
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.supervised.settings import SupervisedConfig

if TYPE_CHECKING:
    from maml_rl.run import Run

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
    """Meta-trains with the settings of a preset, but for those that are given."""

    run: Annotated[RLConfig | SupervisedConfig, tyro.conf.arg(name="")]
    config: Path | None = None
    """File with settings, in TOML, or a run's config.json. Options have the last word."""
    seeds: str | None = None
    """Train several seeds in turn, such as 0-4 or 0,2,5: a run for each, with -seedN after its directory's name."""
    out: Path | None = None
    """Directory of the run, which must not exist yet. If not given, runs/PRESET, or runs/My-v0 with the preset custom,
    and -seedN after it where --seed N is given."""
    resume_if_exists: bool = False
    """Resume the run if its directory exists, after a check that it has the same settings, but for more iterations. So
    one command starts a run and, requeued by a cluster, resumes it."""
    render_every: int = 0
    """Meta-iterations from one animated clip in TensorBoard, before and after adaptation, to the next; none if 0. Clips
    of robots need OpenGL."""
    tracking: GivenTracking = NO_TRACKER
    machine: GivenMachine = THIS_MACHINE


@dataclass(frozen=True)
class ResumedRun:
    """Resumes a run from its last checkpoint, bit for bit."""

    resume: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    iterations: int | None = None
    """New number of meta-iterations; the run's own if not given."""
    data: str | None = None
    """Directory of the images (supervised); the run's own if not given."""
    render_every: int = 0
    """Meta-iterations from one animated clip in TensorBoard to the next (reinforcement); none if 0."""
    tracking: GivenTracking = NO_TRACKER
    trust: GivenTrust = NO_OTHERS
    machine: GivenMachine = THIS_MACHINE


class _Asked(NamedTuple):
    """What the user asked for."""

    out: Path
    options: NewRun | ResumedRun


class _Work(NamedTuple):
    """What is to be trained, and where."""

    out: Path
    config: RunConfig  # of the new run, or of the one that is resumed
    resumed: ResumedRun | None
    finished: int  # iterations of the one that is resumed
    machine: Machine
    render_every: int
    tracking: Tracking


def run(arguments: Sequence[str]) -> None:
    """Trains from a preset, or resumes."""
    if not arguments:
        raise InputError("train needs a preset, or --resume RUN (see maml-rl presets)")
    if arguments[0] in ("-h", "--help"):
        print(_HELP.format(presets="\n".join(_listed_presets())), end="")
        return
    runs = [_resumption(arguments)] if has_option("--resume", arguments) else _beginnings(arguments)
    check_tracker(runs[0].options.tracking)
    if len(runs) == 1:
        _run_one(runs[0])
    else:
        _run_all(runs)


def _run_all(runs: Sequence[_Asked]) -> None:
    """Trains one run after the other; one that diverges keeps none of the others from it, on a single rank.

    Raises:
        InputError: If the directory of one is taken, before any begins, or after all others if one diverged.
    """
    from maml_rl.experiments.runs.loop import check_new
    from maml_rl.ranks import this_rank

    if this_rank().rank == 0:
        for out, options in runs:
            if isinstance(options, NewRun) and not options.resume_if_exists:
                check_new(out)
    diverged = []
    for asked in runs:
        print(f"{asked.out}:", file=sys.stderr)
        try:
            _run_one(asked)
        except InputError as error:
            if not isinstance(error.__cause__, NonFiniteError) or this_rank().size > 1:
                raise
            print(f"{asked.out}: {error}", file=sys.stderr)
            diverged.append(str(asked.out))
    if diverged:
        raise InputError(f"{len(diverged)} of {len(runs)} runs diverged: {', '.join(diverged)}")
    print(f"next: maml-rl compare {shlex.join(str(asked.out) for asked in runs)}")


def _run_one(asked: _Asked) -> None:
    """Trains one run."""
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.commands.ranked import shared_facts
    from maml_rl.experiments.runs.training import follow, resume, train
    from maml_rl.ranks import naming_the_ended, this_rank

    ranks = this_rank()
    if ranks.size > 1:
        ranks.check_alike(shared_facts(_settings(asked)))
    if ranks.rank:
        with computing():
            follow(asked.options.machine)
        return
    work = _work(asked)
    with computing(), _explained(work), naming_the_ended(ranks):
        if work.resumed:
            given = (work.resumed.iterations, work.resumed.data)
            trained = resume(work.out, *given, work.machine, _watch(work), work.tracking)
        else:
            trained = train(work.config, work.out, work.machine, _watch(work), work.tracking)
    _print_end(work, trained)
    if work.tracking.tracker:
        with computing():
            _send_report(work, alone=ranks.size == 1)


def _print_end(work: _Work, trained: "Run") -> None:
    """What was trained, and what to do next."""
    from maml_rl.experiments.runs.text import duration, env_steps_text

    count, progress = trained.state.iteration, trained.progress
    iterations = f"{count} iteration{'' if count == 1 else 's'}"
    if work.resumed and count == work.finished:
        print(f"{work.out} is finished, with {iterations}; --iterations N with a larger N trains it further")
    else:
        steps = f", {env_steps_text(progress.env_steps)} env steps" if isinstance(trained.config, RLConfig) else ""
        print(f"{iterations}{steps} in {duration(progress.seconds)}")
    print(f"next: maml-rl evaluate {work.out}")


def _send_report(work: _Work, *, alone: bool) -> None:
    """Makes the report of a finished run, and sends it to the run's tracker."""
    if not alone:  # a report is made in one process
        print(f"the report, in the tracker too: maml-rl visualize {work.out} --tracker {work.tracking.tracker}")
        return
    from maml_rl.experiments.report.reporting import REPORT, Outputs, visualize
    from maml_rl.experiments.runs.trackers import send_file

    report = work.out / REPORT
    try:
        visualize(work.out, Outputs(report), machine=work.machine)
    except (InputError, NonFiniteError, WorkerError, OSError) as error:
        print(f"warning: there is no report for the tracker: {error}", file=sys.stderr)
        return
    if send_file(work.tracking, work.out, work.config, report, "report"):
        print(f"report: {report}, and in the tracker")


def _about(preset: Preset[Any]) -> str:
    return f"  task      {preset.task}\n  source    {preset.source}\n  expected  {preset.expected}"


def _listed_presets() -> Iterator[str]:
    for kind in OF_ONE_KIND:
        names = ", ".join(name for name, preset in PRESETS.items() if preset.config.kind == kind)
        yield textwrap.fill(names, 100, initial_indent=f"  {kind}: ", subsequent_indent="    ", break_on_hyphens=False)


def _resumption(arguments: Sequence[str]) -> _Asked:
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
    return _Asked(chosen.resume, chosen)


def _resumed(chosen: ResumedRun) -> _Work:
    from maml_rl.experiments.runs.trust import check_runs

    (there,) = check_runs([chosen.resume], chosen.trust.trust_module)
    refuse_other_kinds(chosen.resume, there.config, chosen)
    reached = there.state.iteration
    others = (chosen.machine, chosen.render_every, chosen.tracking)
    return _Work(chosen.resume, there.config, chosen, reached, *others)


def _settings(asked: _Asked) -> dict[str, Any]:
    """The settings that were asked for, by name."""
    options = asked.options
    if isinstance(options, NewRun):
        return asdict(options.run)
    return {"resume": options.resume, "iterations": options.iterations}


def _work(asked: _Asked) -> _Work:
    """What to do: a new run, or one that is there."""
    if isinstance(asked.options, ResumedRun):
        return _resumed(asked.options)
    out, new = asked.out, asked.options
    from maml_rl.experiments.runs.provenance import check_same_settings
    from maml_rl.experiments.runs.trust import allow
    from maml_rl.run import CHECKPOINT, load_run

    allow(new.run.modules)
    if new.resume_if_exists and (out / CHECKPOINT).exists():
        check_same_settings(out, load_run(out).config, new.run)
        data = getattr(new.run, "data", None)
        trust = Trust(new.run.modules)  # which the command itself has named
        others = (new.render_every, new.tracking, trust, new.machine)
        return _resumed(ResumedRun(out, new.run.iterations, data, *others))
    return _Work(out, new.run, None, 0, new.machine, new.render_every, new.tracking)


def _beginnings(arguments: Sequence[str]) -> list[_Asked]:
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
    """Name of the preset, settings to start from, what the help says of them, and the other arguments."""
    file, arguments = value_of("--config", arguments)
    if file is None:
        name, options = _preset_and_options(arguments)
        preset = find_preset(name)
        return name, preset.config, f"of the preset {name}, but for those that are given.\n\n{_about(preset)}", options
    named, options = arguments[0] if arguments and not arguments[0].startswith("-") else None, arguments
    options = options[1:] if named else options
    if named is None:
        named, options = value_of("--preset", options)
    given = read_settings(Path(file), named)
    return given.preset, given.config, f"of {file}, but for those that are given.", options


def _beginning(arguments: Sequence[str]) -> _Asked:
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
    return _Asked(new.out or _default_out(name, new.run, has_option("--seed", options)), new)


def _refuse_options_of_others(name: str, config: RunConfig, options: Sequence[str]) -> None:
    """Refuses options that another kind of learning has and the preset's does not."""
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
    """Refuses options that another rule for the meta-step has and that of the settings does not."""
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
    """Directory of a run for which none is given: its name has the seed, if that is given."""
    if name == CUSTOM:  # runs in different environments are kept apart
        name = config.problem.rpartition(":")[2].rpartition("/")[2]
    return Path("runs") / (f"{name}-seed{config.seed}" if names_seed else name)


def _preset_and_options(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Name of the preset, which comes first or as `--preset NAME` anywhere, and the other arguments.

    It is `custom` where only an environment is named.
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


def _watch(work: _Work) -> Any:
    """What makes the clips for TensorBoard, if there are any."""
    if not work.render_every:
        return None
    from maml_rl.experiments.media.clips import Clips

    return lambda learner: Clips(learner, work.render_every)


@contextmanager
def _explained(work: _Work) -> Iterator[None]:
    """Adds to what ends a training how to resume it, or what to change."""
    from maml_rl.run import CHECKPOINT

    out, resume = work.out, f"maml-rl train --resume {shlex.quote(str(work.out))}"
    try:
        yield
    except KeyboardInterrupt:
        if not (out / CHECKPOINT).exists():
            raise
        print(f"\ninterrupted; saved. Resume with: {resume}", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        kept = f"; resume the last checkpoint with: {resume}" if (out / CHECKPOINT).exists() else ""
        raise InputError(f"training stopped: {error}{kept}") from error
    except (WorkerError, RankError) as error:
        kept = f"; the run is saved, resume with: {resume}" if (out / CHECKPOINT).exists() else ""
        error.args = (f"training stopped: {error}{kept}",)
        raise
    except NonFiniteError as error:
        kept = f"the last checkpoint in {out} is intact; " if (out / CHECKPOINT).exists() else ""
        remedy = _remedy(work.config)
        if isinstance(error, NonFiniteEnvironmentError):
            remedy = f"maml-rl check shows what is wrong with an environment; if actions grew without bound, {remedy}"
        raise InputError(f"training stopped: {error}: {kept}{remedy}") from error


def _remedy(config: RunConfig) -> str:
    """What to do where a training with these settings diverges: bound what the network sees first, then its steps."""
    lower = f"a lower --meta.inner-lr or --meta.step.{'max-kl' if isinstance(config.meta.step, TrustRegion) else 'lr'}"
    if not isinstance(config, RLConfig):
        return f"train again with {lower}"
    bounds = ""
    if not config.network.standardise:
        bounds = "standardised observations (--network.standardise --network.observation-clip 10), or with "
    elif config.network.observation_clip is None:
        bounds = "bounded observations (--network.observation-clip 10), or with "
    check = f"maml-rl check {config.env_id} shows observations of unsuitable scale"
    return f"train again with {bounds}{lower}; {check}"
