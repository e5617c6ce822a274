"""The command `maml-rl`."""

import argparse
import contextlib
import ctypes
import os
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from maml_rl.errors import InputError, NonFiniteEnvironmentError, NonFiniteError, WorkerError
from maml_rl.experiments.commands.arguments import (
    Adapt,
    Check,
    Compare,
    Evaluate,
    EvaluateMetaWorld,
    Machine,
    Resume,
    Train,
    TrainSupervised,
    View,
    Visualize,
    parse,
)
from maml_rl.experiments.media.recording import RECORDED_TASKS, save_recording
from maml_rl.experiments.presets.rl_presets import CUSTOM, PRESETS, UNNAMED, Preset, find_preset
from maml_rl.experiments.presets.supervised_presets import PRESETS as SUPERVISED_PRESETS
from maml_rl.experiments.presets.supervised_presets import Preset as SupervisedPreset
from maml_rl.experiments.runs import metaworld_protocol as metaworld_evaluation
from maml_rl.experiments.runs.evaluation_files import write_evaluation
from maml_rl.experiments.runs.provenance import check_same_settings
from maml_rl.experiments.runs.run import (
    CHECKPOINT,
    EVALUATION,
    PICTURE,
    RECORDING,
    RunConfig,
    env_steps_text,
    file_of,
    is_supervised,
    load_config,
    run_directory,
)
from maml_rl.experiments.runs.supervised_run import load_config as load_supervised_config
from maml_rl.experiments.runs.trust import allow, check_runs
from maml_rl.json_values import json_text

USAGE = """\
usage: maml-rl COMMAND ...

Meta-learning with MAML: train a policy, or a network, on a distribution of tasks so that one gradient step on a handful
of episodes, or of examples, adapts it to a new one.

commands:
  presets                  list ready settings, with their source and what to expect
  train PRESET             meta-train; leaves a run directory (default runs/PRESET, or runs/PRESET-seedN with --seed N)
  train --env-id ID        the same in your own environment, for example module:My-v0, with the preset custom or the one
                           that --preset names (default runs/My-v0)
  train --resume RUN       resume a run that was interrupted, bit for bit
  check ENV_ID             check that your environment can be meta-trained
  evaluate RUN             return, error or accuracy by gradient step on held-out tasks, as a table and a picture
  compare RUN [RUN ...]    the same for several runs and methods, next to the paper's
  visualize RUN            a page to see how it adapts; --video and --figure make files for a talk or a paper
  adapt RUN --out FILE     adapt to one task, for Stable-Baselines3 to use and train further
  view RUN                 watch robots adapt, live in a browser, to tasks that you choose
  evaluate-metaworld RUN   success rate on the test tasks of a Meta-World benchmark, by its own protocol

maml-rl COMMAND --help lists the options of each.
"""


# What to do where a training diverges.
_SUPERVISED_REMEDY = "train again with a lower --method.inner-lr or --method.outer-lr"
EVERY_PRESET: dict[str, Preset | SupervisedPreset] = {**PRESETS, **SUPERVISED_PRESETS}


@contextlib.contextmanager
def _showing(as_json: bool) -> Iterator[Callable[[Any], None]]:
    """Takes the object that a command prints with `--json`, and keeps all else that is printed out of standard output.

    An environment prints what it likes, when it is imported and later, from its processes and from libraries in C. So
    it is the file descriptor that goes to standard error, until the object is written.
    """
    objects: list[Any] = []
    if not as_json:
        yield objects.append
        return
    with _output_to_errors():
        yield objects.append
    for shown in objects:
        print(json_text(shown))


@contextlib.contextmanager
def _output_to_errors() -> Iterator[None]:
    """Lets everything printed to standard output go to standard error."""
    sys.stdout.flush()
    output = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()  # what was written to the stream itself
        with contextlib.suppress(AttributeError):
            ctypes.pythonapi.fflush(None)  # C's own buffer
        os.dup2(output, 1)
        os.close(output)


