"""The admin in a real Chromium under the strict policy: nothing is blocked, and everything works (S-61).

Covers: portal.site.unfold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin as django_admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from portal.site import first_page
from tests.browser.csp import PolicyWatch, admin_paths, open_pages, settle, sign_in
from tests.portal.site.expressions import expressions, replacements, templates
from tests.portal.site.pages import EntryPage, site

pytestmark = [
    pytest.mark.browser,
    pytest.mark.req("S-61"),
    pytest.mark.urls("tests.portal.site.pages"),
    pytest.mark.django_db(transaction=True),
]
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="session", autouse=True)
def _database_beside_playwright() -> Iterator[None]:
    """Playwright keeps a loop running in this thread until the session ends, and Django refuses queries beside one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        yield


@pytest.fixture
def base(transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(django_admin, "site", site)
    monkeypatch.setattr(first_page, "extensions", tuple)
    monkeypatch.setattr(EntryPage, "list_per_page", 4)
    settings.SECURE_SSL_REDIRECT = False
    anna = User.objects.create_superuser("anna", "anna@vendor.example", PASSWORD)
    kind = ContentType.objects.get_for_model(Group)
    for index in range(6):
        group = Group.objects.create(name=f"Group {index}")
        LogEntry.objects.create(
            user=anna,
            content_type=kind,
            object_id=str(group.pk),
            object_repr=f'{group} <img src=x onerror="alert(1)">',
            action_flag=1 + index % 3,
            action_time=timezone.now(),
        )
    server = LiveServer("localhost")  # not the fixture: that one starts before these settings
    yield server.url
    server.stop()


WIDE, NARROW = (1440, "light"), (390, "dark")
on_both_screens = pytest.mark.parametrize("context", [WIDE, NARROW], ids=["wide-light", "narrow-dark"], indirect=True)


@pytest.fixture
def context(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    screen: tuple[int, Any] = getattr(request, "param", WIDE)
    width, scheme = screen
    context = chromium.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def watch(context: BrowserContext) -> PolicyWatch:
    return PolicyWatch(context)


@pytest.fixture
def page(context: BrowserContext, watch: PolicyWatch, base: str) -> Page:
    page = context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    return page


def is_wide(page: Page) -> bool:
    return (page.viewport_size or {"width": 0})["width"] > 1280


def test_the_watch_hears_what_the_policy_blocks_also_in_frames(page: Page, watch: PolicyWatch) -> None:
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is None
    heard = "\n".join(watch.problems)
    assert "style-src-attr blocked" in heard
    assert "script-src-elem blocked" in heard
    watch.problems.clear()


@on_both_screens
def test_every_page_is_silent(page: Page, watch: PolicyWatch, base: str) -> None:
    paths = admin_paths()
    assert {"/admin/", "/admin/auth/group/", "/admin/admin/logentry/add/"} <= set(paths)
    assert any(path.endswith("/delete/") for path in paths)
    open_pages(page, watch, base, paths)


def test_a_name_from_outside_runs_nothing(page: Page, watch: PolicyWatch, base: str) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    open_pages(page, watch, base, ["/admin/admin/logentry/"])
    expect(page.locator("#result_list")).to_contain_text('<img src=x onerror="alert(1)">')
    assert page.locator("#result_list img").count() == 0
    assert dialogs == []


@on_both_screens
def test_filters_search_dates_and_pages_of_a_list(page: Page, watch: PolicyWatch, base: str) -> None:
    page.goto(base + "/admin/admin/logentry/")
    settle(page)
    page.get_by_text("Filters").first.click()
    expect(page.locator("#changelist-filter")).to_be_visible()
    page.locator("#changelist-filter").get_by_text("Addition").click()
    page.wait_for_url("**action_flag__exact=1**")
    settle(page)
    page.fill("#searchbar", "Group 0")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=Group**")
    expect(page.locator("#result_list tbody")).to_have_count(1)
    page.goto(base + "/admin/admin/logentry/?p=2")
    settle(page)
    expect(page.locator("#result_list tbody")).to_have_count(2)
    watch.assert_quiet()


def test_the_command_palette_finds_rows_and_goes_there(page: Page, watch: PolicyWatch, base: str) -> None:
    page.keyboard.press("Control+k")
    page.fill("#search-input-command", "Group 3")
    page.locator("#search-input-command").press("End")
    expect(page.locator("#command-results-list li").first).to_contain_text("Group 3")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/**/change/")
    watch.assert_quiet()


@on_both_screens
def test_the_theme_is_switched_and_kept(page: Page, watch: PolicyWatch, base: str) -> None:
    for theme in ("dark", "light"):
        if not is_wide(page) and not page.locator("#nav-sidebar").is_visible():
            page.get_by_text("dock_to_right").click()
        page.locator("#nav-sidebar").get_by_text("unfold_more").click()
        page.locator(f"[x-on\\:click=\"switchTheme('{theme}')\"]").click()
        expect(page.locator("html")).to_have_class(theme)
        page.reload()
        settle(page)
        expect(page.locator("html")).to_have_class(theme)
    watch.assert_quiet()


def test_the_sidebar_is_resized_with_the_mouse(page: Page, watch: PolicyWatch) -> None:
    handle = page.locator(".cursor-col-resize").bounding_box()
    assert handle is not None
    page.mouse.move(handle["x"] + 3, 300)
    page.mouse.down()
    page.mouse.move(340, 300, steps=4)
    page.mouse.up()
    box = page.locator("#nav-sidebar").bounding_box()
    assert box is not None
    assert abs(box["width"] - 340) < 8
    watch.assert_quiet()


@on_both_screens
def test_an_action_asks_first_then_runs(page: Page, watch: PolicyWatch, base: str) -> None:
    page.goto(base + "/admin/auth/group/")
    settle(page)
    page.locator("#result_list input.action-select").first.check()
    bar = page.locator("#changelist-actions")
    expect(bar).to_be_visible()
    bar.locator("select[name=action]").select_option("rename")
    bar.get_by_role("button", name="Run").click()
    expect(page.get_by_text("1 row is affected")).to_be_visible()
    page.get_by_role("button", name="Rename").click()
    page.wait_for_url(base + "/admin/auth/group/")
    expect(page.locator("#result_list")).to_contain_text("!")
    watch.assert_quiet()


def test_the_export_button_downloads_all_that_match(page: Page, watch: PolicyWatch, base: str) -> None:
    page.goto(base + "/admin/auth/group/")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    assert download.value.suggested_filename == "auth-group.csv"
    assert download.value.path().read_text().count("\n") == 7
    watch.assert_quiet()


def test_related_rows_are_picked_and_added_in_a_frame(page: Page, watch: PolicyWatch, base: str) -> None:
    page.goto(base + "/admin/admin/logentry/add/")
    settle(page)
    page.locator(".select2-selection").first.click()
    page.locator(".select2-search__field").fill("ann")
    page.locator(".select2-results__option", has_text="anna").click()
    page.goto(base + "/admin/auth/user/add/")
    page.goto(f"{base}/admin/auth/user/{User.objects.get(username='anna').pk}/change/")
    settle(page)
    link = page.locator("a#add_id_groups")
    if not link.is_visible():
        link.locator("xpath=ancestor::*[@x-data][1]").get_by_text("more_vert").click()
        settle(page)
    page.locator("a#add_id_groups:visible").click()
    frame = page.frame_locator("iframe.related-modal-frame")
    frame.locator("input[name=name]").fill("Made in a frame")
    frame.locator("[name=_save]").click()
    expect(page.locator("#id_groups_to")).to_contain_text("Made in a frame")
    watch.assert_quiet()


def test_a_saved_form_returns_to_the_open_tab(page: Page, watch: PolicyWatch, base: str) -> None:
    page.goto(f"{base}/admin/auth/user/{User.objects.get(username='anna').pk}/change/")
    settle(page)
    form = page.locator("form#user_form")
    before = form.get_attribute("action")
    page.locator("#tabs-items a, #tabs-dropdown a", has_text="Log entries").click()
    expect(form).to_have_attribute("action", f"{before}#logentry_set")
    watch.assert_quiet()


def test_an_identifier_is_copied(page: Page, watch: PolicyWatch, base: str, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(base + "/admin/admin/logentry/")
    settle(page)
    first = page.locator(".guid").first
    first.get_by_role("button").click()
    expect(first.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == first.get_attribute("data-copy")
    watch.assert_quiet()


def test_deleting_where_a_class_allows_it(page: Page, watch: PolicyWatch, base: str) -> None:
    group = Group.objects.get(name="Group 0")
    page.goto(f"{base}/admin/auth/group/{group.pk}/delete/")
    settle(page)
    page.get_by_role("button", name="Yes, I’m sure").click()
    page.wait_for_url(base + "/admin/auth/group/")
    assert not Group.objects.filter(pk=group.pk).exists()
    watch.assert_quiet()


def test_every_expression_parses_in_the_real_csp_build(page: Page) -> None:
    """The unit test reads with a scanner of ours; this asks Alpine's own parser."""
    table = replacements()
    found = sorted({table.get(text, text) for path in templates() for _, text in expressions(path.read_text())})
    assert len(found) > 80
    assert page.evaluate(_PARSE, ["if (a) b()", "a?.b"]) == ["if (a) b()", "a?.b"]
    assert page.evaluate(_PARSE, found) == []


_PARSE = """
(expressions) => expressions.filter((text) => {
  const anything = { has: () => true, get: (target, name) => (name === Symbol.unscopables ? undefined : 1) };
  try {
    Alpine.evaluateRaw(document.createElement("div"), text, { scope: new Proxy({}, anything) });
  } catch (error) {
    return error.message.startsWith("CSP Parser Error");
  }
  return false;
})
"""
