"""The pages that partners see: complete, inert whatever the names are, and fit for the strict policy."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.template import engines
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.utils import translation

from consent.words import CHECK_WORDS, PROBLEMS, RESULTS, Problem, permission_groups, result_of
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, PARTNER_CENTER_APPLICATION_ID

TENANT = "7b1d6b1e-2a55-4d3a-9c7e-3f2f6f0a9b11"
APPLICATION = "c0ffee00-1234-4cde-8abc-0123456789ab"
VENDOR = {"vendor_name": "Fabrikam Control Panel", "support_email": "onboarding@vendor.example"}
# Markup, quotes, an override, a pop of the isolate around it, right-to-left letters, emoji, and 200 characters.
HOSTILE = ("</bdi><script>alert(1)</script>\"'><img src=x onerror=alert(2)> \u2069\u202e مرحبا " + "🚀" * 200)[:200]
VOID = {"meta", "link", "img", "input", "path", "circle"}


def landing(**changes: Any) -> dict[str, Any]:
    return {
        **VENDOR,
        "partner_name": "Northwind Cloud Services",
        "tenant_id": TENANT,
        "cloud_name": "Global",
        "application_name": "Fabrikam Connector",
        "application_id": APPLICATION,
        "permissions": permission_groups(
            {PARTNER_CENTER_APPLICATION_ID: ["user_impersonation"], GRAPH_APPLICATION_ID: ["User.Read.All", "Odd.One"]}
        ),
        "expires_at": datetime(2026, 12, 7, 9, 30, tzinfo=UTC),
        "start_url": "/consent/some-token/start",
        "trust_url": f"/consent/about/global/{APPLICATION}/",
        "pass_on": "subject=x&body=y",
        "sign_in_host": "login.microsoftonline.com",
        **changes,
    }


def result(outcome: str, *, failed: bool = False, **changes: Any) -> dict[str, Any]:
    states = ["passed", "passed", "failed", "unverified"]
    return {
        **VENDOR,
        "words": RESULTS[result_of(outcome, failed=failed)],
        "outcome": outcome,
        "partner_name": "Northwind Cloud Services",
        "tenant_id": TENANT,
        "checks": [
            {**words[state], "state": state} for words, state in zip(CHECK_WORDS.values(), states, strict=False)
        ],
        "reference": "9F3A61C2",
        "connected_at": datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
        "retry_url": "",
        **changes,
    }


def problem(which: Problem, **changes: Any) -> dict[str, Any]:
    return {**VENDOR, "problem": PROBLEMS[which], "reference": "9F3A61C2", "retry_url": "", **changes}


OUTCOMES = ("connected", "connected_mfa_missing", "waiting_approval")
PAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "landing": ("landing", landing()),
    "landing, hostile": (
        "landing",
        landing(partner_name=HOSTILE, application_name=HOSTILE, vendor_name=HOSTILE),
    ),
    **{outcome: ("result", result(outcome)) for outcome in OUTCOMES},
    "connected, to mend": ("result", result("connected", failed=True)),
    "admin_consented": ("consented", result("admin_consented")),
    "connected, hostile": ("result", result("connected", partner_name=HOSTILE, vendor_name=HOSTILE)),
    **{which.value: ("problem", problem(which)) for which in Problem},
    "problem with retry": ("problem", problem(Problem.STILL_WORKING, retry_url="/consent/result/1f")),
    "problem without reference": ("problem", problem(Problem.START_AGAIN, reference="")),
    "throttled": ("throttled", dict(VENDOR)),
    "throttled, bare": ("throttled", {}),
}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Elements in the order of the page, each with all text below it."""

    elements: list[Element] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag, f"unbalanced {tag}"

    def handle_data(self, data: str) -> None:
        self.text += data
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]

    @property
    def plain(self) -> str:
        return " ".join(self.text.split())


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def render(template: str, context: dict[str, Any]) -> Page:
    return read(render_to_string(f"consent/{template}.html", context, RequestFactory().get("/")))


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Page:
    """Each page once; a variable that no context gives would show."""
    monkeypatch.setattr(engines["django"].engine, "string_if_invalid", "MISSING(%s)")  # type: ignore[attr-defined]
    template, context = PAGES[request.param]
    rendered = render(template, context)
    assert "MISSING(" not in rendered.text
    assert not [element for element in rendered.elements if "MISSING(" in str(element.attributes)]
    return rendered


@pytest.mark.req("S-61")
@pytest.mark.req("S-65")
def test_nothing_on_a_page_needs_an_unsafe_policy(page: Page) -> None:
    assert not page.all("style", "base", "iframe", "object", "embed")
    for element in page.elements:
        assert "style" not in element.attributes
        assert not [name for name in element.attributes if name.startswith("on")]
        assert "http-equiv" not in element.attributes
    for script in page.all("script"):
        assert script.attributes["src"] == settings.STATIC_URL + "consent/once.js"
        assert not script.text


