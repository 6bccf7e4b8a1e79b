from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.template.loader import get_template
from django.test import Client

PAGES = ["400", "403", "403_csrf", "404", "500", "503"]


class Inline(HTMLParser):
    """Collects what the policy would block, and every address that the page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.blocked += [name for name in names if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in names):
            self.blocked.append(tag)
        self.loaded += [str(names[name]) for name in ("src", "href") if name in names]


@pytest.mark.req("S-61", "S-65")
@pytest.mark.parametrize("page", PAGES)
def test_an_error_page_stands_alone_and_has_nothing_inline(page: str) -> None:
    html = get_template(f"{page}.html").render({"exception": "<script>secret()</script>", "reason": "why"})
    inline = Inline()
    inline.feed(html)
    assert inline.blocked == []
    assert inline.loaded
    assert all(address.startswith("/static/site/") for address in inline.loaded)
    assert "secret()" not in html
    assert len(re.findall("<h1>", html)) == 1
    assert "What to do next" in html


@pytest.mark.django_db
def test_an_unknown_address_gets_our_page(client: Client) -> None:
    response = client.get("/nowhere")
    assert response.status_code == 404
    assert b"There is nothing at this address" in response.content


@pytest.mark.req("S-21")
@pytest.mark.django_db
def test_a_post_without_the_csrf_value_gets_our_page_and_does_nothing(client: Client) -> None:
    response = client.post("/admin/login/", {"username": "a", "password": "b"})
    assert response.status_code == 403
    assert b"This form could not be accepted" in response.content
    assert b"<style" not in response.content


@pytest.mark.req("S-33")
@pytest.mark.django_db
def test_a_crash_shows_our_page_and_nothing_of_the_error(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("CANARY")

    monkeypatch.setattr("django.contrib.admin.sites.AdminSite.each_context", crash)
    client.raise_request_exception = False
    response = client.get("/admin/login/")
    assert response.status_code == 500
    assert b"Something went wrong on our side" in response.content
    assert b"CANARY" not in response.content
    assert "unsafe" not in response["Content-Security-Policy"]


@pytest.mark.req("S-65")
def test_no_template_or_module_of_ours_switches_escaping_off() -> None:
    root = Path(settings.BASE_DIR)
    banned = re.compile(r"\|\s*safe\b|autoescape\s+off|mark_safe|<style|\sstyle=|\son[a-z]+=\"")
    html = [*(root / "templates").rglob("*.html"), *(root / "portal").rglob("*.html")]
    found = [f"{path}: {match[0]}" for path in html for match in banned.finditer(path.read_text())]
    code = [path for room in ("portal", "tenants", "consent") for path in (root / room).rglob("*.py")]
    html_builders = re.compile(r"mark_safe|format_html|SafeString\(")
    found += [
        f"{path}: {match[0]}"
        for path in code
        if path != root / "portal/site/display.py"
        for match in html_builders.finditer(path.read_text())
    ]
    assert found == []


@pytest.mark.req("S-21")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("secure", "kept", "cause", "help_that_is_false"),
    [
        (False, False, "came over http", "allow cookies"),
        (True, False, "did not keep our cookie", "https address"),
        (True, True, "was open for a long time", "allow cookies"),
        (False, True, "was open for a long time", "https address"),
    ],
    ids=["over http, as in WebKit", "cookies blocked", "stale page", "stale page over http"],
)
def test_a_refused_form_names_its_real_cause(
    settings: Any, secure: bool, kept: bool, cause: str, help_that_is_false: str
) -> None:
    settings.SECURE_SSL_REDIRECT = False
    who = Client(enforce_csrf_checks=True)
    who.get("/admin/login/", secure=secure)
    if not kept:
        who.cookies.clear()  # what WebKit does over http with a cookie that is ``Secure``
    response = who.post(
        "/admin/login/",
        {"username": "a", "password": "b"},
        secure=secure,
        headers={"referer": "https://testserver/admin/login/"},
    )
    page = response.content.decode()
    assert response.status_code == 403
    assert cause in page
    assert help_that_is_false not in page.lower()
