"""`maml-rl view`: shows a run live in a browser."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from maml_rl.experiments.commands.options import RunOptions, joined, parse


@dataclass(frozen=True, kw_only=True)
class ViewOptions(RunOptions):
    """Shows a run live in a browser (reinforcement learning): robots side by side, one per number of gradient steps.

    Move the slider to change the task; the policy adapts at once. Press Ctrl-C to stop.

    examples:
      maml-rl view trained/half-cheetah-vel
      maml-rl view trained/navigation --task 0.3,-0.2 --port 8080
    """

    host: str = "127.0.0.1"
    """Network interface that serves the page. With any other than the default, others can connect without a
    password."""
    port: int | None = None
    """Port of the page. Default: the first free one from 8080."""
    task: str | None = None
    """First task, in the format of maml-rl adapt. Default: drawn at random."""
    gradient_steps: int | None = None
    """Gradient steps. Default: those of the run's evaluation (paper: 3)."""
    episodes: int | None = None
    """Episodes per gradient step. Default: those of the run's evaluation (paper: 20)."""
    seed: int = 0
    """Seed of a randomly drawn first task and of everything random in each adaptation."""


def run(arguments: Sequence[str]) -> None:
    """Shows a run live until Ctrl-C."""
    options = parse(ViewOptions, joined("--task", arguments), "maml-rl view")
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.live.live_view import view
    from maml_rl.experiments.live.session import Session
    from maml_rl.experiments.runs.trust import check_runs

    check_runs([options.run], options.trust.trust_module)
    given = (options.gradient_steps, options.episodes, options.seed)
    with computing(), closing(Session(options.run, *given, options.machine)) as session:
        view(session, options.host, options.port, options.task)
