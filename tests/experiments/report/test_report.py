"""The report in a browser without a network, used as a person would."""

import functools
import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maml_rl.checkpoint import write_json
from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.errors import InputError
from maml_rl.experiments.media.filming import film_held_out
from maml_rl.experiments.media.rendering import Drawing
from maml_rl.experiments.report.reporting import Outputs, visualize
from maml_rl.experiments.runs.evaluations import EVALUATION, Evaluation
from maml_rl.experiments.runs.training import train
from maml_rl.machine import Machine
from maml_rl.run import load_run
from maml_rl.supervised.settings import (
    NetworkConfig,
    SupervisedConfig,
    SupervisedEvaluation,
    SupervisedMeta,
    TasksConfig,
)

webdriver = pytest.importorskip("selenium.webdriver")
TRAINED = Path(__file__).parents[3] / "trained"
ONE_THREAD = Machine(threads=1, processes=1, start_method="fork")
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars
""".split()  # noqa: SIM905 (a list would take a line for each)
# Every pair of overlapping parts of the page of which neither contains the other, as the beginnings of their HTML.
OVERLAPS = """
    const parts = [...document.querySelectorAll(
        "h1, h2, p, li, figcaption, svg.chart, canvas, button, input, select, table, summary, legend, output, b, " +
        "small, .controls span, .tasks span, svg.chart text")]
        .filter((e) => e.type !== "radio" && e.checkVisibility())
        .map((e) => [e, e.getBoundingClientRect()]).filter(([, r]) => r.width && r.height);
    const found = [];
    parts.forEach(([a, p], i) => parts.slice(i + 1).forEach(([b, q]) => {
        if (a.contains(b) || b.contains(a)) return;
        const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
        const tall = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
        if (wide > 1 && tall > 1) found.push([a.outerHTML.slice(0, 80), b.outerHTML.slice(0, 80)]);
    }));
    return found;
"""

# Counts the images that scripts of a page have requested and that have not loaded yet.
COUNT_IMAGES = """
    const Original = window.Image;
    window.imagesToCome = 0;
    window.Image = function () {
        const image = new Original();
        window.imagesToCome += 1;
        for (const end of ["load", "error"]) image.addEventListener(end, () => { window.imagesToCome -= 1; });
        return image;
    };
"""
# Two frames after the last image: what was asked for is drawn in the first.
SETTLED = """
    const frame = () => new Promise(requestAnimationFrame);
    const waits = () => window.imagesToCome > 0 || [...document.images].some((image) => !image.complete);
    return document.fonts.ready.then(async () => {
        do await frame(); while (waits());
        await frame();
    });
