"""The live view as its user meets it: in a browser, on one interface, ended by Ctrl-C."""

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from maml_rl.config import RLConfig
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.experiments.live.live_view import view
from maml_rl.experiments.live.session import Adapting, Session
from maml_rl.experiments.runs.adapting import adapt_run
from maml_rl.machine import Machine
from maml_rl.run import new_run, open_learner, save_run
from maml_rl.tasks import Task

pytest.importorskip("mujoco.studio", reason="the live view needs MuJoCo 4")
from mujoco.studio.web import web_server
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from maml_rl.envs.mujoco.arenas import Arenas
from maml_rl.envs.mujoco.lanes import Colour
from maml_rl.envs.mujoco.mdp import MujocoMDP
from maml_rl.experiments.live import panel, studio

TRAINED = Path(__file__).parents[3] / "trained"
RUN = TRAINED / "half-cheetah-vel"
ONE_THREAD = Machine(threads=1)
FAST = ("--gradient-steps", "1", "--episodes", "4")
ADDRESS = re.compile(r"http://([\w.]+):(\d+)/")
TWO_FRAMES = "const done = arguments[1]; requestAnimationFrame(() => requestAnimationFrame(done))"
PATIENCE = 180.0  # s; a browser without a graphics card draws a frame a second while other tests run


class Served(NamedTuple):
    """A running `maml-rl view`."""

    process: "subprocess.Popen[str]"
    port: int
    output: Path  # what it has printed so far

    def tasks(self) -> list[float]:
        """Tasks that it has adapted to."""
        return [
            float(text)
            for text in re.findall(r"^goal velocity ([\d.]+) m/s: mean return", self.output.read_text(), re.M)
        ]


@contextmanager
def serving(directory: Path, *options: str, run: Path = RUN) -> Iterator[Served]:
    """A `maml-rl view` that has printed its address. It is killed at the end."""
    output = directory / "output"
    command = [sys.executable, "-m", "maml_rl.experiments", "view", str(run), *FAST, *options]
    with (
        output.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True) as process,
    ):
        try:
            wait_for(lambda: ADDRESS.search(output.read_text()) or process.poll() is not None)
            found = ADDRESS.search(output.read_text())
            assert found, output.read_text()
            yield Served(process, int(found[2]), output)
        finally:
            process.kill()


def stop(served: Served) -> int:
    served.process.send_signal(signal.SIGINT)
    return served.process.wait(PATIENCE)


