"""The code of the pages works: files are written, code is executed, commands run with small settings."""

import csv
import json
import re
import shlex
import sys
from codeop import compile_command
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import maml_rl
from maml_rl.envs.mujoco.variations import QUANTITIES
from maml_rl.experiments.__main__ import main
from maml_rl.experiments.media.recording import load_recording
from maml_rl.initial import initial_policy
from maml_rl.reinforcement import RLLearner

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("trained/*.md")])
TUTORIAL, ROBOT = ROOT / "docs" / "own_environment.md", ROOT / "docs" / "own_robot.md"
NETWORK = ROOT / "docs" / "own_network.md"
SMALL = {
    "train": ["--meta.meta-batch-size=2", "--meta.episodes=2", "--network.hidden-sizes", "8", "--threads=1"],
    "adapt": ["--gradient-steps=1", "--episodes=2", "--threads=1"],
    "visualize": ["--tasks=1", "--gradient-steps=1", "--threads=1"],
    "evaluate": ["--tasks=2", "--episodes=2", "--gradient-steps=1", "--threads=1", "--processes=2"],
}


class Block(NamedTuple):
    """A block of code."""

    language: str
    code: str

    @property
    def file(self) -> str | None:
        """The file that it belongs in, if it says so."""
        named = re.match(r"# (\w+\.py)\n|<!-- (\w+\.xml) -->\n", self.code)
        return named and (named[1] or named[2])


def blocks(path: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(), re.M | re.S)]


def shrunk(command: str) -> list[str]:
    """Arguments of a command, with settings that make it short."""
    program, *arguments = shlex.split(command)
    assert program == "maml-rl"
    if "--resume" in arguments:
        return [*arguments[:-1], "2"]
    iterations = re.sub(r"--iterations \d+", "--iterations 1", shlex.join(arguments))
    return [*shlex.split(iterations), *SMALL.get(arguments[0], [])]


@pytest.fixture
def elsewhere(monkeypatch, tmp_path) -> Path:
    """An empty directory where the command looks for modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def do_what_it_says(
    page: Path,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    machine: Sequence[str] = (),
) -> None:
    """Writes the files of a page, and runs its other blocks of code and its commands, one after the other.

    Commands that compute are given the options of `machine` too.
    """
    for block in blocks(page):
        if block.file:
            (elsewhere / block.file).write_text(block.code)
        elif block.language == "python":
            exec(compile(block.code, str(page), "exec"), {})
        else:
            assert block.language == "sh"
            for command in block.code.splitlines():
                options = () if " check " in command else machine
                monkeypatch.setattr(sys, "argv", ["maml-rl", *shrunk(command), *options])
                main()
                out, err = capsys.readouterr()
                assert "Traceback" not in err
                if " check " in command:
                    assert ": nothing to fix\n" in out


def test_the_tutorial_does_what_it_says(elsewhere, monkeypatch, capsys):
    do_what_it_says(TUTORIAL, elsewhere, monkeypatch, capsys)
    for run in ("lunge", "wind", "crane", "theirs", "pearl"):
        assert (elsewhere / "runs" / run / "checkpoint.safetensors").exists()
    assert (elsewhere / "runs" / "lunge" / "adaptation.png").exists()


def test_the_page_on_a_robot_from_a_file_does_what_it_says(elsewhere, monkeypatch, capsys):
    do_what_it_says(ROBOT, elsewhere, monkeypatch, capsys)
    assert (elsewhere / "runs" / "gantry" / "adaptation.png").exists()
    assert list((elsewhere / "runs" / "gantry").glob("*.html"))


def test_the_page_on_networks_does_what_it_says(elsewhere, monkeypatch, capsys):
    do_what_it_says(NETWORK, elsewhere, monkeypatch, capsys, ["--processes=1", "--start-method=fork"])
    assert (elsewhere / "runs" / "pixels" / "adaptation.png").exists()
    assert (elsewhere / "runs" / "pixels" / "policy.zip").exists()
    assert load_recording(elsewhere / "runs" / "pixels" / "recording.npz").kind == "pictures"  # those it observes


def test_the_policy_of_pictures_learns_to_adapt(elsewhere):
    """Five iterations, fewer than the page has, with half of its filters.

    Measured over seeds 0 to 3 on 8 held-out tasks: after a gradient step the return is 2.2, 3.2, 1.4 and 2.6 better
    than that of a random policy after its gradient step, and 1.4, 3.1, 1.0 and 5.7 better than before.
    """
    (code,) = [block.code for block in blocks(NETWORK) if block.file == "pixels.py"]
    (elsewhere / "pixels.py").write_text(code)
    config = maml_rl.RLConfig(
        env_id="pixels:Pixels-v0",
        meta=maml_rl.RLMeta(
            meta_batch_size=6,
            episodes=12,
            inner_lr=0.2,
            gae_lambda=0.97,
            baseline_observations="standardised",
            step=maml_rl.TrustRegion(max_kl=0.04, cg_damping=0.1, cg_iterations=5),
        ),
        network=maml_rl.PolicyConfig(filters=(4, 8), hidden_sizes=(16,)),
        evaluation=maml_rl.RLEvaluation(tasks=8, episodes=12, gradient_steps=1),
    )
    envs = maml_rl.vectorize(config.env_id, 72)
    with RLLearner(config, envs, initial_policy(envs, config.network, config.meta, 0)) as learner:
        state = learner.initial()
        for _ in range(5):
            state, _ = learner.iterate(state)
        trained, untrained = (curve.values.mean(1) for curve in learner.evaluate(state, config.evaluation))
    assert trained[1] > untrained[1] + 1.0
    assert trained[1] > trained[0] + 0.7


def test_the_table_of_what_can_vary_has_every_quantity():
    rows = re.findall(r"^\| (`.*?) \|", ROBOT.read_text(), re.M)
    assert re.findall(r"`([^`]+)`", " ".join(rows)) == list(QUANTITIES)


@pytest.mark.parametrize(("page", "file"), [(TUTORIAL, "wind.py"), (ROBOT, "gantry.py")])
def test_a_batched_environment_has_about_forty_lines(page, file):
    (code,) = [block.code for block in blocks(page) if block.file == file]
    assert len(code.splitlines()) < 50


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Anchors of its headings, as GitHub makes them from their text."""
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", prose(page), re.M)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_and_headings_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http", "reference/")):  # a build of the documentation writes reference/, and checks it
            continue
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        assert not heading or heading in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_functions_that_a_page_names_with_their_file_exist(page):
    for file, name in re.findall(r"`((?:maml_rl|envs|experiments)/[\w/]+\.py)`:\s+`(\w+)", page.read_text()):
        assert re.search(rf"^\s*(?:def|class) {name}\b|^{name}\b.*=", (ROOT / file).read_text(), re.M), (file, name)


