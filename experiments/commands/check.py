"""`maml-rl check`: checks whether an environment can be meta-trained, and which commands cannot use it."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from maml_rl.errors import InputError
from maml_rl.experiments.commands.options import parse
from maml_rl.waiting import reporting_waits

if TYPE_CHECKING:
    import gymnasium

    from maml_rl.checks import Finding


@dataclass(frozen=True)
class CheckOptions:
    """Checks that your environment can be meta-trained. The exit code is 2 after an error, and 0 otherwise.

    examples:
      maml-rl check my_module:My-v0
    """

    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID")]
    """Environment id for gymnasium.make, for example my_module:My-v0."""
    max_episode_steps: int | None = None
    """Steps after which an episode is truncated. Default: the limit that the environment is registered with."""
    json: bool = False
    """Print one JSON object and nothing else."""


def run(arguments: Sequence[str]) -> None:
    """Checks an environment and lists the findings."""
    options = parse(CheckOptions, arguments, "maml-rl check")
    from maml_rl.experiments.commands.computing import computing
    from maml_rl.experiments.runs.trust import allow

    allow([options.env_id.rpartition(":")[0]])
    with computing(options.json) as show:
        found = findings(options.env_id, options.max_episode_steps)
        show({"env_id": options.env_id, "findings": [finding._asdict() for finding in found]})
    if not options.json:
        count = sum(finding.level != "note" for finding in found)
        summary = f"{count} finding{'' if count == 1 else 's'}" if count else "nothing to fix"
        print(f"{options.env_id}: {summary}")
        for finding in found:
            text = f"- {finding.level}: {finding.text}"
            print(textwrap.fill(text, 110, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False))
    if any(finding.level == "error" for finding in found):
        raise SystemExit(2)


def findings(env_id: str, max_episode_steps: int | None = None) -> "list[Finding]":
    """Findings for an environment's author, with notes on commands that cannot use the environment.

    Args:
        env_id: Id for `gymnasium.make`.
        max_episode_steps: Time limit that replaces the registered one; the registered one if None.

    Raises:
        InputError: If there is no such environment, or it cannot be made.
    """
    from maml_rl.checks import Finding, check_task_env
    from maml_rl.tasks import make

    waits = reporting_waits(f"the check of {env_id} has not ended")
    with closing(make(env_id, max_episode_steps)) as env, waits:
        found = check_task_env(env)
        if all(finding.level != "error" for finding in found):
            found += [Finding("note", text) for text in _refused(env_id, env)]
    return found


def _refused(env_id: str, env: "gymnasium.Env[Any, Any]") -> Iterator[str]:
    from maml_rl.config import PolicyConfig
    from maml_rl.envs.mujoco.scenes import subject
    from maml_rl.experiments.live.session import not_shown
    from maml_rl.observations import in_rows, observation_parts
    from maml_rl.sb3 import check_spaces
    from maml_rl.task_observation import TaskObservation
    from maml_rl.unrolled import check_parts

    try:
        TaskObservation(in_rows(env))
    except InputError as error:
        yield f"maml-rl train --observe-task refuses it: {error}"
    files = "file"
    try:
        check_parts(observation_parts(env.observation_space), PolicyConfig().filters)
        files = ".zip, only .npz and .onnx"
        check_spaces(env.observation_space, env.action_space)
    except InputError as error:
        yield f"maml-rl adapt writes no {files}: {error}"
    if subject(env) is None:
        yield not_shown(env_id)