def wait_for(happened: Callable[[], Any], seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def without_priority(driver: str, directory: Path) -> str:
    """A driver whose browser may not raise its priority above the server's, as root's browser does."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        return driver
    script = directory / "driver"
    script.write_text(f'#!/bin/sh\nexec {setpriv} --bounding-set=-sys_nice {driver} "$@"\n')
    script.chmod(0o700)
    return str(script)


class Page:
    """The page in headless Chromium, which draws without a graphics card: half the usual pixels on a side, for speed.

    Positions are pixels of the page; its panel has the same place whatever the window.
    """

    TASK, PAUSE, TIME = 72, 174, 200  # y of the controls
    LEFT, RIGHT = 26, 316  # x of the ends of a slider

    def __init__(self, address: str, directory: Path) -> None:
        webdriver = pytest.importorskip("selenium.webdriver", reason="the page is tested through selenium")
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        driver = shutil.which("chromedriver")
        if chromium is None or driver is None:
            pytest.skip("there is no Chromium with its driver here: apt install chromium chromium-driver")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in (
            "headless=new",
            "no-sandbox",
            "use-gl=angle",
            "use-angle=swiftshader",
            "enable-unsafe-swiftshader",
            "force-device-scale-factor=0.5",
            "window-size=640,520",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={directory / 'profile'}",
        ):
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(without_priority(driver, directory))
        self.browser = webdriver.Chrome(options=options, service=service)
        self.browser.get(address)
        self._log: list[dict[str, str]] = []
        wait_for(lambda: any("First remote draw frame applied" in line["message"] for line in self.log()))

    def log(self) -> list[dict[str, str]]:
        """What the page has written to the browser's console."""
        self._log += self.browser.get_log("browser")
        return self._log

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Presses, moves and releases the mouse. The page reads it once a frame, so each act gets a frame."""
        from selenium.webdriver.common.action_chains import ActionChains

        for act, *place in (
            ("move_to_location", *start),
            ("pointer_down",),
            ("move_to_location", *end),
            ("pointer_up",),
        ):
            chain = ActionChains(self.browser, duration=0)
            getattr(chain.w3c_actions.pointer_action, act)(*place)
            chain.perform()
            self.browser.execute_async_script(TWO_FRAMES, 2)

    def press(self, key: str) -> None:
        """Presses a key."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(key).perform()

    def slide(self, y: int, share: float) -> None:
        """Moves a slider to a share of its length."""
        x = round(self.LEFT + share * (self.RIGHT - self.LEFT))
        self.drag(((self.LEFT + self.RIGHT) // 2, y), (x, y))

    def robots(self) -> np.ndarray:
        """What is to the right of the panel, above the bar of Studio's page, `[height, width, 3]`."""
        from selenium.common.exceptions import TimeoutException

        for _ in range(6):
            try:
                png = self.browser.get_screenshot_as_png()
            except TimeoutException:
                continue
            return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int64)[:-20, 200:]
        raise AssertionError("the browser draws no frame")

    def standstill(self) -> np.ndarray:
        """The robots once they stand still."""
        pictures = [self.robots()]

        def same() -> bool:
            pictures.append(self.robots())
            return moved(pictures[-1], pictures[-2]) == 0

        wait_for(same)
        return pictures[-1]


def coloured(picture: np.ndarray, colour: Colour) -> int:
    """Number of pixels of about a colour, in the light or in the shade."""
    alike = picture @ np.array(colour) / (np.linalg.norm(picture, axis=-1) + 1e-9) / np.linalg.norm(colour)
    return int((alike > 0.99).sum())


def moved(before: np.ndarray, after: np.ndarray) -> int:
    """Number of pixels that differ by more than the noise that Studio adds to each frame."""
    return int((np.abs(before - after).max(-1) > 60).sum())


@pytest.fixture(scope="class")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Served]]:
    """A page, which is closed before other tests: it draws as fast as the processors can."""
    directory = tmp_path_factory.mktemp("page")
    with serving(directory, "--task", "0.2") as served:
        opened = Page(f"http://127.0.0.1:{served.port}/", directory)
        wait_for(lambda: served.tasks() == [pytest.approx(0.2)])
        yield opened, served
        opened.browser.quit()


class TestPage:
    def test_the_page_shows_a_robot_for_each_number_of_gradient_steps_in_motion(
        self, page: tuple[Page, Served]
    ) -> None:
        opened, _ = page
        picture = opened.robots()
        assert [coloured(picture, colour) > 30 for colour in panel.colours(2)] == [True, True]
        wait_for(lambda: moved(picture, opened.robots()) > 30)
        assert [line["message"] for line in opened.log() if line["level"] == "SEVERE"] == []

    def test_the_time_slider_stops_the_motion_which_button_and_space_bar_switch(
        self, page: tuple[Page, Served]
    ) -> None:
        opened, _ = page
        opened.slide(opened.TIME, 0.25)
        early = opened.standstill()
        opened.slide(opened.TIME, 0.75)
        middle = opened.standstill()
        assert moved(early, middle) > 30
        opened.drag((50, opened.PAUSE), (50, opened.PAUSE))
        wait_for(lambda: moved(middle, opened.robots()) > 30)
        opened.press(" ")
        opened.standstill()

    def test_the_task_slider_makes_the_policy_adapt_and_move_differently(self, page: tuple[Page, Served]) -> None:
        opened, served = page
        opened.slide(opened.TIME, 0.9)
        before, asked = opened.standstill(), len(served.tasks())
        opened.slide(opened.TASK, 0.95)
        wait_for(lambda: len(served.tasks()) > asked)
        assert served.tasks()[-1] == pytest.approx(1.9, abs=0.1)
        after = opened.standstill()
        assert moved(before, after) > 30
        assert coloured(after, panel.colours(2)[1]) > 30


