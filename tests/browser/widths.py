"""No page of the admin is wider than its window, on a phone and on the usual desktops, and no cell fills a screen."""

from __future__ import annotations

from collections.abc import Iterable

from playwright.sync_api import Page

from tests.browser.conftest import KEEPS_SCREENSHOTS, photograph

WIDTHS = (360, 390, 768, 1280, 1920)  # CSS pixels
OUTERMOST = (WIDTHS[0], WIDTHS[-1])
# What slides when the window narrows is given two seconds.
_LOOK = """async () => {
  const named = (one) => `${one.tagName.toLowerCase()}${one.id ? "#" + one.id : ""}.${one.className}`.slice(0, 80);
  const look = () => {
    const room = document.documentElement.clientWidth, all = document.documentElement.scrollWidth;
    const wide = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > room + 1);
    const tall = [...document.querySelectorAll("td")].filter((one) => one.getBoundingClientRect().height > 320);
    return [
      ...(all > room ? [`${all} of ${room}: ${wide.slice(-4).map(named).join(" | ")}`] : []),
      ...tall.map((one) => `a cell too tall, ${Math.round(one.getBoundingClientRect().height)} px: ${named(one)}`),
    ];
  };
  for (let turn = 0; turn < 40 && look().length; turn++) await new Promise((done) => setTimeout(done, 50));
  return look();
}"""


def look(page: Page, path: str, widths: Iterable[int] = WIDTHS) -> list[str]:
    """Return what is too wide or too tall on the open page, at each of these widths; the page keeps its first width."""
    before = page.viewport_size
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{path} at {width}: {one}" for one in page.evaluate(_LOOK)]
        if KEEPS_SCREENSHOTS:
            photograph(page, f"width-{width}{path.split('?')[0].replace('/', '-').rstrip('-')}")
    if before:
        page.set_viewport_size(before)
    return found
