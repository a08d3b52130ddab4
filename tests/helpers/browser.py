"""A headless Chromium that keeps everything it loads and says, for tests of the page."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WAIT_S = 60.0
# WebGL is drawn in software, so that it works on any machine; nothing of Chromium's own goes to the network.
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--window-size=1280,800"
)
_DRIVER_NOTE = "GL Driver Message"  # what drawing in software costs, told by the driver


class Browser:
    """One tab."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def emulate(self, width: int, height: int, scheme: str) -> None:
        """Take the size and the colour scheme of some device."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def one(self, selector: str) -> WebElement:
        """Return the element that ``selector`` names."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that ``selector`` names."""
        return self.driver.find_elements("css selector", selector)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until ``condition`` holds; return what it gave."""
        return WebDriverWait(self.driver, WAIT_S, poll_frequency=0.05).until(lambda _: condition(), what)

    def heading(self, text: str) -> None:
        """Wait until the node's heading is ``text`` and all of it has come."""
        self.until(
            lambda: self.one("#node").get_attribute("aria-busy") == "false" and self.one("#node-title").text == text,
            f"the heading '{text}'",
        )

    def _log(self, kind: str) -> list[Any]:
        # Selenium's own get_log carries no types.
        entries: list[Any] = self.driver.execute("getLog", {"type": kind})["value"]
        return entries

    def complaints(self) -> list[str]:
        """Return what the console holds since it was asked last, the driver's own notes left out."""
        return [entry["message"] for entry in self._log("browser") if _DRIVER_NOTE not in entry["message"]]

    def asked_hosts(self) -> set[str]:
        """Return every host that a request went to since it was asked last."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        addresses = (urlsplit(request["request"]["url"]) for request in sent)
        return {address.netloc for address in addresses if address.scheme not in ("data", "blob")}


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Yield a browser with an empty profile; the test is skipped where there is none."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(opened)
    finally:
        opened.quit()
