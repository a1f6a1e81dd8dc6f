"""A page in a real browser: what it asks for, what it complains about, what a person gets to see."""

import base64
import contextlib
import importlib.util
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

DESK, PHONE, PAPER = 1280, 390, 717  # pixels of width; paper is A4 within its margins
HEIGHT = 900
TALLEST = 16_000  # pixels of a picture; beyond, the browser paints nothing
NARROW = 600  # below, the browser is told that it is a phone
MOVING = """
return document.getAnimations().some(
    one => one.playState === "running" && one.effect.getComputedTiming().endTime !== Infinity);
"""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
QUIET = (
    "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    # Root, as in a container, is refused a sandbox. The pages are our own.
    "--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


def find_chromium() -> str | None:
    """Find the browser's program."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def say_what_is_missing() -> str:
    """Say why there is no browser, or nothing."""
    lacking = [name for name in ("selenium", "selenium_axe_python") if importlib.util.find_spec(name) is None]
    lacking += [] if find_chromium() else ["chromium"]
    lacking += [] if shutil.which("chromedriver") else ["chromedriver"]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def open_browser(arguments: Sequence[str] = ()) -> Iterator["Chrome"]:
    """Start a browser without a window, with an empty profile and more arguments, that finds no other machine."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = find_chromium() or ""
    for argument in (*QUIET, *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    options.unhandled_prompt_behavior = "dismiss"
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    chrome = webdriver.Chrome(options=options, service=service)
    try:
        chrome.set_page_load_timeout(60)
        chrome.set_script_timeout(120)
        yield chrome
    finally:
        chrome.quit()


def visit(
    chrome: "Chrome",
    page: Path | str,
    *,
    width: int = DESK,
    dark: bool = False,
    scripts: bool = True,
    media: str = "screen",
) -> None:
    """Open a page, a file or an address, on a screen of that width; forget what was noticed before.

    On paper with `media="print"`.
    """
    chrome.get("about:blank")
    for log in ("performance", "browser"):
        chrome.get_log(log)  # reading empties it
    screen = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < NARROW}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    chrome.get(page if isinstance(page, str) else page.resolve().as_uri())


def look_around(chrome: "Chrome", *, unfold: bool = True) -> None:
    """Unfold what is folded and scroll to the end and back until every picture that waits to be seen has come."""
    if unfold:
        chrome.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    for _ in range(20):
        bottom = chrome.execute_script("return document.documentElement.scrollHeight")
        for y in (*range(0, bottom, HEIGHT), 0):
            chrome.execute_script("scrollTo({top: arguments[0], behavior: 'instant'})", y)
            time.sleep(0.02)  # a frame
        if chrome.execute_script("return [...document.images].every(one => one.complete)"):
            break


def notice(chrome: "Chrome", *, host: str = "") -> list[str]:
    """List what the page asked for beyond itself and the host, what the console says, and dialogs, since the visit."""
    own = chrome.current_url.partition("#")[0]
    near = ("data:", f"blob:{host}", host) if host else "data:"
    found = [f"console, {entry['level']}: {entry['message']}" for entry in chrome.get_log("browser")]
    for method, event in _events(chrome):
        if method == "Network.requestWillBeSent":
            address = event["request"]["url"].partition("#")[0]
            found += [] if address == own or address.startswith(near) else [f"asks for {address}"]
        elif method == "Network.webSocketCreated":
            found.append(f"asks for {event['url']}")
        elif method == "Page.javascriptDialogOpening":
            found.append(f"dialog: {event['message']}")
    return found


def read_text(chrome: "Chrome") -> str:
    """Return the text that is shown, in the order of the page."""
    return chrome.execute_script("return document.body.innerText")


def find_violations(chrome: "Chrome") -> list[str]:
    """Run axe-core with all its standing rules, once nothing fades or slides: rule, element, and what is wrong."""
    from selenium_axe_python import Axe

    while chrome.execute_script(MOVING):  # half-transparent text has too little contrast
        time.sleep(0.05)
    axe = Axe(chrome)
    axe.inject()
    violations = axe.run(options={"resultTypes": ["violations"]})["violations"]
    return [
        f"{rule['id']}: {node['target']}: {' '.join(node['failureSummary'].split())} In: {node['html'][:200]}"
        for rule in violations
        for node in rule["nodes"]
    ]


def find_overhang(chrome: "Chrome", *, width: int) -> list[str]:
    """List what cannot be read where it is: beyond the right edge, with nothing to scroll it, or across table cells."""
    script = """
        const width = arguments[0], found = [];
        const wide = document.scrollingElement.scrollWidth;
        if (wide > width) found.push(`the page is ${wide} pixels wide`);
        for (const element of document.body.querySelectorAll("*")) {
            const box = element.getBoundingClientRect();
            if (box.right <= width + 1 || box.width < 2 || box.height < 2) continue;
            let outer = element.parentElement;
            while (outer && !/auto|scroll/.test(getComputedStyle(outer).overflowX)) outer = outer.parentElement;
            if (!outer) found.push(`up to ${Math.round(box.right)}: ${element.outerHTML.slice(0, 120)}`);
        }
        for (const cell of document.querySelectorAll("td, th"))
            if (cell.scrollWidth > cell.clientWidth + 1) found.push(`out of its cell: ${cell.outerHTML.slice(0, 120)}`);
        return found;
    """
    return chrome.execute_script(script, width)


def photograph(chrome: "Chrome") -> bytes:
    """Return a PNG of the whole page, or of its first 16,000 pixels."""
    size = chrome.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], TALLEST), "scale": 1}
    how = {"format": "png", "clip": clip, "captureBeyondViewport": True}
    return base64.b64decode(chrome.execute_cdp_cmd("Page.captureScreenshot", how)["data"])


def _events(chrome: "Chrome") -> Iterator[tuple[str, dict[str, Any]]]:
    messages = (json.loads(entry["message"])["message"] for entry in chrome.get_log("performance"))
    return ((message["method"], message["params"]) for message in messages)
