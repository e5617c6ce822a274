"""`maml-rl view`: a run live in a browser."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from maml_rl.experiments.commands.options import RunOptions, joined, parse


@dataclass(frozen=True, kw_only=True)
class ViewOptions(RunOptions):
    """Shows a run live in a browser (reinforcement): its robots side by side, one for each number of gradient steps.

    There is a slider for the task, to which the policy adapts on the spot. Ctrl-C ends it.

    examples:
      maml-rl view trained/half-cheetah-vel
      maml-rl view trained/navigation --task 0.3,-0.2 --port 8080
    """

    host: str = "127.0.0.1"
    """Interface that the page is served on. Any other than this machine's own lets others in, without a password."""
    port: int | None = None
    """Port of the page; the first free one from 8080 on if not given."""
    task: str | None = None
    """First task, as maml-rl adapt takes it; drawn at random if not given."""
    gradient_steps: int | None = None
    """Gradient steps; those of the run's evaluation if not given (paper: 3)."""
    episodes: int | None = None
    """Episodes for each gradient step; those of the run's evaluation if not given (paper: 20)."""
    seed: int = 0
    """Seed of the first task, if none is given, and of everything random in each adaptation."""


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
