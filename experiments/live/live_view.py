"""The live view: a session, and the page that shows it, from the first adaptation to Ctrl-C."""

from contextlib import closing
from importlib.metadata import version

from maml_rl.envs.mujoco.scenes import scene_of
from maml_rl.errors import InputError
from maml_rl.experiments.live.session import Adapting, Session
from maml_rl.experiments.runs.task_input import chosen_task
from maml_rl.tasks import Task


def view(session: Session, host: str = "127.0.0.1", port: int | None = None, task: Task | str | None = None) -> None:
    """Shows a run live in a browser, until Ctrl-C.

    Args:
        session: The run.
        host: Interface that the page is served on.
        port: Port; the first free one from 8080 on if None.
        task: First task, as `maml-rl adapt` takes it; drawn from the space if None.

    Raises:
        InputError: If the task, host or port cannot be used, or MuJoCo is too old for Studio.
    """
    try:
        from maml_rl.experiments.live import panel, studio
    except ImportError as error:
        raise InputError(
            f"maml-rl view needs MuJoCo's Studio, which comes with MuJoCo 4 (this is {version('mujoco')}): "
            "pip install --upgrade mujoco"
        ) from error
    studio.check_address(host, port)
    first = chosen_task(session.task_space, task, session.config.seed)
    with closing(Adapting(session, lambda line: print(line, flush=True))) as adapting:
        adapting.ask(first)
        scene = scene_of(session.subject, panel.colours(adapting.total))
        title = f"{session.run.rl_config.env_id}, {session.run.state.iteration} meta-iterations"
        studio.serve(panel.LivePanel(title, session, scene, adapting), host, port)