def error_of_the_shell(code: str) -> str | None:
    """The error of Python's interactive shell for a block pasted line by line, or None."""
    pending: list[str] = []
    for line in [*code.splitlines(), ""]:
        pending.append(line)
        try:
            if compile_command("\n".join(pending), symbol="single"):
                pending = []
        except SyntaxError as error:
            return f"{line}: {error}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_can_be_pasted_into_the_interactive_shell(page):
    for block in blocks(page):
        if block.language == "python" and not block.file:
            assert error_of_the_shell(block.code) is None


def test_a_block_that_continues_right_after_a_loop_cannot_be_pasted():
    assert "y = 1" in (error_of_the_shell("for x in ():\n    pass\ny = 1\n") or "")
    assert error_of_the_shell("for x in ():\n    pass\n\ny = 1\n") is None


def test_the_page_on_metrics_has_what_the_shipped_runs_measured():
    """Of each task over all seeds: the first inner/kl, and inner/kl and inner/curvature of the last ten iterations."""
    measured: dict[tuple[str, float], list[list[float]]] = {}
    for path in sorted(ROOT.glob("trained/*/metrics.csv")):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        if "inner/kl" in rows[0]:
            inner_lr = json.loads((path.parent / "config.json").read_text())["meta"]["inner_lr"]
            columns = measured.setdefault((path.parent.name.partition("-seed")[0], inner_lr), [[], [], []])
            columns[0].append(float(rows[0]["inner/kl"]))
            for column, name in zip(columns[1:], ("inner/kl", "inner/curvature"), strict=True):
                column += [float(row[name]) for row in rows[-10:] if name in row]
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert len(measured) == 12
    for (task, inner_lr), columns in measured.items():
        cells = [" to ".join(dict.fromkeys(f"{bound(c):.2g}" for bound in (min, max))) if c else "-" for c in columns]
        assert f"\n| {task} | {inner_lr} | {' | '.join(cells)} |\n" in text


def test_the_figures_of_the_results_are_linked_from_the_readme():
    assert "docs/results.md#figures-4-and-5" in (ROOT / "README.md").read_text()
    for figure in ("results/navigation/figure4.png", "results/figure5.png"):
        assert f"](../{figure})" in (ROOT / "docs" / "results.md").read_text()


def test_the_tutorial_is_linked_from_the_readme():
    assert "docs/own_environment.md" in (ROOT / "README.md").read_text()


def test_the_page_on_viewing_does_what_it_says(elsewhere, monkeypatch, capsys):
    """Its commands on a small run, and its code on what they leave."""
    run = elsewhere / "trained" / "half-cheetah-vel"
    monkeypatch.setattr(sys, "argv", ["maml-rl", *shrunk("maml-rl train navigation --iterations 1"), f"--out={run}"])
    main()
    commands = re.findall(r"^maml-rl (?!view )(?:[^#\n]*[^#\s])", (ROOT / "docs" / "viewing.md").read_text(), re.M)
    assert len(commands) == 7
    less = {"adapt ": ["--episodes=2"], "--record": SMALL["evaluate"][:3], "--video": ["--tasks=1"]}
    for command in commands:
        command = command.replace("RUN", str(run)).replace("--task 1.3", "--task 0.3,0.2").replace(".mp4", ".gif")
        small = next((options for part, options in less.items() if part in command), [])
        monkeypatch.setattr(sys, "argv", [*shlex.split(command), *small])
        main()
        assert "Traceback" not in capsys.readouterr().err
    for block in blocks(ROOT / "docs" / "viewing.md"):
        exec(block.code, {})
    made = ["adaptation.pdf", "adaptation.webp", "policy.zip"]
    assert sorted(path.name for path in elsewhere.iterdir() if path.is_file()) == made
