"""The replay page in a real Chromium: it draws, plays, obeys mouse and keys, and asks the network for nothing."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from flowmbpo.reports.replay import write_replay_html
from tests.browser import FLAGS, complaints, requests, set_scheme, start_chromium, wait
from tests.reports.walking import DT, ball, walk

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "replay.html"
    write_replay_html(walk(240), path)
    return path


@pytest.fixture(scope="module")
def browser():
    chromium = start_chromium()
    yield chromium
    chromium.quit()


@pytest.fixture
def opened(browser, page):
    """The page, freshly loaded, paused at the beginning."""
    browser.switch_to.default_content()
    set_scheme(browser, "light")
    requests(browser), complaints(browser)
    browser.get(page.as_uri())
    browser.execute_script("replay.pause(); replay.seek(0)")
    return browser


def state(browser):
    return browser.execute_script("return replay.state")


def picture(browser, element="view"):
    """What the canvas shows, (H, W, 3), after the next two frames."""
    browser.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))")
    shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    box = browser.execute_script(
        f"const r = document.getElementById('{element}').getBoundingClientRect();"
        "return [r.left, r.top, r.right, r.bottom]"
    )
    return np.asarray(shot.crop(tuple(int(side) for side in box)), dtype=float)


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def text(browser, identifier):
    return browser.execute_script(f"return document.getElementById('{identifier}').textContent")


def test_it_plays_by_itself_and_asks_for_nothing(browser, page):
    requests(browser), complaints(browser)
    browser.get(page.as_uri())
    assert state(browser)["webgl"]
    assert state(browser)["duration"] == pytest.approx(239 * DT, abs=1e-6)
    wait(browser, lambda b: state(b)["seconds"] > 0.3)
    assert state(browser)["playing"]
    assert requests(browser) == [page.as_uri()]
    assert complaints(browser) == []


def test_the_body_is_drawn_and_moves(opened):
    first = picture(opened)
    assert first.std() > 10, "the 3D view is blank"
    orange = (first[..., 0] > 1.5 * first[..., 2]) & (first[..., 0] > 60)
    assert orange.mean() > 1e-3, "the second leg is nowhere to be seen"
    opened.execute_script("replay.seek(1.13)")
    assert np.abs(picture(opened) - first).mean() > 1


def test_pause_holds_time_and_picture(opened):
    opened.execute_script("replay.play()")
    wait(opened, lambda b: state(b)["seconds"] > 0.1)
    press(opened, " ")
    held = state(opened)
    before = picture(opened)
    assert not held["playing"]
    assert np.array_equal(picture(opened), before)
    assert state(opened)["seconds"] == held["seconds"]
    press(opened, " ")
    wait(opened, lambda b: state(b)["seconds"] > held["seconds"])


def test_scrubbing_shows_the_figures_of_that_moment(opened):
    opened.execute_script(
        "const s = document.getElementById('scrub'); s.value = 100; s.dispatchEvent(new Event('input'))"
    )
    assert state(opened)["seconds"] == pytest.approx(100 * DT)
    assert text(opened, "return") == "404"  # 101 rewards of 4
    assert text(opened, "speed") == "3.00"
    assert text(opened, "distance") == "5.0"  # 100 steps of 3/60 m
    assert text(opened, "reward") == "4.00"


def test_the_timeline_is_drawn_and_can_be_clicked(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    assert picture(opened, "timeline").std() > 5
    timeline = opened.find_element("id", "timeline")
    ActionChains(opened).move_to_element(timeline).click().perform()
    assert state(opened)["seconds"] == pytest.approx(state(opened)["duration"] / 2, rel=0.05)
    assert "R 960" in timeline.get_attribute("aria-label")


def test_keys(opened):
    from selenium.webdriver.common.keys import Keys

    press(opened, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert state(opened)["seconds"] == pytest.approx(DT)
    press(opened, Keys.END)
    assert state(opened)["seconds"] == pytest.approx(239 * DT)
    press(opened, Keys.HOME)
    assert state(opened)["seconds"] == 0
    press(opened, Keys.ARROW_UP)
    assert state(opened)["rate"] == 2
    press(opened, "l")
    assert not state(opened)["looping"]


def test_without_looping_it_stops_at_the_end(opened):
    press(opened, "l")
    opened.execute_script("replay.seek(3.9); replay.play()")
    wait(opened, lambda b: not state(b)["playing"])
    assert state(opened)["seconds"] == pytest.approx(239 * DT)


def test_the_camera_follows_unless_told_not_to(opened):
    start = opened.execute_script("return replay.camera")
    opened.execute_script("replay.seek(2)")
    followed = opened.execute_script("return replay.camera")
    assert followed[0] - start[0] == pytest.approx(6.0, abs=0.3)  # 2 s at 3 m/s
    press(opened, "f")
    opened.execute_script("replay.seek(0.5)")
    assert opened.execute_script("return replay.camera") == pytest.approx(followed)


def test_dragging_turns_the_view(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    before = opened.execute_script("return replay.camera")
    view = opened.find_element("id", "view")
    ActionChains(opened).move_to_element(view).click_and_hold().move_by_offset(150, 0).release().perform()
    wait(opened, lambda b: np.abs(np.subtract(b.execute_script("return replay.camera"), before)).max() > 0.5)


def test_dark_and_light(opened):
    light = picture(opened).mean()
    set_scheme(opened, "dark")
    dark = picture(opened).mean()
    assert dark < 0.5 * light
    opened.find_element("id", "theme").click()
    assert picture(opened).mean() == pytest.approx(light, rel=0.05)


@pytest.mark.parametrize("size", [(390, 780), (844, 390)])
def test_on_a_phone_nothing_is_cut_off(opened, size):
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        wide = opened.execute_script(
            "return [...document.querySelectorAll('button, select, input, dd, h1, #timeline')].filter((e) => {"
            "const r = e.getBoundingClientRect();"
            "return r.left < 0 || r.right > innerWidth + 0.5 || r.bottom > innerHeight + 0.5 || r.width === 0;"
            "}).map((e) => e.id || e.tagName)"
        )
        assert wide == []
    finally:
        opened.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1100, "height": 700, "deviceScaleFactor": 1, "mobile": False},
        )


def test_every_control_has_a_name(opened):
    opened.execute_cdp_cmd("Accessibility.enable", {})
    nodes = opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = [n for n in nodes if n.get("role", {}).get("value") in ("button", "slider", "combobox", "image")]
    assert len(controls) >= 8
    assert [n for n in controls if not n.get("name", {}).get("value")] == []


def test_in_a_sandboxed_frame_as_in_the_tracking_interface(browser, page, tmp_path):
    """MLflow shows HTML artifacts from a blob in a frame that may run scripts and nothing else."""
    content = json.dumps(page.read_text()).replace("<", "\\u003c")
    host = tmp_path / "host.html"
    host.write_text(
        "<iframe id=f sandbox=allow-scripts width=900 height=600></iframe><script>"
        f"f.src = URL.createObjectURL(new Blob([{content}], {{type: 'text/html'}}))</script>"
    )
    requests(browser), complaints(browser)
    browser.get(host.as_uri())
    browser.switch_to.frame("f")
    wait(browser, lambda b: b.execute_script("return window.replay && replay.state.seconds > 0.1"))
    assert state(browser)["webgl"]
    browser.switch_to.default_content()
    assert {address.partition(":")[0] for address in requests(browser)} <= {"file", "blob"}
    assert complaints(browser) == []


def test_a_body_without_feet_or_speed(browser, tmp_path):
    path = tmp_path / "ball.html"
    write_replay_html(ball(), path)
    complaints(browser)
    browser.get(path.as_uri())
    browser.execute_script("replay.pause(); replay.seek(1)")
    assert text(browser, "speed") == "–"
    assert picture(browser).std() > 5
    assert complaints(browser) == []


def test_an_episode_of_one_step(browser, tmp_path):
    path = tmp_path / "short.html"
    write_replay_html(walk(1), path)
    complaints(browser)
    browser.get(path.as_uri())
    assert state(browser) == {
        "seconds": 0, "duration": 0, "playing": False, "rate": 1, "looping": True, "webgl": True,
    }  # fmt: skip
    assert text(browser, "return") == "4"
    assert complaints(browser) == []


def test_without_webgl_it_says_so_and_the_curves_work(page):
    flags = ("--disable-3d-apis", *(flag for flag in FLAGS if "angle" not in flag and "swiftshader" not in flag))
    browser = start_chromium(flags=flags)
    try:
        browser.get(page.as_uri())
        assert not state(browser)["webgl"]
        assert browser.find_element("id", "no-webgl").is_displayed()
        assert "WebGL" in text(browser, "no-webgl")
        browser.execute_script("replay.pause(); replay.seek(1.65)")
        assert text(browser, "return") == "400"
        assert picture(browser, "timeline").std() > 5
    finally:
        browser.quit()
