"""Make the pictures of README anew, from a demo: ``make pictures``. Others go to the folder of screenshots."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

from tests.browser.conftest import CHROMIUM_FLAGS, HEADLESS, SCREENSHOTS
from tests.browser.running_demo import running_demo
from tests.support.source import ROOT

_LANDING = ViewportSize(width=1180, height=760)  # as README shows it
_STAFF = ViewportSize(width=1280, height=800)
_SECONDS = 180  # a busy machine is no reason to have no pictures


def main() -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_demo(Path(folder) / "demo", seconds=_SECONDS) as demo,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=HEADLESS, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport=_LANDING)
        page.goto(demo.link)
        page.screenshot(path=ROOT / "docs" / "landing.png")
        page.set_viewport_size(_STAFF)
        page.goto(demo.sandbox)
        page.screenshot(path=SCREENSHOTS / "readme-sandbox.png")
        page.goto(demo.staff)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", demo.password)
        page.click("button[type=submit], input[type=submit]")
        page.wait_for_load_state()
        page.screenshot(path=SCREENSHOTS / "readme-overview.png", full_page=True)
        for name, path in (("partners", "tenants/partnertenant/"), ("hub", "tenants/partnertenant/1/change/")):
            page.goto(demo.staff + path)
            page.screenshot(path=SCREENSHOTS / f"readme-{name}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