def presets(arguments: Sequence[str]) -> None:
    """Lists the presets."""
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: maml-rl presets\n\nLists ready settings, with their source and what to expect.")
        return
    if arguments:
        raise InputError(f"maml-rl presets takes no arguments, got {' '.join(arguments)}")
    for name, preset in EVERY_PRESET.items():
        print(f"{name}\n    task      {preset.task}\n    source    {preset.source}")
        print(f"    settings  {preset.settings()}\n    expected  {preset.expected}\n")


def train(arguments: Sequence[str]) -> None:
    """Trains from a preset, or resumes."""
    if not arguments:
        raise InputError(f"train needs a preset, one of {', '.join(EVERY_PRESET)}, or --resume RUN")
    if arguments[0] in ("-h", "--help"):
        print("usage: maml-rl train PRESET [options] | maml-rl train [options] --preset PRESET")
        print("       maml-rl train --env-id module:My-v0 [options]")
        print("       maml-rl train --resume RUN [options]\n")
        print(f"presets: {', '.join(EVERY_PRESET)}\n")
        print("maml-rl train PRESET --help and maml-rl train --resume --help list the options.")
        return
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        wants_help = arguments[-1] in ("-h", "--help")
        _resume(parse(Resume, ["--help"] if wants_help else arguments, "maml-rl train"))
        return
    name, options = _preset_first(arguments)
    preset = find_preset(name, EVERY_PRESET)
    names_seed = any(option.split("=")[0] == "--seed" for option in options)
    if isinstance(preset, SupervisedPreset):
        new = parse(TrainSupervised, options, f"maml-rl train {name}", TrainSupervised(preset.config))
        allow([(new.run.tasks.function or "").partition(":")[0]])
        _train_supervised(new, new.out or _default_out(name, new.run.seed if names_seed else None))
    else:
        chosen = parse(Train, options, f"maml-rl train {name}", Train(preset.config))
        if chosen.run.env_id == UNNAMED:
            raise InputError(f"the preset {name} is for an environment of yours: give its id, --env-id {UNNAMED}")
        allow([chosen.run.env_id.rpartition(":")[0]])
        if name == CUSTOM:  # runs in different environments are kept apart
            name = chosen.run.env_id.rpartition(":")[2].rpartition("/")[2]
        _train_policy(chosen, chosen.out or _default_out(name, chosen.run.seed if names_seed else None))


def _default_out(name: str, seed: int | None) -> Path:
    """Directory of a run for which none is given: its name has the seed, if that is given."""
    return Path("runs") / (name if seed is None else f"{name}-seed{seed}")


def _train_policy(new: Train, out: Path) -> None:
    if new.resume_if_exists and (out / CHECKPOINT).exists():
        check_same_settings(out, load_config(out)[0], new.run)
        _resume(Resume(out, new.run.iterations, render_every=new.render_every, machine=new.machine))
        return
    given = (*new.machine.used(), new.render_every)
    _go(out, lambda: _train_modules()[0].train(new.run, out, *given), _remedy(new.run))


def _train_supervised(new: TrainSupervised, out: Path) -> None:
    machine = new.machine
    if new.resume_if_exists and (out / CHECKPOINT).exists():
        check_same_settings(out, load_supervised_config(out)[0], new.run)
        used = Machine(machine.device, machine.threads)
        _resume(Resume(out, new.run.iterations, new.run.data, machine=used))
        return
    _go(out, lambda: _train_modules()[1].train(new.run, out, machine.device, machine.threads), _SUPERVISED_REMEDY)


def _remedy(config: RunConfig) -> str:
    """What to do where a training with these settings diverges: bound what the network sees first, then its steps."""
    bounds = ""
    if not config.policy.standardise:
        bounds = "standardised observations (--policy.standardise --policy.observation-clip 10), or with "
    elif config.policy.observation_clip is None:
        bounds = "bounded observations (--policy.observation-clip 10), or with "
    return (
        f"train again with {bounds}a lower --meta.inner-lr or --meta.trust-region.max-kl; maml-rl check "
        f"{config.env_id} shows observations of unsuitable scale"
    )