"""


class Browser:
    """Chromium with one page open."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for option in [*OPTIONS, f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND"]:
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COUNT_IMAGES})

    def open(self, page: Path, width: int = 1400, dark: bool = False) -> None:
        """Opens a page in a window of this width."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(page.as_uri())
        self.settle()

    def settle(self) -> None:
        """Waits until the pictures have loaded and the page is drawn."""
        self.run(SETTLED)

    def run(self, script: str, *arguments: object) -> Any:
        """Runs JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        """The first element of a selector."""
        return self.driver.find_element("css selector", selector)

    def shot(self, selector: str) -> bytes:
        """Picture of an element."""
        return self.find(selector).screenshot_as_png

    def move(self, slider: str, value: int) -> None:
        """Moves a slider as a person's hand would."""
        self.run(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            self.find(slider),
            value,
        )
        self.settle()

    def press(self, key: str, selector: str = "body") -> None:
        """Presses a key."""
        self.find(selector).send_keys(key)
        self.settle()

    def errors(self) -> list[str]:
        """Messages of the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were requested since the page was opened, except data within the page."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("needs Chromium: apt install chromium chromium-driver")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@functools.cache
def opengl() -> bool:
    try:
        run = load_run(TRAINED / "half-cheetah-dir")
        settings = RLEvaluation(tasks=2, gradient_steps=0, episodes=1)
        Drawing(film_held_out(run, settings, 1, ONE_THREAD), 16, 16).close()
    except InputError:
        return False
    return True


def page_of(made: Evaluation, name: str, directory: Path, **settings: Any) -> Path:
    """The report of a copy of a trained run, with a made-up evaluation."""
    copy = directory / name
    shutil.copytree(TRAINED / name, copy)
    run = load_run(copy)
    reached = {"iteration": run.state.iteration, "training_seed": run.config.seed, "env_steps": run.progress.env_steps}
    write_json(copy / EVALUATION, made._replace(**reached).to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)  # where there are no comparisons
        visualize(copy, Outputs(copy / "report.html"), machine=ONE_THREAD, **settings)
    return copy / "report.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def robot(pages, evaluation_of) -> Path:
    """The report of the half-cheetah."""
    return page_of(evaluation_of("half-cheetah-dir", [0, 1], 3), "half-cheetah-dir", pages, gradient_steps=2)


@pytest.fixture(scope="module")
def navigation(pages, evaluation_of) -> Path:
    """The report of navigation."""
    goals = [[0.1, 0.2], [-0.3, 0.4], [0.2, -0.1], [0.0, 0.3]]
    return page_of(evaluation_of("navigation", goals, 3), "navigation", pages)


@pytest.fixture(params=["robot", "navigation"])
def page(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def sinusoid(pages, evaluation_of) -> Path:
    """The report of the sinusoid."""
    return page_of(evaluation_of("sinusoid", steps=10), "sinusoid", pages)


@pytest.fixture(scope="module")
def classes(pages) -> Path:
    """The report of a small run on twelve classes of images, each in its own shade."""
    for c, i in itertools.product(range(12), range(6)):
        path = pages / "images" / f"class{c}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 15 * c + i).save(path)
    tasks = TasksConfig("images", ways=2, shots=1, queries=2, colours="grey", image_size=16)
    config = SupervisedConfig(
        tasks=tasks,
        data=str(pages / "images"),
        iterations=5,
        log_every=1,
        meta=SupervisedMeta(meta_batch_size=2, inner_lr=0.4),
        network=NetworkConfig("strided-conv", filters=4),
        evaluation=SupervisedEvaluation(tasks=6, gradient_steps=3),
    )
    train(config, pages / "classes", ONE_THREAD)
    visualize(pages / "classes", Outputs(pages / "classes" / "report.html"), tasks=2, machine=ONE_THREAD)
    return pages / "classes" / "report.html"


@pytest.fixture(scope="module")
def cart(pages) -> Path:
    """The report of a small run whose tasks have names, and are of several kinds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "environments")
        config = RLConfig(
            env_id="dict_environments:CartForTests-v0",
            iterations=1,
            meta=RLMeta(meta_batch_size=2, episodes=3),
            network=PolicyConfig(hidden_sizes=(8,)),
            evaluation=RLEvaluation(tasks=12, gradient_steps=2, episodes=3),
        )
        train(config, pages / "cart", ONE_THREAD)
        visualize(pages / "cart", Outputs(pages / "cart" / "report.html"), machine=ONE_THREAD)
    return pages / "cart" / "report.html"


@pytest.fixture(params=["robot", "navigation", "cart", "sinusoid", "classes"])
def any_page(request) -> Path:
    return request.getfixturevalue(request.param)


