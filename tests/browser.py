"""A headless Chromium for the tests that open what was written; skipped, visibly, where there is none."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.remote.webelement import WebElement

TIMEOUT_S = 60
PHONE, DESKTOP = (390, 844), (1280, 900)


class Page:
    """A report that is open in a browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, report: Path, *, size: tuple[int, int] = DESKTOP, dark: bool = False, at: str = "") -> None:
        """Open a report and wait until its charts are drawn."""
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        # Without smooth scrolling, so that a click does not meet a page that moves.
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(report.as_uri() + at)
        self.until(lambda: self.run("return document.documentElement.dataset.drawn"))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element("css selector", selector)

    def hover(self, element: WebElement) -> None:
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        ActionChains(self.driver).move_to_element(element).perform()

    def click(self, element: WebElement) -> None:
        self.hover(element)
        ActionChains(self.driver).click().perform()

    def until(self, what: Callable[[], Any]) -> Any:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not (found := what()):
            assert time.monotonic() < deadline_s, "the page did not get there"
            time.sleep(0.05)
        return found

    def console(self) -> list[str]:
        """Errors and warnings since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """What was asked for since then, data: addresses aside."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:")]

    def shown_cases(self) -> list[str]:
        return [row.get_attribute("data-case") or "" for row in self.all("#cases > tbody > tr[data-case]") if row.is_displayed()]


@contextmanager
def page() -> Iterator[Page]:
    """A browser that is ended with the block."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = Options()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Page(opened)
    finally:
        opened.quit()
