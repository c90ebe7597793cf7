"""A headless Chromium for the tests of the page, and a command that takes pictures of it.

`python -m tests.browser.browser PAGE FOLDER` prints how long the page takes to open and writes
screenshots: desktop light and dark, phone, and the printed page as a PDF.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import statistics
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service


def start_browser() -> Chrome:
    """Debian's Chromium (packages chromium and chromium-driver); a missing one fails the test."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.fail(
            "the page is tested in a real browser, and there is none: install chromium and "
            "chromedriver (on Debian: apt-get install chromium chromium-driver)"
        )
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--window-size=1200,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=Service(driver))


def requested_addresses(browser: Chrome) -> list[str]:
    """Every address the browser asked for since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def open_ms(browser: Chrome) -> float:
    """From the start of the navigation to the end of the load event, script included."""
    return browser.execute_script(
        "const [entry] = performance.getEntriesByType('navigation'); return entry.loadEventEnd"
    )


def set_screen(browser: Chrome, width: int, height: int, scheme: str = "light") -> None:
    """Pretend to have a screen of this size in CSS pixels, and a light or dark preference."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def take_pictures(browser: Chrome, page: Path, folder: Path) -> None:
    for name, width, scheme in (
        ("desktop", 1200, "light"),
        ("dark", 1200, "dark"),
        ("phone", 390, "light"),
    ):
        set_screen(browser, width, 900, scheme)
        browser.get(page.as_uri())
        height = browser.execute_script("return document.documentElement.scrollHeight")
        set_screen(browser, width, height, scheme)
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        (folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    (folder / "print.pdf").write_bytes(base64.b64decode(pdf["data"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Print how long a page takes to open, and take pictures of it."
    )
    parser.add_argument("page", type=Path, help="an HTML file")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    asked = parser.parse_args()
    target, pictures = asked.page.resolve(), asked.folder
    if not target.is_file():
        parser.error(f"cannot open page {asked.page}: there is no such file")
    pictures.mkdir(parents=True, exist_ok=True)
    chrome = start_browser()
    try:
        times = []
        for _ in range(5):
            chrome.get(target.as_uri())
            times.append(open_ms(chrome))
        print(f"{target.stat().st_size / 1e6:.2f} MB, opens in {statistics.median(times):.0f} ms")
        print("each:", " ".join(f"{ms:.0f}" for ms in times))
        take_pictures(chrome, target, pictures)
    finally:
        chrome.quit()
