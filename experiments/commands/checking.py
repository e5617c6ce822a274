"""The check of an environment for every command: `maml_rl.checks`, and what single commands cannot do with it."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gymnasium

from maml_rl.checks import Finding, check_task_env
from maml_rl.errors import InputError
from maml_rl.experiments.live.session import is_shown, not_shown
from maml_rl.sb3 import check_spaces
from maml_rl.task_observation import TaskObservation
from maml_rl.tasks import make
from maml_rl.waiting import reporting_waits


def check(env_id: str, max_episode_steps: int | None = None) -> list[Finding]:
    """What an environment's author has to know before training in it, and in notes, what single commands refuse.

    Args:
        env_id: Id as `gymnasium.make` takes it.
        max_episode_steps: Time limit, in place of the one that it is registered with; that one if None.

    Raises:
        InputError: If there is no such environment, or it cannot be made.
    """
    waits = reporting_waits(f"the check of {env_id} has not ended")
    with closing(make(env_id, max_episode_steps)) as env, waits:
        findings = check_task_env(env)
        if all(finding.level != "error" for finding in findings):
            findings += [Finding("note", text) for text in _refused(env_id, env)]
    return findings


def _refused(env_id: str, env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    try:
        TaskObservation(env)
    except InputError as error:
        yield f"maml-rl train --observe-task refuses it: {error}"
    try:
        check_spaces(env.observation_space, env.action_space)
    except InputError as error:
        yield f"maml-rl adapt refuses it: {error}"
    if not is_shown(env):
        yield not_shown(env_id)