def _resume(chosen: Resume) -> None:
    out, machine = chosen.resume, chosen.machine
    check_runs([out], chosen.trust.trust_module)
    if is_supervised(out):
        unused = {"processes": machine.processes, "render-every": chosen.render_every or None}
        _refuse(out, "a run on supervised tasks", unused)
        used = (chosen.iterations, chosen.data, machine.device, machine.threads)
        _go(out, lambda: _train_modules()[1].resume(out, *used), _SUPERVISED_REMEDY)
        return
    _refuse(out, "a run of reinforcement learning", {"data": chosen.data})
    given = (chosen.iterations, *machine.used(), chosen.render_every)
    _go(out, lambda: _train_modules()[0].resume(out, *given), _remedy(load_config(out)[0]))


def _refuse(run: Path, kind: str, options: Mapping[str, object]) -> None:
    """Raises InputError for options given that a kind of run has no use for."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{run} is {kind}, which has no --{name}: leave it out")


def _preset_first(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Name of the preset, which comes first or as `--preset NAME` anywhere, and the other arguments.

    It is `custom` where only an environment is named.
    """
    if not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    try:
        known, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(f"{error}: give one of {', '.join(EVERY_PRESET)}") from error
    if known.preset is None and any(argument.split("=")[0] == "--env-id" for argument in others):
        return CUSTOM, others
    if known.preset is None:
        near = get_close_matches("--env-id", [argument.split("=")[0] for argument in others], 1)
        meant = f"; for {near[0]}, perhaps you meant --env-id" if near else ""
        command = f"maml-rl train PRESET {shlex.join(arguments)}"
        raise InputError(f"train needs a preset: {command}{meant} (see maml-rl presets)")
    return known.preset, others


def _train_modules() -> tuple[Any, Any]:
    from maml_rl.experiments.runs import supervised_training as supervised
    from maml_rl.experiments.runs import training as reinforcement  # Stable-Baselines3 takes a second to import

    return reinforcement, supervised


