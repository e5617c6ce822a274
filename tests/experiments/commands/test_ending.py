"""What a training prints when something ends it early."""

from collections.abc import Callable

import pytest

from maml_rl.errors import InputError, NonFiniteError, RankError, WorkerError
from maml_rl.experiments.commands.ending import Saved, naming_what_is_saved


def ended_by(error: BaseException, saved: Saved) -> None:
    with naming_what_is_saved(saved, lambda diverged: f"remedy for {diverged}"):
        raise error


@pytest.fixture(params=[True, False], ids=["saved", "nothing saved"])
def saved(request, tmp_path) -> Saved:
    if request.param:
        (tmp_path / "policy").touch()
    return Saved(tmp_path / "policy", "the iterations", "the last checkpoint", "maml-rl resume it")


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (lambda: WorkerError("process 3"), "; the iterations are saved, resume with: maml-rl resume it"),
        (lambda: RankError("rank 1"), "; the iterations are saved, resume with: maml-rl resume it"),
        (lambda: OSError(28, "disk full"), "; the last checkpoint is intact, resume with: maml-rl resume it"),
    ],
)
def test_a_failure_names_the_command_that_resumes_if_there_is_something_to_resume(
    error: Callable[[], Exception], kept, saved
):
    failure = error()
    message = f"training stopped: {failure}{kept if saved.file.exists() else ''}"
    with pytest.raises(InputError if isinstance(failure, OSError) else type(failure)) as ended:
        ended_by(failure, saved)
    assert str(ended.value) == message


def test_a_result_that_is_not_finite_names_the_remedy(saved):
    kept = f"the last checkpoint in {saved.file.parent} is intact; " if saved.file.exists() else ""
    with pytest.raises(InputError) as ended:
        ended_by(NonFiniteError("the loss"), saved)
    assert str(ended.value) == f"training stopped: the loss: {kept}remedy for the loss"


def test_an_interruption_promises_only_what_is_saved(saved, capsys):
    with pytest.raises(SystemExit if saved.file.exists() else KeyboardInterrupt) as ended:
        ended_by(KeyboardInterrupt(), saved)
    printed = "\ninterrupted; the iterations are saved, resume with: maml-rl resume it\n" if saved.file.exists() else ""
    assert capsys.readouterr().err == printed
    assert getattr(ended.value, "code", 130) == 130
