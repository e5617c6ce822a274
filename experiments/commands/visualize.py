"""`maml-rl visualize`: makes a report of a run, and optionally a video and a figure."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maml_rl.experiments.commands.options import GivenTracking, RunOptions, parse, refuse_other_kinds
from maml_rl.experiments.runs.tracker_options import NO_TRACKER, check_tracker


@dataclass(frozen=True, kw_only=True)
class VisualizeOptions(RunOptions):
    """Makes a report of a run: a page that shows a few tasks before and after adaptation, and the run's evaluation.

    If the last checkpoint has not been evaluated, this is done first (see maml-rl evaluate).

    examples:
      maml-rl visualize runs/navigation
      maml-rl visualize runs/half-cheetah-dir --video cheetah.mp4 --figure cheetah.pdf
    """

    out: Path | None = None
    """File for the report. Default: report.html in the run directory."""
    video: Path | None = None
    """File for a video of the recorded episodes side by side (reinforcement learning): .mp4 (needs the extra video),
    .gif or .webp."""
    figure: Path | None = None
    """File for a figure of the results, for example for a paper: .pdf, .svg or .png."""
    tasks: int | None = None
    """Number of held-out tasks to show. Default: the recorded ones, or else 4."""
    gradient_steps: int | None = None
    """Number of gradient steps to show. Default: as many as are recorded, or else as in the run's evaluation."""
    record: bool = False
    """Record the episodes again, even if there is a recording (reinforcement learning)."""
    data: str | None = None
    """Directory of the images (supervised learning). Default: the run's own."""
    tracking: GivenTracking = NO_TRACKER


def run(arguments: Sequence[str]) -> None:
    """Makes the report, the video and the figure."""
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
        print(f"the report has plots instead of moving pictures: {reason}", file=sys.stderr)
    for name, path in outputs._asdict().items():
        if path is not None:
            print(f"{name}: {path} ({_size_of(path)})")
    if options.tracking.tracker:
        from maml_rl.experiments.runs.trackers import send_file

        send_file(options.tracking, directory, shown.config, outputs.report, "report")


def _size_of(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.0f} kB"