@pytest.mark.req("S-05")
def test_no_page_loads_or_links_anything_of_another_site(page: Page) -> None:
    for element in page.elements:
        for name in ("href", "src", "action", "formaction", "srcset", "poster", "data"):
            address = element.attributes.get(name, "/")
            assert re.match(r"/(?!/)|mailto:", address), address


@pytest.mark.req("S-05")
def test_style_and_script_load_nothing() -> None:
    for name in ("consent/consent.css", "consent/once.js", "site/portal.css"):
        found = finders.find(name)
        assert found
        source = Path(found).read_text(encoding="utf-8")
        source = re.sub(r'url\("data:image/svg\+xml,[^"]*"\)', "", source)  # drawn in the file itself
        assert not re.search(r"url\(|@import|https?:|//[a-z]|fetch\(|innerHTML|eval\(", source)


def test_headings_make_an_outline(page: Page) -> None:
    levels = [int(element.tag[1]) for element in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(heading.text.strip() for heading in page.all("h1", "h2", "h3"))


def test_a_screen_reader_finds_its_way(page: Page) -> None:
    [document] = page.all("html")
    assert document.attributes == {"lang": "en", "dir": "ltr"}
    assert page.all("title")[0].text.strip()
    assert [len(page.all(landmark)) for landmark in ("header", "main", "footer")] == [1, 1, 1]
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    named = {element.attributes["aria-labelledby"] for element in page.all("section")}
    assert named <= set(ids)
    assert all(image.attributes["alt"] == "" for image in page.all("img"))
    assert all(icon.attributes["aria-hidden"] == "true" for icon in page.all("svg"))
    assert len([element for element in page.elements if element.attributes.get("aria-current") == "step"]) <= 1


@pytest.mark.req("S-05")
@pytest.mark.req("S-65")
@pytest.mark.parametrize("name", ["landing, hostile", "connected, hostile"])
def test_a_hostile_name_stays_text_inside_its_own_isolate(name: str) -> None:
    page = render(*PAGES[name])
    assert not [image for image in page.all("img") if image.attributes["src"] == "x"]
    isolated = [element.text for element in page.all("bdi")].count(HOSTILE)
    titles = sum(HOSTILE in title.text for title in page.all("title"))
    assert isolated >= 2
    assert page.text.count(HOSTILE) == isolated + titles


@pytest.mark.req("S-05")
def test_a_name_is_a_box_of_its_own_because_isolation_alone_ends_inside_it() -> None:
    # Seen in Chromium: U+2069 inside <bdi> closes the isolate, and U+202E behind it turns our own sentence around.
    found = finders.find("site/portal.css")
    assert found
    rule = re.search(r"^bdi \{(.*?)\}", Path(found).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert rule
    assert "display: inline-block" in rule[1]
    assert "overflow-wrap: anywhere" in rule[1]


@pytest.mark.req("S-05")
@pytest.mark.parametrize(
    "words",
    [
        "Northwind Cloud Services",
        "Fabrikam Control Panel asks for your permission",
        TENANT,
        "Microsoft cloud: Global",
        "Fabrikam Connector",
        APPLICATION,
        "Work in Partner Center as the service account",
        "user_impersonation",
        "Odd.One",
        "offline_access",
        "dedicated service account",
        "Global Administrator",
        "Admin Agent",
        "Multifactor authentication",
        "login.microsoftonline.com",
        "7 December 2026, 09:30 UTC",
        "How to take it back",
        "Enterprise applications",
        "onboarding@vendor.example",
    ],
)
def test_the_landing_page_says_who_asks_for_what_and_how_to_take_it_back(words: str) -> None:
    assert words in render("landing", landing()).plain


@pytest.mark.req("S-02")
def test_the_only_way_on_is_one_form_that_posts_with_a_csrf_token() -> None:
    page = render("landing", landing())
    [form] = page.all("form")
    assert form.attributes["method"] == "post"
    assert form.attributes["action"] == "/consent/some-token/start"
    [button] = page.all("button")
    assert button.text == "Continue to Microsoft"
    [token] = page.all("input")
    assert token.attributes["name"] == "csrfmiddlewaretoken"
    elsewhere = [href for link in page.all("a") if not (href := link.attributes["href"]).startswith("mailto:")]
    assert elsewhere == [f"/consent/about/global/{APPLICATION}/"]  # our own page for a security review


@pytest.mark.parametrize(
    ("outcome", "heading"),
    [
        ("connected", "Your tenant is connected"),
        ("connected_mfa_missing", "Connected, but MFA is missing"),
        ("waiting_approval", "Thank you. We have to approve this account"),
    ],
)
def test_the_result_page_says_what_was_proven_and_what_was_not(outcome: str, heading: str) -> None:
    page = render("result", result(outcome))
    assert page.all("h1")[0].text == heading
    verdicts = [element.text for element in page.all("span") if element.attributes.get("class") == "verdict"]
    assert verdicts == ["Passed", "Passed", "Failed", "Could not verify"]
    for words in (TENANT, "9F3A61C2", "23 November 2026, 09:30 UTC", "Northwind Cloud Services"):
        assert words in page.plain
    assert ("What to do next" in page.plain) == (outcome != "connected")


@pytest.mark.req("S-18")
def test_a_state_that_nobody_knows_is_not_called_passed() -> None:
    page = render("result", result("connected", checks=[{"label": "x", "detail": "y", "state": "surprise"}]))
    assert "Could not verify" in page.plain
    assert "Passed" not in page.plain


@pytest.mark.req("S-23")
@pytest.mark.parametrize("which", Problem)
def test_a_problem_page_shows_its_row_and_its_reference(which: Problem) -> None:
    page = render("problem", problem(which))
    words = PROBLEMS[which]
    assert page.all("h1")[0].text == str(words.heading)
    for text in (words.what, words.who_words, *words.steps, "9F3A61C2"):
        assert str(text) in page.plain
    assert "mailto:onboarding@vendor.example?subject=9F3A61C2" in [link.attributes["href"] for link in page.all("a")]


def test_a_problem_page_offers_the_retry_address_that_it_was_given() -> None:
    page = render("problem", problem(Problem.STILL_WORKING, retry_url="/consent/result/1f"))
    assert [link.text for link in page.all("a") if link.attributes["href"] == "/consent/result/1f"] == ["Look again"]


@pytest.mark.req("S-03")
def test_the_page_of_a_dead_link_has_nothing_that_could_differ() -> None:
    context = problem(Problem.LINK_UNUSABLE, reference="")
    first, second = (
        render_to_string("consent/problem.html", context, RequestFactory().get(address)) for address in ("/a", "/b?c=d")
    )
    assert first == second
    assert "Reference" not in read(first).plain


def test_pages_live_without_a_support_address() -> None:
    for template, context in (PAGES["landing"], PAGES["connected"], PAGES["our_fault"], PAGES["throttled"]):
        links = render(template, {**context, "support_email": "", "pass_on": ""}).all("a")
        assert not [link for link in links if "mailto:" in link.attributes["href"]]


def test_the_ready_points_are_for_the_reader_to_tick() -> None:
    source = render_to_string("consent/landing.html", landing(), RequestFactory().get("/"))
    assert not re.search('icon passed|class="ticks"', source)
    assert "Continue only if all three are true" in read(source).plain


def test_a_reader_who_is_no_administrator_can_pass_the_page_on() -> None:
    page = render("landing", landing())
    assert "mailto:?subject=x&body=y" in [link.attributes["href"] for link in page.all("a")]


@pytest.mark.parametrize("which", Problem)
def test_a_refusal_offers_to_try_again_where_it_can_help(which: Problem) -> None:
    words = PROBLEMS[which]
    page = render("problem", problem(which, retry_url="/consent/again/1f/" if words.again_here else ""))
    offered = [link.text for link in page.all("a") if link.attributes["href"].startswith("/")]
    assert offered == (["Try again"] if words.again_here else [])


def test_nobody_is_sent_round_in_the_browser_that_signed_in_the_wrong_account() -> None:
    never = {which for which, words in PROBLEMS.items() if words.start_again and not words.again_here}
    assert never == {Problem.WRONG_TENANT, Problem.PERSONAL_OR_GUEST_ACCOUNT}


@pytest.mark.req("S-03")
def test_who_is_connected_reads_on_the_page_of_a_dead_link_that_all_is_well() -> None:
    page = render("problem", problem(Problem.LINK_UNUSABLE, reference=""))
    assert "all is well" in page.plain
    assert "You do, unless your tenant is connected already" in page.plain


def test_right_to_left_languages_turn_the_page_around() -> None:
    with translation.override("ar"):
        [document] = render("landing", landing()).all("html")
    assert document.attributes == {"lang": "ar", "dir": "rtl"}


@pytest.mark.parametrize(
    "template", sorted(path.name for path in (settings.BASE_DIR / "templates/consent").glob("*.*"))
)
def test_each_word_in_a_template_is_ready_for_translation_and_escaped(template: str) -> None:
    source = (settings.BASE_DIR / "templates/consent" / template).read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe|autoescape|mark_safe", source)
    rest = re.sub(r"\{% blocktranslate .*?%\}.*?\{% endblocktranslate %\}", "", source, flags=re.DOTALL)
    rest = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "", rest, flags=re.DOTALL)
    rest = re.sub(r"<[^>]*>", "", rest)
    assert not re.search(r"[A-Za-z]", rest), rest.split()
