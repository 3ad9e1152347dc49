"""A headless Chromium, and what went wrong in it.

Selenium, because it drives the Chromium and the driver that a distribution ships; Playwright wants to download its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

# WebGL on the processor: the machine that tests has no GPU.
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests often run as root in a container
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
)


def start_chromium(width: int = 1100, height: int = 700, flags: tuple[str, ...] = FLAGS) -> Any:
    """A WebDriver whose page is `width` x `height` pixels; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the Python package selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its driver on this machine (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in flags:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_script_timeout(60)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    set_scheme(browser, "light")
    return browser


def set_scheme(browser: Any, scheme: str) -> None:
    """What the user's system prefers: light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def requests(browser: Any) -> list[str]:
    """Addresses asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def complaints(browser: Any) -> list[str]:
    """Errors and warnings on the console since the last call; what the software renderer says of its speed is none."""
    return [entry["message"] for entry in browser.get_log("browser") if "GPU stall" not in entry["message"]]


def wait(browser: Any, condition: Callable[[Any], Any], seconds: float = 60) -> Any:
    """Wait until `condition(browser)` is true; a page that redraws under the condition is looked at again."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    waiting = WebDriverWait(browser, seconds, poll_frequency=0.1, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(condition)
