"""Chromium without a window, steered by ChromeDriver: both from the PATH.

    with Chromium(folder, cookies=False) as browser:
        browser.get(url)

`browser` is Selenium's WebDriver.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from realservers import PATIENCE, missing

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

T = TypeVar("T")

HOW = "apt-get install chromium chromium-driver; pip install selenium"

#: A sandbox needs another user than root and its own namespaces; the pages are our own. The rest
#: keeps a browser on its first start from asking its maker for this and that.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=720,600",
    "--hide-scrollbars",
]

#: Of the setting "block all cookies", for every site, in and out of frames.
BLOCK = 2
#: Of the setting for cookies of frames of another site.
BLOCK_THIRD_PARTY = 1


class Chromium:
    """One browser with a profile of its own in *folder*, which blocks *cookies* or does not, or
    those of a *third_party*: of frames of another site."""

    def __init__(self, folder: Path, *, cookies: bool, third_party: bool = True) -> None:
        try:
            from selenium.webdriver import Chrome, ChromeOptions, ChromeService
        except ImportError:
            missing("Selenium", HOW)
        program, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if program is None or driver is None:
            missing("Chromium", HOW)
        options = ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        settings: dict[str, int] = {}
        if not cookies:
            settings["profile.default_content_setting_values.cookies"] = BLOCK
        if not third_party:
            settings["profile.cookie_controls_mode"] = BLOCK_THIRD_PARTY
        if settings:
            options.add_experimental_option("prefs", settings)
        # What it writes beside its profile goes into the folder, too.
        places = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
        service = ChromeService(driver, env=places)
        self.driver: Chrome = Chrome(options, service)
        self.driver.set_page_load_timeout(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.driver.quit()

    def wait(self, what: Callable[[Chrome], T], why: str = "") -> T:
        """Return what *what* says of the page, as soon as it says something."""
        from selenium.common.exceptions import (
            NoSuchElementException,
            NoSuchFrameException,
            StaleElementReferenceException,
        )
        from selenium.webdriver.support.wait import WebDriverWait

        # A page that goes away while it is looked at.
        passing = NoSuchElementException, NoSuchFrameException, StaleElementReferenceException
        return WebDriverWait(self.driver, PATIENCE, 0.05, passing).until(what, why)  # type: ignore[arg-type]
