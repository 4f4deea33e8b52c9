"""Headless Chromium by its driver's own protocol (W3C WebDriver over HTTP)."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What Debian's packages chromium and chromium-driver are called, and others' builds.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
MISSING = CHROMIUM is None or DRIVER is None
REASON = "needs Chromium and its driver (on Debian: apt-get install chromium chromium-driver)"

_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
]  # fmt: skip

# Keys that do something by themselves do it by these.
_CODES: dict[str, dict[str, Any]] = {
    "Enter": {"windowsVirtualKeyCode": 13, "text": "\r"},
    " ": {"windowsVirtualKeyCode": 32, "text": " "},
    "Tab": {"windowsVirtualKeyCode": 9},
}


class Browser:
    """One page at a time; what its console says is in `complaints`."""

    def __init__(self, driver: str, session: str) -> None:
        self._session = f"{driver}/session/{session}"

    def open(self, path: Path) -> None:
        """Load a file, until its `load` event."""
        self.visit(path.resolve().as_uri())

    def visit(self, url: str) -> None:
        """Load a page, until its `load` event."""
        self._post("url", url=url)

    def script(self, body: str, *arguments: Any) -> Any:
        """Run the body of a function in the page; return what it returns."""
        return self._post("execute/sync", script=body, args=list(arguments))

    def emulate(self, *, width: int, height: int, dark: bool = False) -> None:
        """Have a window of this size in CSS pixels, and this preference."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        image = self._devtools("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(b64decode(image["data"]))

    def pdf(self, path: Path) -> None:
        """Save the page as it is printed."""
        document = self._devtools("Page.printToPDF", printBackground=False)
        path.write_bytes(b64decode(document["data"]))

    def press(self, selector: str, *keys: str) -> None:
        """Give an element the focus, and press keys."""
        self.script("document.querySelector(arguments[0]).focus()", selector)
        for key in keys:
            self.key(key)

    def key(self, key: str) -> None:
        """Press a key where the focus is."""
        for kind in ("keyDown", "keyUp"):
            self._devtools("Input.dispatchKeyEvent", type=kind, key=key, **_CODES.get(key, {}))

    def type(self, text: str) -> None:
        """Enter text where the focus is."""
        self._devtools("Input.insertText", text=text)

    @property
    def complaints(self) -> list[str]:
        """What the console said since the last look: errors, warnings, refused loads."""
        return [entry["message"] for entry in self._post("se/log", type="browser")]

    def _devtools(self, command: str, **parameters: Any) -> Any:
        return self._post("goog/cdp/execute", cmd=command, params=parameters)

    def _post(self, command: str, **body: Any) -> Any:
        return call(f"{self._session}/{command}", body)


def call(url: str, body: dict[str, Any] | None, method: str = "POST") -> Any:
    """Return the value that the driver answers with; raises `RuntimeError` with its message."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a browser with a profile of its own, and end it."""
    assert CHROMIUM is not None
    assert DRIVER is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            yield from _session(_address(driver), profile)
        finally:
            driver.terminate()
            driver.communicate(timeout=30)


def _session(driver: str, profile: str) -> Iterator[Browser]:
    options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    answer = call(f"{driver}/session", {"capabilities": {"alwaysMatch": wanted}})
    try:
        yield Browser(driver, answer["sessionId"])
    finally:
        call(f"{driver}/session/{answer['sessionId']}", None, "DELETE")


def _address(driver: subprocess.Popen[str]) -> str:
    """Return where the driver listens, which it says once it does."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if "on port " in line and "successfully" in line:
            return f"http://127.0.0.1:{line.rsplit(maxsplit=1)[-1].strip('.')}"
    raise RuntimeError("the driver did not start")
