"""`maml-rl visualize`: a report of a run, and a video and a figure."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maml_rl.experiments.commands.options import GivenTracking, RunOptions, parse, refuse_other_kinds
from maml_rl.experiments.runs.tracker_options import NO_TRACKER, check_tracker


@dataclass(frozen=True, kw_only=True)
class VisualizeOptions(RunOptions):
    """Makes a report of a run: one page that shows a few tasks before and after adaptation, and the run's evaluation.

    If there is no evaluation of its last checkpoint, it is made (see maml-rl evaluate).

    examples:
      maml-rl visualize runs/navigation
      maml-rl visualize runs/half-cheetah-dir --video cheetah.mp4 --figure cheetah.pdf
    """

    out: Path | None = None
    """File for the report; report.html in the run's directory if not given."""
    video: Path | None = None
    """File for a video of the recorded episodes side by side as well (reinforcement): .mp4 (extra video), .gif or
    .webp."""
    figure: Path | None = None
    """File for a figure of the results as well, for a paper: .pdf, .svg or .png."""
    tasks: int | None = None
    """Held-out tasks to watch; those that are recorded, or 4, if not given."""
    gradient_steps: int | None = None
    """Gradient steps to watch; as many as are recorded, or as the run is evaluated for, if not given."""
    record: bool = False
    """Record the episodes again (reinforcement), whatever is recorded already."""
    data: str | None = None
    """Directory of the images (supervised); the run's own if not given."""
    tracking: GivenTracking = NO_TRACKER


def run(arguments: Sequence[str]) -> None:
    """Makes a report, and a video and a figure."""
    options = parse(VisualizeOptions, arguments, "maml-rl visualize")
    check_tracker(options.tracking)
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.report.reporting import REPORT, Outputs, visualize
    from maml_rl.experiments.runs.trust import check_runs
    from maml_rl.run import run_directory

    (shown,) = check_runs([options.run], options.trust.trust_module)
    directory = run_directory(options.run)
    refuse_other_kinds(directory, shown.config, options)
    outputs = Outputs(options.out or directory / REPORT, options.video, options.figure)
    with computing():
        given = (options.tasks, options.gradient_steps, options.record, options.data)
        reason = visualize(options.run, outputs, *given, options.machine)
    if reason:
        print(f"the report has plots in the place of moving pictures: {reason}", file=sys.stderr)
    for name, path in outputs._asdict().items():
        if path is not None:
            print(f"{name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if options.tracking.tracker:
        from maml_rl.experiments.runs.trackers import send_file

        send_file(options.tracking, directory, shown.config, outputs.report, "report")
