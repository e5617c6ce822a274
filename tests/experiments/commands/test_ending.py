"""What a training prints when something ends it early."""

import pytest

from maml_rl.errors import InputError, NonFiniteError, RankError, WorkerError
from maml_rl.experiments.commands.ending import naming_what_is_saved


def ended_by(error: BaseException, saved) -> None:
    with naming_what_is_saved(saved, "checkpoint", "maml-rl resume it", lambda diverged: f"mend {diverged}"):
        raise error


@pytest.fixture(params=[True, False], ids=["saved", "nothing saved"])
def saved(request, tmp_path):
    path = tmp_path / "policy"
    if request.param:
        path.touch()
    return path


@pytest.mark.parametrize("error", [WorkerError("process 3"), RankError("rank 1"), OSError(28, "disk full")])
def test_a_failure_names_the_command_that_resumes_if_there_is_something_to_resume(error, saved):
    kept = "; the last checkpoint is saved, resume with: maml-rl resume it" if saved.exists() else ""
    message = f"training stopped: {error}{kept}"
    with pytest.raises(InputError if isinstance(error, OSError) else type(error)) as ended:
        ended_by(error, saved)
    assert str(ended.value) == message


def test_a_result_that_is_not_finite_names_the_remedy(saved):
    kept = f"the last checkpoint in {saved.parent} is intact; " if saved.exists() else ""
    with pytest.raises(InputError) as ended:
        ended_by(NonFiniteError("the loss"), saved)
    assert str(ended.value) == f"training stopped: the loss: {kept}mend the loss"


def test_an_interruption_promises_only_what_is_saved(saved, capsys):
    with pytest.raises(SystemExit if saved.exists() else KeyboardInterrupt) as ended:
        ended_by(KeyboardInterrupt(), saved)
    printed = "\ninterrupted; the last checkpoint is saved, resume with: maml-rl resume it\n" if saved.exists() else ""
    assert capsys.readouterr().err == printed
    assert getattr(ended.value, "code", 130) == 130