def test_each_part_of_a_task_has_a_control(tmp_path: Path) -> None:
    config = RLConfig(env_id="maml_rl.envs:maml_rl/HalfCheetahMixture-v0", iterations=0)
    with open_learner(config) as learner:
        save_run(tmp_path / "run", new_run(learner, config))
        space = learner.task_space
    assert panel.has_controls(space)
    assert isinstance(space, spaces.Dict)
    place = list(space.spaces).index("payload")
    slider, right = Page.TASK + 22 * place, 226  # a line of the panel has 22 pixels, and the names are longer here
    with serving(tmp_path, run=tmp_path / "run") as served:
        page = Page(f"http://127.0.0.1:{served.port}/", tmp_path)
        try:
            wait_for(lambda: "mean return" in served.output.read_text())
            before = served.output.read_text().count("mean return")
            page.drag(((Page.LEFT + right) // 2, slider), (right - 2, slider))
            wait_for(lambda: served.output.read_text().count("mean return") > before)
        finally:
            page.browser.quit()
        payloads = [float(kilograms) for kilograms in re.findall(r"payload ([\d.]+) kg", served.output.read_text())]
    others = [line.partition(", ")[2].partition(":")[0] for line in served.output.read_text().splitlines()[-2:]]
    assert payloads[-1] == pytest.approx(7.0, abs=0.5)
    assert others[0] == others[1]


@pytest.fixture
def crawler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run without training on a robot that is Gymnasium's own MujocoEnv."""
    environments = Path(__file__).parents[2] / "environments"
    monkeypatch.chdir(environments)
    monkeypatch.syspath_prepend(environments)
    config = RLConfig(env_id="mujoco_environments:Crawler-v0", iterations=0)
    with open_learner(config, Machine(threads=1, processes=1)) as learner:
        save_run(tmp_path / "run", new_run(learner, config))
    return tmp_path / "run"


def test_a_mujoco_environment_without_a_batch_is_shown_with_a_control_for_each_part(
    crawler: Path, tmp_path: Path
) -> None:
    right = 226  # pixels, where a slider ends
    options = ("--trust-module", "mujoco_environments", "--processes", "1", "--task")
    with serving(tmp_path, *options, '{"arm": [0.1], "flag": [0.5, 0.0], "way": 0}', run=crawler) as served:
        page = Page(f"http://127.0.0.1:{served.port}/", tmp_path)
        try:
            wait_for(lambda: "mean return" in served.output.read_text())
            picture = page.robots()
            assert [coloured(picture, colour) > 30 for colour in panel.colours(2)] == [True, True]
            page.drag(((page.LEFT + right) // 2, page.TASK), (right - 2, page.TASK))
            wait_for(lambda: served.output.read_text().count("mean return") > 1)
        finally:
            page.browser.quit()
        first, second = served.output.read_text().splitlines()[-2:]
    assert first.startswith("arm 0.1, flag (0.5, 0), way 0: mean return")
    assert re.match(r"arm 0\.(49\d|5), flag \(0\.5, 0\), way 0: mean return", second)


def test_the_bodies_of_a_mujoco_environment_without_a_batch_are_recorded(crawler: Path) -> None:
    task = {"arm": np.float32([0.5]), "flag": np.float32([1.5, -1.0]), "way": np.int64(1)}
    with closing(Session(crawler, 1, 3, machine=Machine(threads=1, processes=1))) as opened:
        assert (opened.task_quantity, opened.task_name(task)) == ("task", "arm 0.5, flag (1.5, -1), way 1")
        recording = opened.adapt(task, lambda _: None)
        assert isinstance(opened.subject, mujoco.MjModel)
        hand, flag = (opened.subject.body(name).id for name in ("hand", "flag"))
    bodies = recording.motion.reshape(2, 1, 21, -1, 7)
    assert bodies.shape[3] == opened.subject.nbody - 1
    np.testing.assert_allclose(bodies[..., flag - 1, :3], np.broadcast_to([1.5, -1.0, 0.3], (2, 1, 21, 3)), atol=1e-6)
    lengths = np.linalg.norm(bodies[..., hand - 1, :3] - bodies[..., hand - 2, :3], axis=-1)
    np.testing.assert_allclose(lengths, np.hypot(0.5, 0.05), atol=1e-5)  # what the task sets, and no other model's


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (1,)),
        spaces.Box(0.0, 1.0, (13,)),
        spaces.Dict({"goal": spaces.Box(0.0, 1.0, (2,)), "name": spaces.Text(3)}),
        spaces.Dict({}),
    ],
    ids=["without bounds", "too many numbers", "a text", "nothing"],
)
def test_tasks_of_these_spaces_have_no_controls(space: spaces.Space[Any]) -> None:
    assert not panel.has_controls(space)


# Who can reach it, and how it ends


def test_it_answers_on_its_own_interface_only_and_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    with serving(tmp_path, run=TRAINED / "navigation") as served:
        assert "http://127.0.0.1:" in served.output.read_text()
        assert answers("127.0.0.1", served.port)
        others = {"127.0.0.2", *socket.gethostbyname_ex(socket.gethostname())[2], *outward()} - {"127.0.0.1"}
        assert [host for host in others if answers(host, served.port)] == []
        assert stop(served) == 0
        assert "Traceback" not in served.output.read_text()
        assert not answers("127.0.0.1", served.port)


def outward() -> set[str]:
    """This machine's address towards other machines, if it has one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return set()
        return {probe.getsockname()[0]}


def test_another_interface_is_served_if_asked_for_with_a_warning(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", run=TRAINED / "navigation") as served:
        wait_for(lambda: "no password" in served.output.read_text())
        assert answers("127.0.0.2", served.port)  # so the test above would see it
        assert stop(served) == 0


def test_a_studio_that_listens_elsewhere_than_asked_is_not_started(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []

    def everywhere(*_: object) -> socket.socket:
        bound = socket.socket()
        bound.bind(("0.0.0.0", 0))
        ports.append(bound.getsockname()[1])
        return bound

    monkeypatch.setattr(web_server, "bind_public_socket", everywhere)
    scene = Arenas(panel.colours(2))
    shown = panel.LivePanel("title", session, scene, Adapting(session, print))
    with pytest.raises(InputError, match=r"would serve on 0\.0\.0\.0, so it does not"):
        studio.serve(shown, "127.0.0.1", None)
    assert not answers("127.0.0.1", ports[0])


# Which pages it answers


class Address(NamedTuple):
    """Where a server in this process answers."""

    host: str
    port: int

    def get(self, path: str, **headers: str) -> int:
        """Status of a request whose headers are all given: what a browser would forbid a page to forge."""
        with closing(HTTPConnection(self.host, self.port, timeout=PATIENCE)) as connection:
            connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def opened(self, path: str, host: str | None, origin: str | None) -> ClientConnection:
        """A WebSocket with these headers, or `InvalidStatus` where it is refused."""
        connection = socket.create_connection((self.host, self.port), timeout=PATIENCE)
        uri = f"ws://{host or f'{self.host}:{self.port}'}{path}"
        return connect(uri, sock=connection, origin=origin, compression=None, max_size=None)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with serving(tmp_path_factory.mktemp("address"), run=TRAINED / "navigation") as served:
        yield Address("127.0.0.1", served.port)


OWN_HOSTS = [
    "127.0.0.1:{}",
    "localhost:{}",
    "[::1]:{}",
    "LOCALHOST:{}",
    "127.0.0.1",
    "localhost:9000",
    "192.168.1.5:{}",
]
STRANGE_HOSTS = [
    "evil.example:{}",
    "127.0.0.1.evil.example:{}",
    "localhost.evil.example:{}",
    "evil.example",
    "localhost:{}@evil.example",
    "evil.example:{}:127.0.0.1",
    "[127.0.0.1:{}",
    "127.0.0.1:",
    "",
]


@pytest.mark.parametrize("host", OWN_HOSTS)
@pytest.mark.parametrize("path", ["/", "/model?total_bytes"])
def test_its_own_hosts_are_answered(address: Address, host: str, path: str) -> None:
    host = host.format(address.port)
    assert address.get(path, Host=host) == 200
    assert address.get(path, Host=host, Origin=f"http://{host}") == 200


@pytest.mark.parametrize("host", STRANGE_HOSTS)
@pytest.mark.parametrize("path", ["/", "/model", "/ui", "/state", "/assets/x"])
def test_a_name_that_anyone_can_point_here_is_refused(address: Address, host: str, path: str) -> None:
    assert address.get(path, Host=host.format(address.port)) in (400, 403)
    assert address.get(path) in (400, 403)


FOREIGN = [
    "http://evil.example",
    "https://127.0.0.1:{}",
    "http://127.0.0.1:1",
    "http://localhost:{}",
    "http://127.0.0.1:{}.evil.example",
    "null",
    "",
    "file://",
]


@pytest.mark.parametrize("origin", [*FOREIGN, None])
@pytest.mark.parametrize("path", ["/ui?sid=a", "/state?sid=a"])
def test_a_page_of_another_origin_opens_no_channel(address: Address, path: str, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        address.opened(path, None, origin and origin.format(address.port))
    assert refused.value.response.status_code == 403
    if origin is not None:
        own, forged = f"127.0.0.1:{address.port}", origin.format(address.port)
        assert address.get("/model", Host=own, Origin=forged) == 403  # nor may it read what is shown


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "localhost:9000"])
def test_its_own_page_opens_both_channels(address: Address, host: str) -> None:
    host = host.format(address.port)
    with address.opened("/state?sid=me", host, f"http://{host}") as state:
        assert "role=spectator" in state.recv(PATIENCE)
    with address.opened("/ui?sid=me", host, f"http://{host}") as channel:
        channel.ping().wait(PATIENCE)


def test_no_model_is_taken_even_from_its_own_page(address: Address) -> None:
    host = f"127.0.0.1:{address.port}"
    with pytest.raises(InvalidStatus) as refused:
        address.opened("/drop?sid=me", host, f"http://{host}")
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/ui?sid=large", "/state?sid=large"])
def test_a_large_message_closes_the_channel(address: Address, path: str) -> None:
    host = f"127.0.0.1:{address.port}"
    with address.opened(path, host, f"http://{host}") as channel:
        channel.send(bytes(2**17))
        with pytest.raises(ConnectionClosedError, match="1009"):  # too big
            list(channel)


def test_names_of_this_machine_are_known_where_others_may_come() -> None:
    own = f"{socket.gethostname()}:8080"
    seen: dict[str, Any] = {}
    for interface in ("127.0.0.1", "0.0.0.0"):
        request = SimpleNamespace(path="/", headers=web_server.Headers({"Host": own}))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(studio, "_serve", lambda _, **settings: settings["process_request"])
            process = studio.guarded(interface)(None, process_request=lambda *_: None)
        seen[interface] = process(None, request)
    assert seen["127.0.0.1"].status_code == 403
    assert seen["0.0.0.0"] is None


@pytest.mark.parametrize("status", [200, 403])
def test_a_request_shows_whether_a_server_lets_any_page_in(status: int) -> None:
    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.headers["Host"] == "stranger.invalid" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert studio._refuses_strangers("127.0.0.1", server.server_port) is (status == 403)
        thread.join()


def test_a_studio_that_would_let_any_page_in_is_not_started(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "_refuses_strangers", lambda *_: False)
    monkeypatch.setattr(web_server.WebServer, "start", lambda _: None)
    scene = Arenas(panel.colours(2))
    shown = panel.LivePanel("title", session, scene, Adapting(session, print))
    with pytest.raises(InputError, match="would let any page of the browser in, so it does not"):
        studio.serve(shown, "127.0.0.1", None)


# What it says where it cannot start


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 0, "--port must be between 1 and 65535, got 0"),
        ("127.0.0.1", 65536, "--port must be between 1 and 65535, got 65536"),
        ("192.0.2.1", None, "this machine cannot serve on --host 192.0.2.1"),
        ("no such host", None, "this machine cannot serve on --host no such host"),
    ],
)
def test_an_address_that_cannot_be_used_is_named(host: str, port: int | None, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        studio.check_address(host, port)


def test_a_port_in_use_ends_the_command_with_one_line(run_command: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_command("view", RUN, "--port", port)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"maml-rl: port {port} of 127.0.0.1 is in use: give another --port, or none for a free one\n"


def test_without_studio_the_error_names_what_to_install(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("panel", "studio"):
        monkeypatch.delitem(sys.modules, f"maml_rl.experiments.live.{name}")
        monkeypatch.delattr(f"maml_rl.experiments.live.{name}")
    monkeypatch.setitem(sys.modules, "mujoco.studio", None)
    with pytest.raises(InputError, match=r"needs MuJoCo's Studio, which comes with MuJoCo 4.*pip install"):
        view(session)


# Adaptation


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with closing(Session(RUN, gradient_steps=2, episodes=3, machine=ONE_THREAD)) as opened:
        yield opened


def task(value: float) -> Task:
    return np.array([value], np.float32)


def test_it_adapts_as_maml_rl_adapt_does(session: Session) -> None:
    stages: list[int] = []
    recording = session.adapt(task(1.0), stages.append)
    expected = adapt_run(RUN, task(1.0), gradient_steps=2, episodes=3, machine=ONE_THREAD)
    assert stages == [1, 2, 3]
    np.testing.assert_allclose(recording.mean_returns[:, 0], expected.mean_return, rtol=1e-6)
    assert isinstance(session.subject, MujocoMDP)
    assert recording.motion.shape == (3, 1, 201, session.subject.model.nq)


def test_the_task_asked_for_last_is_the_one_that_is_shown(session: Session) -> None:
    said: list[str] = []
    with closing(Adapting(session, said.append)) as adapting:
        assert adapting.shown is None
        for value in (0.5, 1.0, 1.5):
            adapting.ask(task(value))
        assert adapting.done < adapting.total
        wait_for(lambda: adapting.done == adapting.total)
        assert adapting.shown is not None
        assert adapting.shown.task == task(1.5)
    assert [line.split(":")[0] for line in said] == ["goal velocity 1.50 m/s"]


def test_an_adaptation_that_fails_says_so_and_leaves_what_is_shown(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: object) -> None:
        raise NonFiniteError("actions sampled after 1 gradient steps are not finite")

    said: list[str] = []
    with closing(Adapting(session, said.append)) as adapting:
        adapting.ask(task(0.5))
        wait_for(lambda: adapting.done == adapting.total)
        shown = adapting.shown
        monkeypatch.setattr(session, "adapt", diverges)
        adapting.ask(task(1.0))
        wait_for(lambda: adapting.done == adapting.total)
        assert adapting.shown is shown
        assert adapting.problem == "actions sampled after 1 gradient steps are not finite"
    assert said[1] == "goal velocity 1.00 m/s: actions sampled after 1 gradient steps are not finite"


def test_an_environment_that_cannot_be_shown_points_to_the_report(tmp_path: Path) -> None:
    config = RLConfig(env_id="maml_rl.envs:duan2016/BernoulliBandit-v0", iterations=0)
    with open_learner(config) as learner:
        save_run(tmp_path / "run", new_run(learner, config))
    with pytest.raises(InputError, match=r"not maml_rl.envs:duan2016/BernoulliBandit-v0: maml-rl visualize shows any"):
        Session(tmp_path / "run")


def test_poses_between_two_steps_are_interpolated_and_the_last_one_stays() -> None:
    motion = np.array([[[0.0], [1.0], [3.0]], [[0.0], [10.0], [99.0]]])  # the second ends after one step
    lengths = np.array([2, 1])
    np.testing.assert_allclose(panel.poses_at(motion, lengths, 0.0), [[0.0], [0.0]])
    np.testing.assert_allclose(panel.poses_at(motion, lengths, 0.5), [[0.5], [5.0]])
    np.testing.assert_allclose(panel.poses_at(motion, lengths, 1.25), [[1.5], [10.0]])
    np.testing.assert_allclose(panel.poses_at(motion, lengths, 2.0), [[3.0], [10.0]])
