"""`maml-rl train`: meta-training, from a preset or from a run's last checkpoint."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from maml_rl.config import RLConfig, RunConfig, TrustRegion
from maml_rl.errors import InputError, NonFiniteEnvironmentError, NonFiniteError, WorkerError
from maml_rl.experiments.commands.ending import Saved, naming_what_is_saved
from maml_rl.experiments.commands.options import Trust, refuse_other_kinds
from maml_rl.experiments.commands.train_arguments import AskedRun, NewRun, ResumedRun, asked_runs, train_help
from maml_rl.experiments.runs.tracker_options import Tracking, check_tracker
from maml_rl.machine import Machine

if TYPE_CHECKING:
    from maml_rl.run import Run


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
        print(train_help(), end="")
        return
    runs = asked_runs(arguments)
    check_tracker(runs[0].options.tracking)
    if len(runs) == 1:
        _run_one(runs[0])
    else:
        _run_all(runs)


def _run_all(runs: Sequence[AskedRun]) -> None:
    """Trains one run after the other. On a single rank, a run that diverges does not stop the others.

    Raises:
        InputError: If a directory is taken, before any run begins; or if a run diverged, after all the others.
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


def _run_one(asked: AskedRun) -> None:
    """Trains one run."""
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.commands.ranked import shared_facts
    from maml_rl.experiments.runs.training import follow, resume, train
    from maml_rl.ranks import naming_the_ended, this_rank
    from maml_rl.run import CHECKPOINT

    ranks = this_rank()
    if ranks.size > 1:
        ranks.check_alike(shared_facts(_settings(asked)))
    if ranks.rank:
        with computing():
            follow(asked.options.machine)
        return
    work = _work(asked)
    resuming = f"maml-rl train --resume {shlex.quote(str(work.out))}"
    saved = Saved(work.out / CHECKPOINT, "the finished iterations", "the last checkpoint", resuming)
    with computing(), naming_what_is_saved(saved, partial(_remedy, work.config)), naming_the_ended(ranks):
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


def _resumed(chosen: ResumedRun) -> _Work:
    from maml_rl.experiments.runs.trust import check_runs

    (there,) = check_runs([chosen.resume], chosen.trust.trust_module)
    refuse_other_kinds(chosen.resume, there.config, chosen)
    reached = there.state.iteration
    others = (chosen.machine, chosen.render_every, chosen.tracking)
    return _Work(chosen.resume, there.config, chosen, reached, *others)


def _settings(asked: AskedRun) -> dict[str, Any]:
    """The settings that were requested, by name."""
    options = asked.options
    if isinstance(options, NewRun):
        return asdict(options.run)
    return {"resume": options.resume, "iterations": options.iterations}


def _work(asked: AskedRun) -> _Work:
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


def _watch(work: _Work) -> Any:
    """What makes the clips for TensorBoard, if there are any."""
    if not work.render_every:
        return None
    from maml_rl.experiments.media.clips import Clips

    return lambda learner: Clips(learner, work.render_every)


def _remedy(config: RunConfig, error: NonFiniteError) -> str:
    """What to do after a result that is not finite."""
    remedy = _against_divergence(config)
    if isinstance(error, NonFiniteEnvironmentError):
        return f"maml-rl check shows what is wrong with an environment; if actions grew without bound, {remedy}"
    return remedy


def _against_divergence(config: RunConfig) -> str:
    """What to do when a training with these settings diverges: first bound what the network sees, then its steps."""
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
