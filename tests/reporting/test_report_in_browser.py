"""The page in headless Chromium, opened from disk: it draws, it answers, nothing is said in error.

The page's content security policy forbids the network, so that a fetch would show as an error.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.reporting.synthetic import HOSTILE, loop_report, write_report
from vladmap.reporting.data import ReportData

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
ScrollOrigin = pytest.importorskip("selenium.webdriver.common.actions.wheel_input").ScrollOrigin

WAIT_S = 20.0

# Canvases stand in nested shadow roots. A drawn map has thousands of pixels that are not clear.
DRAWN_PIXELS = """
const canvases = [];
const walk = (root) => {
  for (const element of root.querySelectorAll("*")) {
    if (element.tagName === "CANVAS") canvases.push(element);
    if (element.shadowRoot) walk(element.shadowRoot);
  }
};
walk(document.getElementById("map"));
let drawn = 0;
for (const canvas of canvases) {
  if (!canvas.width || !canvas.height) continue;
  const context = canvas.getContext("2d");
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 3; i < data.length; i += 4) drawn += data[i] > 0;
}
return drawn;
"""

# Where on the page a layer's row is drawn, from Bokeh's own scales.
ROW_ON_PAGE = """
const view = Bokeh.index.get_one(Bokeh.documents[0].get_model_by_name("atlas"));
const layer = Bokeh.documents[0].get_model_by_name(arguments[0]);
const { x, y } = layer.data_source.data;
const box = view.el.getBoundingClientRect();
const { frame } = view;
return [box.left + frame.x_scale.compute(x[arguments[1]]),
        box.top + frame.y_scale.compute(y[arguments[1]])];
"""

PIXELS_A_METRE = """
const { frame } = Bokeh.index.get_one(Bokeh.documents[0].get_model_by_name("atlas"));
const { x_scale: x, y_scale: y } = frame;
return [x.compute(1) - x.compute(0), y.compute(0) - y.compute(1)];
"""

TEXT_IN_SHADOWS = """
const words = [];
const walk = (root) => {
  for (const element of root.querySelectorAll("*")) {
    if (element.matches(".bk-Tooltip")) words.push(element.shadowRoot.textContent);
    if (element.shadowRoot) walk(element.shadowRoot);
  }
};
walk(document);
return words.join("\\n");
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not both installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@dataclasses.dataclass(frozen=True)
class Opened:
    browser: Any
    drawn: int
    errors: list[str]
    fetched: list[str]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)


def opened(browser: Any, data: ReportData, folder: pathlib.Path) -> Opened:
    """Write the report, open it, and wait until the map is ready and painted."""
    write_report(data, folder)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get((folder / "index.html").as_uri())
    until = time.monotonic() + WAIT_S
    while browser.execute_script("return document.getElementById('map').dataset.ready") != "true":
        if time.monotonic() > until:
            pytest.fail(f"the map is not ready after {WAIT_S} s: {browser.get_log('browser')}")
        time.sleep(0.05)
    drawn = 0
    while drawn == 0 and time.monotonic() < until:
        time.sleep(0.1)
        drawn = browser.execute_script(DRAWN_PIXELS)
    errors = [
        e["message"] for e in browser.get_log("browser") if e["level"] not in ("INFO", "DEBUG")
    ]
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"].endswith("WillBeSent")]
    # What the browser's own pages ask of the browser comes from no network.
    fetched = [url for url in asked if not url.startswith(("data:", "chrome://"))]
    return Opened(browser, drawn, errors, fetched)


def test_the_page_opens_from_disk_draws_its_map_and_asks_for_nothing_else(
    browser: Any, tmp_path: pathlib.Path
) -> None:
    page = opened(browser, loop_report(), tmp_path)
    assert page.errors == []
    assert page.drawn > 5_000
    assert page.fetched == [(tmp_path / "index.html").as_uri()]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"gps": False}, id="without GPS"),
        pytest.param({"centre": (-16.8, 180.0)}, id="across the antimeridian"),
        pytest.param({"count": 1, "unregistered": 0, "rejected": 0}, id="one image"),
        pytest.param({"count": 40, "unregistered": 40, "rejected": 0}, id="nothing registered"),
    ],
)
def test_odd_atlases_draw_without_an_error(
    browser: Any, tmp_path: pathlib.Path, given: dict[str, Any]
) -> None:
    page = opened(browser, loop_report(**given), tmp_path)
    assert page.errors == []
    assert page.drawn > 0


def test_an_atlas_without_any_position_has_a_page_but_no_map(
    browser: Any, tmp_path: pathlib.Path
) -> None:
    write_report(loop_report(40, gps=False, unregistered=40, rejected=0), tmp_path)
    browser.get_log("browser")
    browser.get((tmp_path / "index.html").as_uri())
    assert "There is no map" in browser.find_element("id", "where").text
    assert browser.get_log("browser") == []


def test_hovering_names_the_image_as_text_never_as_markup(
    browser: Any, tmp_path: pathlib.Path
) -> None:
    page = opened(browser, loop_report(), tmp_path)
    page.run(
        "document.getElementById('map').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    x, y = page.run(ROW_ON_PAGE, "registered", 0)
    action = webdriver.ActionChains(browser)
    action.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    action.perform()
    until = time.monotonic() + WAIT_S
    while not (words := page.run(TEXT_IN_SHADOWS)) and time.monotonic() < until:
        time.sleep(0.05)
    assert HOSTILE in words
    assert "drive-0" in words  # its sequence
    assert page.run("return [...document.querySelectorAll('main script')].length") == 0


def test_the_legend_hides_and_shows_a_layer_from_the_keyboard(
    browser: Any, tmp_path: pathlib.Path
) -> None:
    page = opened(browser, loop_report(), tmp_path)
    visible = "return Bokeh.documents[0].get_model_by_name('pairs').visible"
    box = browser.find_element("css selector", "[data-layer=pairs]")
    assert page.run(visible) is True
    box.send_keys(" ")
    assert page.run(visible) is False
    box.send_keys(" ")
    assert page.run(visible) is True


@pytest.mark.parametrize("images", [1, pytest.param(120, marks=pytest.mark.medium)])
def test_the_wheel_zooms_and_the_map_keeps_its_proportions(
    browser: Any, tmp_path: pathlib.Path, images: int
) -> None:
    page = opened(browser, loop_report(images, unregistered=0, rejected=0), tmp_path)
    before = settled(page, PIXELS_A_METRE)
    assert before[0] == pytest.approx(before[1], rel=1e-3)
    assert before[0] < 100  # a street's worth at least is in view
    element = browser.find_element("id", "map")
    origin = ScrollOrigin.from_element(element)
    webdriver.ActionChains(browser).scroll_from_origin(origin, 0, -300).perform()
    zoomed = settled(page, PIXELS_A_METRE)
    assert zoomed[0] > before[0]
    assert zoomed[0] == pytest.approx(zoomed[1], rel=1e-3)
    browser.set_window_size(700, 1000)
    narrow = settled(page, PIXELS_A_METRE)
    browser.set_window_size(1280, 1000)
    assert narrow[0] == pytest.approx(narrow[1], rel=1e-3)


def settled(page: Opened, script: str) -> Any:
    """What the script says once it says the same for a third of a second."""
    last = None
    until = time.monotonic() + WAIT_S
    while (now := page.run(script)) != last and time.monotonic() < until:
        last = now
        time.sleep(0.35)
    return last
