"""Runs on the Hugging Face Hub, against a server on this machine that answers as the Hub does."""

import base64
import hashlib
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

import maml_rl
from maml_rl import hub
from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.errors import InputError
from maml_rl.experiments.runs import pushing
from maml_rl.machine import Machine

pytestmark = [
    pytest.mark.usefixtures("quick_pictures", "quick_critic"),
    pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning"),  # of huggingface_hub's own upload
]

TRAINED = Path(__file__).parents[3] / "trained"
TOKEN = "hf_may_write"
LFS = (".safetensors", ".webp", ".png")  # which the Hub stores separately, as its .gitattributes say


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory: one commit each, the last."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.downloaded: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str) -> str:
        files = self.repositories[name]
        return hashlib.sha1(repr(sorted((path, hash(data)) for path, data in files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_: object) -> None:
        return

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def missing(self, code: str = "RepoNotFound") -> None:
        self.answer({"error": "not found"}, 404 if self.may_write() else 401, X_Error_Code=code)

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        hub = self.server
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            name, revision = found[1], found[2] or "main"
            if name not in hub.repositories:
                self.missing()
            elif revision not in ("main", hub.commit(name)):
                self.answer({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
            else:
                self.answer({"id": name, "modelId": name, "sha": hub.commit(name), "siblings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+/?", path):
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in hub.repositories[found[1]].items()
            ]
            self.answer(entries)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            data = hub.repositories[found[1]][found[3]]
            if self.command == "GET":
                hub.downloaded.append(found[3])
            self.answer(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=hub.commit(found[1]))
        else:
            self.answer({"error": path}, 404)

    do_HEAD = do_GET  # noqa: N815, the server's own name

    def do_POST(self) -> None:  # noqa: C901, a table of addresses
        path, content, hub = urlparse(self.path).path, self.body(), self.server
        if path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif not self.may_write():
            self.answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            given = json.loads(content)
            name = f"{given.get('organization') or 'me'}/{given['name']}"
            if name.startswith("others/"):
                self.answer({"error": "no right"}, 403)
                return
            hub.repositories.setdefault(name, {})
            is_private = given.get("private") or given.get("visibility") == "private"
            hub.private.update({name} if is_private else ())
            self.answer({"url": f"{hub.address}/{name}", "id": name})
        elif path.endswith("/preupload/main"):
            files = [one["path"] for one in json.loads(content)["files"]]
            modes = [{"path": f, "uploadMode": "lfs" if f.endswith(LFS) else "regular"} for f in files]
            self.answer({"files": [{**one, "shouldIgnore": False} for one in modes]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            wanted = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/large/{one['oid']}"}}}
                for one in json.loads(content)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": wanted})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.repositories[found[1]][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.repositories[found[1]][value["path"]] = hub.large[value["oid"]]
            made = hub.commit(found[1])
            self.answer({"success": True, "commitOid": made, "commitUrl": f"{hub.address}/{found[1]}/commit/{made}"})
        else:
            self.answer({"error": path}, 404)

    def do_PUT(self) -> None:
        data = self.body()
        assert hashlib.sha256(data).hexdigest() == self.path.rpartition("/")[2]
        self.server.large[self.path.rpartition("/")[2]] = data
        self.answer({})


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[FakeHub]:
    """A Hub on this machine, with the caches of a new user."""
    fake = FakeHub()
    threading.Thread(target=fake.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", fake.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {"HF_HUB_CACHE": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)
    hub._downloaded.cache_clear()
    yield fake
    fake.shutdown()
    fake.server_close()
    hub._downloaded.cache_clear()


def upload(server: FakeHub, name: str, run: Path, *others: tuple[str, bytes]) -> None:
    server.repositories[name] = {
        file: (run / file).read_bytes() for file in (*hub.FILES, *hub.EVALUATIONS) if (run / file).exists()
    }
    server.repositories[name].update(dict(others))


@pytest.fixture
def navigation(tmp_path) -> Path:
    """A run to push, whose evaluation is there."""
    shutil.copytree(TRAINED / "navigation", tmp_path / "navigation")
    return tmp_path / "navigation"


def test_a_run_that_is_pushed_is_used_by_its_name(server, navigation, run_command, tmp_path):
    pushed = run_command("push", navigation, "me/navigation", "--private", "--threads=1")
    assert pushed.code == 0, pushed.err
    assert "next: maml-rl evaluate hub:me/navigation" in pushed.out
    assert server.private == {"me/navigation"}
    files = server.repositories["me/navigation"]
    evaluations = {"evaluation.json", "evaluation-paper.json"}
    pictures = {"adaptation.png", "clip.webp"}
    logs = {"metrics.csv"} | ({"machines.json"} if (navigation / "machines.json").exists() else set())
    assert files.keys() == {"README.md", "checkpoint.safetensors", "config.json", *evaluations, *pictures, *logs}
    assert files["clip.webp"][8:12] == b"WEBP"
    assert len(files["clip.webp"]) < 1_000_000

    ours, theirs = maml_rl.load_run(navigation), maml_rl.load_run("hub:me/navigation")
    assert theirs.config == ours.config
    assert theirs.progress == ours.progress
    assert theirs.directory is not None
    assert theirs.directory.is_relative_to(tmp_path / "cache")
    assert all(torch.equal(value, ours.state.meta[name]) for name, value in theirs.state.meta.items())
    few = ("--tasks=2", "--episodes=2", "--gradient-steps=1", "--json", "--threads=1")
    on_hub, here = (run_command("evaluate", run, *few) for run in ("hub:me/navigation", navigation))
    assert on_hub.code == 0, on_hub.err
    assert on_hub.out == here.out
    adapted = run_command("adapt", "hub:me/navigation", "--task=0.3,-0.2", "--episodes=2", "--out=policy.npz")
    assert adapted.code == 0, adapted.err
    assert (tmp_path / "policy.npz").exists()
    compared = run_command("compare", "hub:me/navigation", "--json")
    assert json.loads(compared.out)["methods"][0]["runs"][0]["seed"] == ours.config.seed


def test_the_card_has_the_results_where_the_hub_looks_for_them(server, navigation, run_command, tmp_path):
    assert run_command("push", navigation, "me/nav", "--out=card", "--threads=1").code == 0
    assert server.repositories == {}  # nothing was pushed
    card = huggingface_hub.ModelCard.load(tmp_path / "card" / "README.md")
    assert card.data.library_name == "maml-rl"
    assert {"reinforcement-learning", "meta-learning", "maml", "navigation"} <= set(card.data.tags)
    curve = json.loads((navigation / "evaluation.json").read_text())["curves"][0]
    found = {result.metric_name: (result.metric_type, result.metric_value) for result in card.data.eval_results}
    assert len(found) == len(curve["mean"]) == 4
    values = f"{curve['mean'][1]:.2f} +/- {curve['standard_error'][1]:.2f}"
    assert ("mean_reward", values) in found.values()
    assert "![before and after adaptation](clip.webp)" in card.text
    assert "maml-rl train navigation\n" in card.text
    assert "7.2 M env steps" in card.text
    assert 'maml_rl.load_run("hub:me/nav")' in card.text


def test_a_supervised_run_has_a_card_too_and_can_be_loaded(server, run_command, tmp_path):
    for name in ("sinusoid", "sinusoid-pretrained", "sinusoid-oracle"):  # its evaluation is next to theirs
        shutil.copytree(TRAINED / name, tmp_path / name)
    assert run_command("push", "sinusoid", "me/sinusoid", "--threads=1").code == 0
    card = server.repositories["me/sinusoid"]["README.md"].decode()
    assert "![before and after adaptation](adaptation.png)" in card
    assert "type: mse" in card
    assert maml_rl.load_run("hub:me/sinusoid").config.kind == "supervised"


def test_only_files_of_a_run_are_downloaded_and_nothing_that_could_be_executed(server):
    code = b"raise SystemExit('executed')"
    others = [("setup.py", code), ("modeling.py", code), ("model.pkl", code), ("sub/config.json", b"{}")]
    upload(server, "me/run", TRAINED / "navigation", *others)
    run = maml_rl.load_run("hub:me/run")
    assert set(server.downloaded) <= {*hub.FILES, *hub.EVALUATIONS}
    assert {path.name for path in run.directory.iterdir()} == set(server.downloaded)


def test_a_copy_needs_no_network_and_a_new_commit_is_another_copy(server):
    upload(server, "me/run", TRAINED / "navigation")
    first = maml_rl.load_run("hub:me/run")
    server.repositories["me/run"]["config.json"] = b"{}"
    hub._downloaded.cache_clear()
    second = maml_rl.load_run("hub:me/run")
    assert first.directory != second.directory
    assert first.directory.name == second.directory.name == "run"
    assert maml_rl.load_run(f"hub:me/run@{server.commit('me/run')}").directory == second.directory
    server.shutdown()
    server.server_close()
    hub._downloaded.cache_clear()
    assert maml_rl.load_run("hub:me/run").directory == second.directory


def refused(run: str) -> str:
    with pytest.raises(InputError) as error:
        maml_rl.load_run(run)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_wrong_name_is_explained_in_one_line(server, monkeypatch):
    upload(server, "me/run", TRAINED / "navigation")
    server.repositories["me/other"] = {"README.md": b"# another model"}
    assert "there is no repository hub:me/nothing, or it is private" in refused("hub:me/nothing")
    assert "there is no such revision" in refused("hub:me/run@v9")
    assert "hub:me/other is not a run of maml-rl: the repository has no checkpoint" in refused("hub:me/other")
    for name in ("hub:", "hub:run", "hub:me/run/more", "hub:me/../run", "hub:me/run@", "hub:-/.."):
        assert "give owner/name" in refused(name)
    server.repositories["me/run"]["checkpoint.safetensors"] = b"\x80\x04pickled"
    assert "truncated or damaged" in refused("hub:me/run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert "cannot be reached, and there is no copy on this machine" in refused("hub:me/elsewhere")


def test_a_package_that_is_missing_is_named(monkeypatch):
    import builtins

    real = builtins.__import__

    def importing(name: str, *arguments: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert "pip install 'maml-rl[hub]'" in refused("hub:me/run")


@pytest.mark.parametrize(
    ("token", "repository", "expected"),
    [
        (None, "me/run", "me/run needs a token: log in with hf auth login"),
        ("hf_wrong", "me/run", "the Hub refuses me/run (401)"),
        (TOKEN, "others/run", "the Hub refuses others/run (403)"),
        (TOKEN, "run", "give owner/name"),
        (TOKEN, "me/run@main", "push adds to the main branch"),
    ],
)
def test_a_refused_push_says_what_to_do(server, navigation, run_command, monkeypatch, token, repository, expected):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    monkeypatch.setattr(pushing, "stage", lambda *_: [navigation / "config.json"])
    result = run_command("push", navigation, repository, "--threads=1")
    assert (result.code, result.out) == (2, "")
    assert expected in result.err.splitlines()[-1]
    assert server.repositories == {}


def test_a_run_on_the_hub_can_be_started_from_but_not_resumed(server, run_command):
    upload(server, "me/run", TRAINED / "navigation")
    refused = run_command("train", "--resume", "hub:me/run")
    assert (refused.code, refused.out) == (2, "")
    assert "--start-from hub:me/run begins a new run" in refused.err
    small = ("--meta.meta-batch-size=2", "--meta.episodes=2", "--max-episode-steps=5", "--threads=1")
    started = run_command("train", "navigation", "--iterations=0", *small, "--start-from=hub:me/run")
    assert started.code == 0, started.err
    ours, theirs = maml_rl.load_run("runs/navigation"), maml_rl.load_run("hub:me/run")
    assert all(torch.equal(value, ours.state.meta[name]) for name, value in theirs.state.meta.items())


def test_a_run_that_names_a_module_asks_for_trust(server, run_command, tmp_path):
    (tmp_path / "their_module.py").write_text("raise SystemExit('executed')\n")
    run = maml_rl.load_run(TRAINED / "navigation")
    from dataclasses import replace

    theirs = replace(run.config, meta=replace(run.config.meta, inner_objective="their_module:loss"))
    maml_rl.save_run(tmp_path / "theirs", run._replace(config=theirs))
    upload(server, "me/run", tmp_path / "theirs")
    result = run_command("evaluate", "hub:me/run")
    assert (result.code, result.out) == (2, "")
    assert "hub:me/run names the module their_module" in result.err


@pytest.mark.parametrize(
    ("settings", "module"),
    [
        (
            {"env_id": "maml_rl.envs:finn2017/Navigation2D-v0", "network": PolicyConfig(module="own_networks:Fourier")},
            "own_networks",
        ),
        (
            {
                "env_id": "space_environments:OfPictures-v0",
                "network": PolicyConfig(hidden_sizes=(4,), filters=(2,)),
            },
            "space_environments",
        ),
    ],
    ids=["own network", "pictures"],
)
def test_a_run_with_its_own_network_or_pictures_is_pushed_and_used(server, run_command, monkeypatch, settings, module):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "environments")
    config = RLConfig(
        iterations=1,
        max_episode_steps=4,
        meta=RLMeta(meta_batch_size=2, episodes=3),
        evaluation=RLEvaluation(tasks=2, gradient_steps=1, episodes=2),
        **settings,
    )
    machine = Machine(threads=1, processes=1)
    maml_rl.save_run("run", maml_rl.train(config, machine=machine))
    pushed = run_command("push", "run", "me/run", "--threads=1", "--processes=1", f"--trust-module={module}")
    assert pushed.code == 0, pushed.err
    assert "clip.webp" in server.repositories["me/run"]
    assert not any(name.endswith(".py") for name in server.repositories["me/run"])
    ours, theirs = maml_rl.load_run("run"), maml_rl.load_run("hub:me/run")
    assert theirs.config == ours.config
    for found, expected in ((theirs.state.meta, ours.state.meta), (theirs.constants, ours.constants)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())
    few = ("--json", "--threads=1", "--processes=1")
    on_hub, here = (run_command("evaluate", run, *few) for run in ("hub:me/run", "run"))
    assert on_hub.code == 0, on_hub.err
    assert on_hub.out == here.out