def _go(out: Path, work: Callable[[], Any], remedy: str) -> None:
    resume = f"maml-rl train --resume {shlex.quote(str(out))}"
    try:
        run = work()
    except KeyboardInterrupt:
        if not (out / CHECKPOINT).exists():
            raise
        print(f"\ninterrupted; saved. Resume with: {resume}", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        kept = f"; resume the last checkpoint with: {resume}" if (out / CHECKPOINT).exists() else ""
        raise InputError(f"training stopped: {error}{kept}") from error
    except WorkerError as error:
        kept = f"; the run is saved, resume with: {resume}" if (out / CHECKPOINT).exists() else ""
        raise WorkerError(f"training stopped: {error}{kept}", error.trace) from error
    except NonFiniteError as error:
        kept = f"the last checkpoint in {out} is intact; " if (out / CHECKPOINT).exists() else ""
        if isinstance(error, NonFiniteEnvironmentError):
            remedy = f"maml-rl check shows what is wrong with an environment; if actions grew without bound, {remedy}"
        raise InputError(f"training stopped: {error}: {kept}{remedy}") from error
    from maml_rl.experiments.runs.evaluations import duration

    progress = run.progress
    steps = f", {env_steps_text(progress.env_steps)} env steps" if hasattr(progress, "env_steps") else ""
    count = f"{progress.iteration} iteration{'' if progress.iteration == 1 else 's'}"
    print(f"{count}{steps} in {duration(progress.seconds)}")
    print(f"next: maml-rl evaluate {out}")


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluates a run."""
    chosen = parse(Evaluate, arguments, "maml-rl evaluate")
    directory = run_directory(chosen.run)
    out = chosen.out or directory
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give a directory")
    check_runs(_with_neighbours(chosen.run), chosen.trust.trust_module)
    evaluated = _evaluate_supervised if is_supervised(chosen.run) else _evaluate_policy
    with _showing(chosen.json) as show:
        record, draw, is_kept = evaluated(chosen, directory)
        show(record)
    if chosen.json:
        return
    evaluation, picture = (out / file_of(name, chosen.task_set) for name in (EVALUATION, PICTURE))
    if is_kept:
        print(f"\n{evaluation} stays as it is, with the run's own settings; give --out DIR to keep this one")
        return
    write_evaluation(out, record, draw)
    print(f"\npicture: {picture}")


_Evaluated = tuple[dict[str, Any], Callable[[Path], None], bool]
"""The record of an evaluation, what draws it, and whether one with the run's own settings stays in its place."""


def _with_neighbours(run: Path) -> list[Path]:
    """A run, and those that its evaluation shows for comparison."""
    from maml_rl.experiments.runs.supervised_evaluations import neighbours

    return [run, *(neighbours(run).values() if is_supervised(run) else ())]


def _evaluate_policy(chosen: Evaluate, directory: Path) -> _Evaluated:
    _refuse(directory, "a run of reinforcement learning", {"shots": chosen.shots, "data": chosen.data})
    from maml_rl.experiments.media.plots import draw_adaptation
    from maml_rl.experiments.runs.evaluations import (
        Overrides,
        current_evaluation,
        evaluate,
        remarks,
        table,
        tasks_named,
    )
    from maml_rl.experiments.runs.run import load_config, overridden

    if chosen.record and chosen.task_set == "paper" and chosen.out is None:
        raise InputError(
            f"{directory / RECORDING} is of held-out tasks, as the report shows them: leave --record or --tasks paper "
            "out, or give another --out"
        )
    overrides = Overrides(chosen.count, chosen.gradient_steps, chosen.episodes, chosen.later_lr_factor, chosen.seed)
    config, progress, _ = load_config(chosen.run)
    has_own_settings = overridden(config.evaluation, **overrides._asdict()) == config.evaluation
    would_replace = not has_own_settings and chosen.out is None and not chosen.json
    is_kept = would_replace and current_evaluation(directory, config, progress, chosen.task_set) is not None
    recorded = RECORDED_TASKS if chosen.record else 0
    evaluations = evaluate(chosen.run, overrides, *chosen.machine.used(), recorded, chosen.task_set)
    out = chosen.out or directory
    if evaluations.recording:
        out.mkdir(parents=True, exist_ok=True)
        save_recording(out / RECORDING, evaluations.recording)
    if not chosen.json:
        tasks = tasks_named(evaluations.task_set, evaluations.config.tasks)
        print(f"mean return over {tasks}, {evaluations.config.episodes} episodes each")
        if evaluations.validation:
            sizes = ", ".join(f"{inner_lr:g}" for inner_lr in evaluations.validation.inner_lrs)
            print(f"step size {evaluations.inner_lr:g}: of {sizes} the best on validation tasks")
        print(f"\n{table(evaluations)}\n", *remarks(evaluations), sep="\n")
        if evaluations.recording:
            print(f"\nrecording: {out / RECORDING}")
    return evaluations.record(), lambda path: draw_adaptation(evaluations, directory, path), is_kept


def _evaluate_supervised(chosen: Evaluate, directory: Path) -> _Evaluated:
    given = {"episodes": chosen.episodes, "later-lr-factor": chosen.later_lr_factor, "record": chosen.record or None}
    _refuse(directory, "a run on supervised tasks", given | {"processes": chosen.machine.processes})
    from maml_rl.experiments.media.supervised_plots import draw
    from maml_rl.experiments.runs.supervised_evaluations import Overrides, evaluate, table
    from maml_rl.experiments.runs.supervised_run import load_config
    from maml_rl.experiments.runs.supervised_stored import has_own_settings, is_current

    if chosen.task_set == "paper":
        raise InputError(f"{directory} is a run on supervised tasks, of which the paper has no list: give --tasks N")
    overrides = Overrides(chosen.count, chosen.gradient_steps, chosen.shots, chosen.seed)
    config, progress = load_config(chosen.run)
    would_replace = not has_own_settings(overrides, config) and chosen.out is None and not chosen.json
    is_kept = would_replace and is_current(directory, config, progress)
    machine = (chosen.machine.device, chosen.machine.threads)
    evaluations = evaluate(chosen.run, overrides, chosen.data, *machine)
    if not chosen.json:
        learned = evaluations.run.config.method.learned_lr != "no"
        inner_lrs = dict.fromkeys(f"{evaluation.inner_lr:g}" for evaluation in evaluations.evaluations)
        inner_lr = "learned" if learned else ", ".join(inner_lrs)
        print(f"{evaluations.config.tasks} held-out tasks, mean ± 95 %, inner lr {inner_lr}\n")
        print(table(evaluations))
    return evaluations.record(), lambda path: draw(evaluations, directory, path), is_kept


def evaluate_metaworld(arguments: Sequence[str]) -> None:
    """Evaluates a run of a Meta-World benchmark."""
    chosen = parse(EvaluateMetaWorld, arguments, "maml-rl evaluate-metaworld")
    check_runs([chosen.run], chosen.trust.trust_module)
    with _showing(chosen.json) as show:
        evaluation = metaworld_evaluation.evaluate_metaworld(chosen.run, chosen.protocol)
        show(evaluation.record())
    if chosen.json:
        return
    print(f"success rate on {chosen.protocol.goals} test goals of each manipulation, before and after adaptation\n")
    print(evaluation.table())


def compare(arguments: Sequence[str]) -> None:
    """Compares runs."""
    chosen = parse(Compare, arguments, "maml-rl compare")
    from maml_rl.experiments.runs.comparison import compare

    if chosen.out and chosen.out.exists() and not chosen.out.is_dir():
        raise InputError(f"--out {chosen.out} is a file: give a directory")
    check_runs(chosen.runs, chosen.trust.trust_module)
    with _showing(chosen.json) as show:
        record = compare(chosen.runs, chosen.gradient_steps, *chosen.machine.used(), chosen.task_set).record()
        show(record)
    if chosen.json:
        return
    from maml_rl.experiments.runs.comparison_files import (
        COMPARISON,
        remarks,
        runs_of,
        stored_runs,
        table,
        write_comparison,
    )
    from maml_rl.experiments.runs.evaluations import tasks_named

    tasks = tasks_named(record["task_set"], record["num_tasks"])
    print(f"{record['env_id']}: mean return on {tasks}, {record['episodes']} episodes each\n")
    print(table(record), "", *remarks(record), sep="\n")
    out = chosen.out or Path("results") / record["task"]
    stored = out / file_of(COMPARISON, chosen.task_set)
    if chosen.out is None and stored_runs(stored) - runs_of(record):
        print(f"\n{stored} is of other runs too and stays as it is; give --out DIR to keep this one")
        return
    _, *others = write_comparison(record, out)
    print(f"\nwritten: {', '.join([str(stored), *(file.name for file in others)])}")


def adapt(arguments: Sequence[str]) -> None:
    """Adapts a run to one task."""
    chosen = parse(Adapt, _with_task(arguments), "maml-rl adapt")
    from maml_rl.experiments.runs.adapting import adapt, check_new_file, next_steps, save

    check_new_file(chosen.out)
    check_runs([chosen.run], chosen.trust.trust_module)
    given = (chosen.task, chosen.gradient_steps, chosen.episodes, chosen.seed)
    directory = run_directory(chosen.run)
    with _showing(chosen.json) as show:
        adapted = adapt(chosen.run, *given, *chosen.machine.used(), chosen.record)
        save(adapted, chosen.out)
        record = adapted.record() | {"policy": str(chosen.out)}
        if adapted.recording:
            save_recording(directory / RECORDING, adapted.recording)
            record["recording"] = str(directory / RECORDING)
        show(record)
    if chosen.json:
        return
    print(f"{record['env_id']}, {adapted.task_name}: return of {record['episodes']} episodes\n")
    print(adapted.table())
    if adapted.recording:
        print(f"\nrecording: {directory / RECORDING}; maml-rl visualize {directory} shows it")
    print(f"\npolicy: {chosen.out}\nnext, in Python:\n")
    print(textwrap.indent(next_steps(adapted, chosen.out), "    "))


def _with_task(arguments: Sequence[str]) -> Sequence[str]:
    """Arguments with `--task` and its value in one, since a task such as -0.3,0.2 begins like an option."""
    if "--task" not in arguments[:-1]:
        return arguments
    place = arguments.index("--task")
    return [*arguments[:place], f"--task={arguments[place + 1]}", *arguments[place + 2 :]]


def view(arguments: Sequence[str]) -> None:
    """Shows a run live."""
    chosen = parse(View, _with_task(arguments), "maml-rl view")
    from maml_rl.experiments.live.live_view import view
    from maml_rl.experiments.live.session import Session

    check_runs([chosen.run], chosen.trust.trust_module)
    given = (chosen.gradient_steps, chosen.episodes, chosen.seed)
    with contextlib.closing(Session(chosen.run, *given, *chosen.machine.used())) as session:
        view(session, chosen.host, chosen.port, chosen.task)


def visualize(arguments: Sequence[str]) -> None:
    """Makes a report, and a video and a figure."""
    chosen = parse(Visualize, arguments, "maml-rl visualize")
    from maml_rl.experiments.report.report import REPORT, Outputs, visualize

    directory = run_directory(chosen.run)
    check_runs(_with_neighbours(chosen.run), chosen.trust.trust_module)
    outputs = Outputs(chosen.out or directory / REPORT, chosen.video, chosen.figure)
    if is_supervised(chosen.run):
        _visualize_supervised(chosen, directory, outputs.report)
    else:
        _refuse(directory, "a run of reinforcement learning", {"data": chosen.data})
        given = (chosen.tasks, chosen.gradient_steps, chosen.record)
        reason = visualize(chosen.run, outputs, *given, *chosen.machine.used())
        if reason:
            print(f"the report has plots in the place of moving pictures: {reason}", file=sys.stderr)
    for name, path in outputs._asdict().items():
        if path is not None:
            print(f"{name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _visualize_supervised(chosen: Visualize, directory: Path, report: Path) -> None:
    unused = {"video": chosen.video, "record": chosen.record or None, "processes": chosen.machine.processes}
    _refuse(directory, "a run on supervised tasks", unused)
    from maml_rl.experiments.report.supervised_report import visualize

    machine = (chosen.machine.device, chosen.machine.threads)
    visualize(chosen.run, report, chosen.figure, chosen.tasks, chosen.gradient_steps, chosen.data, *machine)


def check(arguments: Sequence[str]) -> None:
    """Checks an environment."""
    chosen = parse(Check, arguments, "maml-rl check")
    from maml_rl.experiments.commands.checking import check

    allow([chosen.env_id.rpartition(":")[0]])
    with _showing(chosen.json) as show:
        findings = check(chosen.env_id, chosen.max_episode_steps)
        show({"env_id": chosen.env_id, "findings": [finding._asdict() for finding in findings]})
    if not chosen.json:
        count = sum(finding.level != "note" for finding in findings)
        found = f"{count} finding{'' if count == 1 else 's'}" if count else "nothing to fix"
        print(f"{chosen.env_id}: {found}")
        for finding in findings:
            text = f"- {finding.level}: {finding.text}"
            print(textwrap.fill(text, 110, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False))
    if any(finding.level == "error" for finding in findings):
        raise SystemExit(2)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "presets": presets,
    "train": train,
    "check": check,
    "evaluate": evaluate,
    "compare": compare,
    "adapt": adapt,
    "view": view,
    "visualize": visualize,
    "evaluate-metaworld": evaluate_metaworld,
}


def main() -> None:
    """Exit code 0; 2 with one line that says what was expected; 1 if an environment failed; 130 after Ctrl-C."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job scheduler's stop saves like Ctrl-C
    torch.set_num_threads(1)  # tasks are shared among threads of our own; OpenMP's would only compete with them
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if arguments[0] == "--version":
        print(f"maml-rl {version('maml-rl')}")
        return
    try:
        if arguments[0] not in COMMANDS:
            raise InputError(f"there is no command {arguments[0]!r}: expected one of {', '.join(COMMANDS)}")
        COMMANDS[arguments[0]](arguments[1:])
    except BrokenPipeError:
        raise
    except (InputError, NonFiniteError, OSError) as error:
        print(f"maml-rl: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except WorkerError as error:
        print(f"{error.trace}maml-rl: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("maml-rl: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
