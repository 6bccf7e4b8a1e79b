"""Open pages in a real Chromium and hear what it objects to.

A policy is only as good as the browser that holds it: violations, script errors and answers that failed are collected
for the whole browser context, frames and popups included (S-61).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import RequestFactory
from django.urls import NoReverseMatch, reverse
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response

_LISTENER = """
document.addEventListener("securitypolicyviolation", (event) => {
  window.reportViolation(
    `${event.effectiveDirective} blocked ${event.blockedURI || "inline"} ` +
    `in ${event.sourceFile || document.location.href}:${event.lineNumber} ${event.sample}`);
});
"""
_TURNS = "() => new Promise((done) => setTimeout(done, 50))"


class PolicyWatch:
    """Collects policy violations, console errors, script errors and failed answers of one browser context.

    Create it before the context's first page.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.problems: list[str] = []
        self._allowed_statuses: set[int] = set()
        context.expose_binding("reportViolation", lambda source, text: self._note(source["page"], "violation", text))
        context.add_init_script(_LISTENER)
        context.on("console", self._console)
        context.on("weberror", lambda error: self._note(error.page, "script error", str(error.error)))
        context.on("response", self._response)
        self._under_way: set[Request] = set()
        context.on("request", self._begun)
        context.on("requestfinished", self._ended)
        context.on("requestfailed", self._ended)

    def _begun(self, request: Request) -> None:
        self._under_way.add(request)

    def _ended(self, request: Request) -> None:
        self._under_way.discard(request)

    def _note(self, page: Page | None, kind: str, text: str) -> None:
        self.problems.append(f"{page.url if page else '?'}: {kind}: {text}")

    def _console(self, message: ConsoleMessage) -> None:
        failed_answer = message.text.startswith("Failed to load resource") and self._allowed_statuses
        if message.type == "error" and not failed_answer:
            self._note(message.page, f"console {message.type}", message.text)

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self._allowed_statuses:
            self._note(None, "answer", f"{response.status} {response.url}")

    @contextmanager
    def allowing(self, *statuses: int) -> Iterator[None]:
        """Expect answers with these statuses, for example 403 where a refusal is the point."""
        self._allowed_statuses = set(statuses)
        yield
        self._allowed_statuses = set()

    def wait_until_quiet(self, page: Page, seconds: float = 10.0) -> None:
        """Wait until requests have ended and scripts have had their turns.

        The events are counted here: ``networkidle`` would add half a second of silence to each page.
        """
        until = time.monotonic() + seconds
        page.evaluate(_TURNS)
        while self._under_way:
            assert time.monotonic() < until, f"still under way: {[one.url for one in self._under_way]}"
            page.evaluate(_TURNS)

    def assert_quiet(self) -> None:
        """Fail with everything heard since the last call."""
        heard, self.problems = self.problems, []
        assert not heard, "\n".join(heard)


def open_pages(page: Page, watch: PolicyWatch, base_url: str, paths: Iterable[str]) -> None:
    """Open each path, let its scripts settle, and require silence."""
    for path in paths:
        answer = page.goto(base_url + path, wait_until="load")
        assert answer is not None
        policy = answer.headers.get("content-security-policy", "")
        assert policy, f"{path} has no policy"
        assert "unsafe" not in policy, f"{path}: {policy}"
        watch.wait_until_quiet(page)
    watch.assert_quiet()


def settle(page: Page) -> None:
    """Wait until requests have ended and scripts have had their turns."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(50)


def sign_in(page: Page, base_url: str, *, username: str, password: str) -> None:
    """Sign in at the admin with a local account."""
    page.goto(base_url + reverse("admin:login"))
    page.fill("input[name=username]", username)
    page.fill("input[name=password]", password)
    page.click("#login-form button[type=submit]")
    page.wait_for_url(base_url + reverse("admin:index"))


def admin_paths() -> list[str]:
    """Return every page of the admin that exists for a superuser: the index, and for each model its list, its form
    for a new row, and change, history and deletion of one row.

    Queries the database; call it before the browser starts or with DJANGO_ALLOW_ASYNC_UNSAFE.
    """
    paths = [reverse("admin:index"), reverse("admin:password_change")]
    for model, model_admin in admin.site._registry.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        paths += [reverse("admin:app_list", args=[model._meta.app_label]), reverse(f"{name}_changelist")]
        if _may(model_admin, "add"):
            paths.append(reverse(f"{name}_add"))
        row = model._default_manager.first()
        if row is None:
            continue
        views = ["change", "history", *(["delete"] if _may(model_admin, "delete") else [])]
        for view in views:
            try:
                paths.append(reverse(f"{name}_{view}", args=[row.pk]))
            except NoReverseMatch:  # a class may leave a page out
                continue
    return list(dict.fromkeys(paths))


def _may(model_admin: admin.ModelAdmin[Any], verb: str) -> bool:
    request = RequestFactory().get("/")
    request.user = get_user_model()(is_superuser=True, is_active=True, is_staff=True)
    return bool(getattr(model_admin, f"has_{verb}_permission")(request))
