"""Run axe on an open page, under the page's own policy, in both colour schemes, on a phone and on a desktop.

The script enters through the devtools protocol, which no Content-Security-Policy stops: the policy under which the page
is judged is the one it is served with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from playwright.sync_api import Page

WIDTHS = (1280, 390)  # CSS pixels
type Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
# Colours do not depend on the width, nor places on the colours: each is looked at once, which halves the time.
VIEWS = tuple(zip(WIDTHS, SCHEMES, strict=True))
_WIDE = """async () => {
  const wider = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
  for (let turn = 0; turn < 40 && wider() > 0; turn++) await new Promise((done) => setTimeout(done, 50));
  return wider(); // what slides out of view when the window narrows was given two seconds
}"""
# Everything on a page that a rule of axe can depend on: elements, attributes, and whether there are words, not which.
_SHAPE = """() => [...document.querySelectorAll("*")].map((one) => {
  const freely = ["href", "action", "value", "content", "datetime", "nonce", "data-copy"];
  const attributes = [...one.attributes].map(({name, value}) => freely.includes(name) ? name : `${name}=${value}`);
  const words = [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  let depth = 0;
  for (let above = one.parentElement; above; above = above.parentElement) depth++;
  return `${depth} ${one.tagName} ${attributes.sort().join(" ")} ${words}`;
}).join(" | ")"""
_RUN = (
    """async (colours) => {
  const wide = await ("""
    + _WIDE
    + """)();
  const answer = await axe.run(document, {
    resultTypes: ["violations"], rules: {"color-contrast": {enabled: colours}},
  });
  const grounds = [document.body, document.documentElement].map((one) => getComputedStyle(one).backgroundColor);
  const canvas = document.createElement("canvas").getContext("2d"); // turns every notation into red, green and blue
  canvas.fillStyle = grounds.find((colour) => !/, 0\\)$/.test(colour)) ?? "white";
  canvas.fillRect(0, 0, 1, 1);
  const [red, green, blue] = canvas.getImageData(0, 0, 1, 1).data;
  return {
    wide,
    dark: red + green + blue < 384,
    rules: answer.passes.length + answer.violations.length,
    found: answer.violations.flatMap((rule) => rule.nodes.map((node) => ({
      rule: rule.id, where: node.target.flat(Infinity).join(" "), what: node.failureSummary,
    }))),
  };
}"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A place on a page of which axe says that it keeps people out."""

    page: str
    view: str
    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.page} ({self.view}): {self.rule} at {self.where}: {' '.join(self.what.split())}"


@cache
def _script() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def show(page: Page, scheme: Scheme, width: int) -> None:
    """Let the open page take this colour scheme and this width."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")


def judge(page: Page, name: str) -> list[Finding]:
    """Return the findings of any severity on the page that is open, and a page wider than its window.

    Args:
        name: what the page is called in a finding.
    """
    findings: list[Finding] = []
    for width, scheme in VIEWS:
        show(page, scheme, width)
        findings += judge_as_shown(page, name, scheme, width)
    return findings


def judge_unlike(seen: set[str], page: Page, name: str) -> list[Finding]:
    """Return the findings on the open page as ``judge`` does, but run axe once for pages that differ in words only.

    Args:
        seen: the shapes of pages that were judged; grows.
    """
    shape = page.evaluate(_SHAPE)
    if shape not in seen:
        seen.add(shape)
        return judge(page, name)
    findings = []
    for width, scheme in VIEWS:
        show(page, scheme, width)
        findings += _too_wide(page.evaluate(_WIDE), name, f"{scheme}, {width} px")
    return findings


def judge_as_shown(page: Page, name: str, scheme: str, width: int, *, colours: bool = True) -> list[Finding]:
    """Return the findings in the one view that is open, which has this colour scheme and this width.

    Args:
        colours: also compare colours, which takes three times as long as everything else.
    """
    page.evaluate(_script())
    answer = page.evaluate(_RUN, colours)
    assert answer["rules"] > 5, f"axe looked at nothing on {name}"
    assert answer["dark"] == (scheme == "dark"), f"{name} is not {scheme}"
    view = f"{scheme}, {width} px"
    findings = [
        Finding(page=name, view=view, rule=one["rule"], where=one["where"], what=one["what"]) for one in answer["found"]
    ]
    return findings + _too_wide(answer["wide"], name, view)


def _too_wide(pixels: int, name: str, view: str) -> list[Finding]:
    what = f"{pixels} px wider than the window"
    return [Finding(page=name, view=view, rule="overflow", where="html", what=what)] if pixels > 0 else []


def assert_none(findings: list[Finding]) -> None:
    """Fail with one line for each finding."""
    assert not findings, "\n" + "\n".join(str(finding) for finding in findings)