def test_a_page_is_self_contained_and_has_no_errors(browser, any_page):
    page = any_page
    browser.open(page)
    assert browser.errors() == []
    assert browser.requests() == [page.as_uri()]
    assert page.stat().st_size < 5e6
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import""", page.read_text())


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_overlaps_or_sticks_out_on_a_phone_and_on_a_wide_screen(browser, any_page, width, dark):
    browser.open(any_page, width, dark)
    browser.run("document.querySelector('details').open = true")
    assert browser.run("return document.documentElement.scrollWidth") == width
    assert browser.run(OVERLAPS) == []
    colour = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", colour))) < 64) == dark


def test_the_slider_of_the_gradient_steps_changes_the_picture(browser, page):
    browser.open(page)
    browser.move("#time", 60)
    before, shown = browser.shot("#panel-before"), []
    for step, name in enumerate(("Before adaptation", "After 1 gradient step", "After 2 gradient steps")):
        browser.move("#step", step)
        shown.append(browser.shot("#panel-after"))
        assert browser.find("#caption-after").text == name
        assert browser.find("#step").get_attribute("aria-valuetext") == name[0].lower() + name[1:]
    assert len(set(shown)) == 3
    assert browser.shot("#panel-before") == before


def test_play_moves_the_pictures_and_the_cursor_until_it_is_paused(browser, page):
    browser.open(page)
    first = {name: browser.shot(name) for name in ("#panel-after", "#rewards")}
    browser.find("#play").click()
    time.sleep(0.6)
    assert browser.find("#play").get_attribute("aria-label") == "Pause"
    browser.find("#play").click()
    assert browser.find("#play").get_attribute("aria-label") == "Play"
    second = {name: browser.shot(name) for name in first}
    assert all(first[name] != second[name] for name in first)
    time.sleep(0.4)
    assert {name: browser.shot(name) for name in first} == second
    assert int(browser.find("#time").get_attribute("value")) > 0


def test_it_plays_to_the_end_and_begins_again(browser, navigation):
    browser.open(navigation)
    browser.run("document.querySelector('#speed').value = '2'")
    browser.move("#time", 90)
    browser.find("#play").click()
    values = []
    for _ in range(30):
        values.append(int(browser.find("#time").get_attribute("value")))
        if 100 in values and values[-1] < 90:
            break
        time.sleep(0.1)
    browser.find("#play").click()
    assert max(values) == 100
    assert min(values[values.index(100) :]) < 90


def test_the_keyboard_plays_moves_through_time_and_chooses_gradient_steps(browser, page):
    browser.open(page)
    browser.press(" ")
    assert browser.find("#play").get_attribute("aria-pressed") == "true"
    browser.press(" ")
    assert browser.find("#play").get_attribute("aria-pressed") == "false"
    browser.move("#time", 40)
    there = browser.shot("#panel-before")
    browser.press("\ue014")  # right
    later = int(browser.find("#time").get_attribute("value"))
    assert 40 < later <= 44
    assert browser.shot("#panel-before") != there
    browser.press("\ue012")  # left
    assert int(browser.find("#time").get_attribute("value")) == 40
    browser.press("2")
    assert browser.find("#step").get_attribute("value") == "2"
    browser.press("\ue015", "#player")  # down
    assert browser.find("#step").get_attribute("value") == "1"
    browser.press(" ", "#step")  # space plays while a slider has the focus, too
    assert browser.find("#play").get_attribute("aria-pressed") == "true"


def test_a_task_is_chosen_and_its_rewards_are_scrubbed(browser, page):
    browser.open(page)
    browser.move("#time", 50)
    names = [label.text for label in browser.driver.find_elements("css selector", ".tasks label")]
    shown = []
    for i, name in enumerate(names):
        browser.driver.find_elements("css selector", ".tasks label")[i].click()
        browser.settle()
        assert browser.find("#panel-after").get_attribute("aria-label") == f"{name}, after 1 gradient step"
        shown.append((browser.shot("#panel-after"), browser.shot("#rewards"), browser.find("#return-after").text))
    for pictures in zip(*shown, strict=True):
        assert len(set(pictures)) == len(names) >= 2

    chart = browser.find("#rewards")
    webdriver.ActionChains(browser.driver).move_to_element_with_offset(chart, 0, 0).click().perform()
    horizon = int(browser.find("#time").get_attribute("max"))
    assert int(browser.find("#time").get_attribute("value")) == pytest.approx(horizon / 2, abs=0.06 * horizon)


def test_a_robot_is_seen_in_both_panels(browser, robot):
    if not opengl():
        pytest.skip("needs OpenGL: apt install libegl1 libgl1-mesa-dri libopengl0")
    browser.open(robot)
    browser.move("#time", 100)
    # The share of pixels that are brown or pink, as the robot is and nothing else.
    share = """
        const canvas = document.querySelector(arguments[0]);
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let count = 0;
        for (let i = 0; i < pixels.length; i += 4) count += pixels[i] - pixels[i + 2] > 25;
        return count / (pixels.length / 4);
    """
    for panel in ("#panel-before", "#panel-after"):
        assert 0.01 < browser.run(share, panel) < 0.2


def test_the_distance_that_the_robot_has_run_is_shown(browser, robot):
    """The tasks are to run backward and forward; one gradient step on 20 episodes is enough for either."""
    browser.open(robot)
    for task, sign in ((0, "\N{MINUS SIGN}"), (1, "")):
        browser.driver.find_elements("css selector", ".tasks label")[task].click()
        browser.move("#time", 0)
        assert browser.find("#travelled-after").text.lstrip("\N{MINUS SIGN}") == "0.00 m"
        browser.move("#time", 200)
        assert re.fullmatch(sign + r"[1-9]\.\d\d m", browser.find("#travelled-after").text)


def test_plots_replace_pictures_where_there_is_no_opengl(browser, robot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maml_rl.experiments.report.player.Drawing", refuse)
    page = tmp_path / "report.html"
    assert visualize(robot.parent, Outputs(page), machine=ONE_THREAD) == "rendering needs OpenGL: apt install it"
    browser.open(page, 390)
    assert browser.errors() == []
    assert browser.run(OVERLAPS) == []
    assert "rendering needs OpenGL: apt install it" in browser.find(".note").text
    first = browser.shot("#panel-after")
    browser.move("#time", 150)
    assert browser.shot("#panel-after") != first
    assert len(browser.driver.find_elements("css selector", "svg.chart")) == 4


def refuse(*_: object) -> None:
    raise InputError("rendering needs OpenGL: apt install it")


# Supervised runs


def test_the_slider_and_the_keyboard_choose_the_fit_of_a_gradient_step(browser, sinusoid):
    browser.open(sinusoid)
    seen = """
        const parts = [...document.querySelectorAll("[data-step]")];
        return parts.filter((part) => getComputedStyle(part).display !== "none").length;
    """
    assert browser.run(seen) == 4  # tasks, each with the fit of one step
    assert browser.find("#steps-value").text == "after 1 gradient step"
    shots = [browser.shot("svg.chart")]
    browser.move("#steps", 0)
    assert browser.find("#steps-value").text == "before adaptation"
    shots.append(browser.shot("svg.chart"))
    browser.press("9")
    assert browser.find("#steps-value").text == "after 9 gradient steps"
    browser.press("\ue014")  # right
    assert browser.find("#steps").get_attribute("value") == "10"
    shots.append(browser.shot("svg.chart"))
    assert len(set(shots)) == 3
    assert browser.run(seen) == 4


def test_a_report_shows_the_errors_of_the_evaluation_and_the_papers(sinusoid):
    said = sinusoid.read_text()
    curves = {curve["condition"]: curve for curve in json.loads((sinusoid.parent / EVALUATION).read_text())["curves"]}
    for error in (*curves["10-shot"]["mean"], *curves["5-shot"]["mean"]):
        assert f"{error:.3f}" in said
    assert "5-shot, paper" in said
    assert "maml-rl train sinusoid</code>" in said


def test_query_images_are_marked_right_or_wrong_by_gradient_step(browser, classes):
    browser.open(classes)
    assert browser.run("return document.querySelectorAll('.examples img').length") == 2 * (2 + 4)
    assert browser.run("return [...document.images].every((image) => image.naturalWidth === 16)")
    for step in range(4):
        browser.move("#steps", step)
        shown = [e for e in browser.driver.find_elements("css selector", "[data-step]") if e.is_displayed()]
        assert len(shown) == 2 * 4
        for element in shown:
            assert re.fullmatch(r"[✓✗] [AB] \d+ %", element.text)
            assert element.text.startswith("✓") == (element.get_attribute("class") == "right")
