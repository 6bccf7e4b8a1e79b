"""The admin in a real Chromium under the strict policy: nothing is blocked, and everything works (S-61)."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin as django_admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect

from portal.site import first_page, search
from portal.site.dashboard import Row
from portal.site.extension_points import AdminExtension
from portal.site.searchable import Searchable
from tests.browser.csp import PolicyWatch, admin_paths, open_pages, sign_in
from tests.portal.site.pages import EntryPage, site

pytestmark = [
    pytest.mark.browser,
    pytest.mark.req("S-61"),
    pytest.mark.urls("tests.portal.site.pages"),
    pytest.mark.django_db(transaction=True),
]
PASSWORD = "correct horse battery staple"


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch, base: str) -> str:
    monkeypatch.setattr(django_admin, "site", site)
    monkeypatch.setattr(first_page, "extensions", tuple)
    groups = Searchable(
        title="Groups",
        rank=1,
        model=Group,
        find=lambda asked: iter([Group.objects.filter(name__icontains=asked.text)]),
    )
    monkeypatch.setattr(search, "extensions", lambda: [AdminExtension(searchable=(groups,))])
    monkeypatch.setattr(EntryPage, "list_per_page", 4)
    anna = User.objects.create_superuser("anna", "anna@vendor.example", PASSWORD)
    Group.objects.all().delete()  # the roles of staff
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
    return base


WIDE, NARROW = (1440, "light"), (390, "dark")
on_both_screens = pytest.mark.parametrize("context", [WIDE, NARROW], ids=["wide-light", "narrow-dark"], indirect=True)


def _paths() -> list[str]:
    """Return the pages of the admin; the history of an account leads to the trail, which has no page here."""
    return [path for path in admin_paths() if not re.fullmatch(r".*/auth/user/\d+/history/", path)]


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
    paths = _paths()
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
    watch.wait_until_quiet(page)
    page.locator("summary", has_text="Action flag").click()
    page.locator(".filter").get_by_role("link", name="Addition").click()
    page.wait_for_url("**action_flag__exact=1**")
    watch.wait_until_quiet(page)
    expect(page.locator("#result_list tbody tr")).to_have_count(2)
    page.fill("#searchbar", "Group 0")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=Group**")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Take away the filter action flag: Addition").click()
    page.wait_for_url(lambda address: "action_flag" not in address)
    page.goto(base + "/admin/admin/logentry/?p=2")
    watch.wait_until_quiet(page)
    expect(page.locator("#result_list tbody tr")).to_have_count(2)
    watch.assert_quiet()


def test_the_search_finds_rows_and_goes_there_by_keyboard(page: Page, watch: PolicyWatch, base: str) -> None:
    page.keyboard.press("Control+k")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("Group 3")
    expect(page.locator(".search-found a").first).to_contain_text("Group 3")
    page.keyboard.press("Escape")
    expect(page.locator(".search-found")).to_be_hidden()
    page.keyboard.type("Group 3")
    page.locator(".search-found a").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/**/change/")
    watch.assert_quiet()


@on_both_screens
def test_the_theme_is_switched_and_kept(page: Page, watch: PolicyWatch, base: str) -> None:
    dark = "matchMedia('(prefers-color-scheme: dark)').matches"
    grounds = []
    for _ in range(2):
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.locator(".theme-toggle").click()
        page.reload()
        watch.wait_until_quiet(page)
    order = ["auto", "light", "dark"] if page.evaluate(dark) else ["auto", "dark", "light"]
    assert page.evaluate("document.documentElement.dataset.theme") == order[2]
    assert len(set(grounds)) == 2
    watch.assert_quiet()


@on_both_screens
def test_the_navigation_and_the_menus_open_by_keyboard_and_shut(page: Page, watch: PolicyWatch, base: str) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip-link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    if is_wide(page):
        expect(page.locator(".frame > .side")).to_be_visible()
    else:
        page.locator(".drawer summary").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".drawer nav")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".drawer summary")).to_be_focused()
    page.locator(".user summary").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Your account")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Change password")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/logout/")
    watch.assert_quiet()


def test_a_long_list_of_choices_is_narrowed(
    page: Page, watch: PolicyWatch, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EntryPage, "list_filter", ["content_type"])  # has no page whose search could find choices
    for index in range(20):
        ContentType.objects.create(app_label="example", model=f"kind-{index}")
    page.goto(base + "/admin/admin/logentry/")
    page.locator("summary", has_text="Content type").click()
    choices = page.locator("details[data-filter-title='content type'] .menu-list")
    expect(choices.get_by_role("link", name="example | kind-2", exact=True)).to_be_visible()
    choices.get_by_role("searchbox", name="Find among content type").fill("kind-1")
    expect(choices.get_by_role("link", name="kind-17")).to_be_visible()
    expect(choices.get_by_role("link", name="example | kind-2", exact=True)).to_be_hidden()
    watch.assert_quiet()


def test_of_too_many_choices_those_that_words_find_are_offered(page: Page, watch: PolicyWatch, base: str) -> None:
    for index in range(20):
        User.objects.create(username=f"person-{index}")
    page.goto(base + "/admin/admin/logentry/")
    page.locator("summary", has_text="User").click()
    choices = page.locator("details[data-filter-title=user] .menu-list")
    expect(choices.get_by_role("link", name="person-17")).to_have_count(0)
    choices.get_by_role("searchbox", name="Find by user").fill("person-17")
    expect(choices.get_by_role("link", name="person-17")).to_be_visible()
    expect(choices.get_by_role("link", name="person-2", exact=True)).to_have_count(0)
    watch.assert_quiet()


@on_both_screens
def test_an_action_asks_first_then_runs(page: Page, watch: PolicyWatch, base: str) -> None:
    page.goto(base + "/admin/auth/group/")
    watch.wait_until_quiet(page)
    page.locator("#result_list input.action-select").first.check()
    bar = page.locator(".actions")
    expect(bar.locator(".action-counter")).to_have_text("1 of 6 selected")
    page.keyboard.press("Enter")  # leads from the row to the buttons
    expect(bar.get_by_role("button", name="Rename the selected groups")).to_be_focused()
    bar.get_by_role("button", name="Rename the selected groups").click()
    expect(page.get_by_text("1 row is affected")).to_be_visible()
    page.get_by_role("button", name="Rename").click()
    page.wait_for_url(base + "/admin/auth/group/")
    expect(page.locator("#result_list")).to_contain_text("!")
    watch.assert_quiet()


def test_the_export_button_downloads_all_that_match(page: Page, watch: PolicyWatch, base: str) -> None:
    page.goto(base + "/admin/auth/group/")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "auth-group.csv"
    assert download.value.path().read_text().count("\n") == 7
    watch.assert_quiet()


def test_an_identifier_is_copied(page: Page, watch: PolicyWatch, base: str, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(base + "/admin/admin/logentry/")
    watch.wait_until_quiet(page)
    first = page.locator(".guid").first
    first.get_by_role("button").click()
    expect(first.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == first.get_attribute("data-copy")
    watch.assert_quiet()


def test_deleting_where_a_class_allows_it(page: Page, watch: PolicyWatch, base: str) -> None:
    group = Group.objects.get(name="Group 0")
    page.goto(f"{base}/admin/auth/group/{group.pk}/delete/")
    watch.wait_until_quiet(page)
    page.get_by_role("button", name="Yes, I’m sure").click()
    page.wait_for_url(base + "/admin/auth/group/")
    assert not Group.objects.filter(pk=group.pk).exists()
    watch.assert_quiet()


def test_a_line_of_what_runs_renews_itself_and_goes(
    page: Page, watch: PolicyWatch, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [Row(label="Checking tokens: 412 of 1,008", link="/admin/auth/group/")]
    monkeypatch.setattr(first_page, "extensions", lambda: [AdminExtension(running=(lambda request: lines,))])
    page.clock.install()
    page.goto(base + "/admin/auth/group/")
    expect(page.get_by_role("link", name="412 of 1,008")).to_be_visible()
    lines[:] = [Row(label="Checking tokens: 1,000 of 1,008", link="/admin/auth/group/")]
    page.clock.fast_forward(5_000)
    expect(page.get_by_role("link", name="1,000 of 1,008")).to_be_visible(timeout=10_000)
    lines.clear()
    page.clock.fast_forward(5_000)
    expect(page.locator(".running")).to_have_count(0, timeout=10_000)
    watch.assert_quiet()


def test_everything_that_staff_need_works_without_a_script(chromium: Browser, base: str) -> None:
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 860})
    page = context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    page.fill("#search", "Group 3")
    page.keyboard.press("Enter")
    expect(page.locator(".found").first).to_be_visible()
    page.get_by_role("link", name="Settings").click()
    page.get_by_role("navigation", name="Lists of this section").get_by_role("link", name="Roles").click()
    page.locator("#result_list input.action-select").first.check()
    page.get_by_role("button", name="Rename the selected groups").click()
    page.get_by_role("button", name="Rename").click()
    page.wait_for_url(base + "/admin/auth/group/")
    expect(page.locator("#result_list")).to_contain_text("!")
    page.goto(base + "/admin/admin/logentry/")
    page.locator("summary", has_text="Action flag").click()
    page.get_by_role("link", name="Addition").click()
    page.wait_for_url("**action_flag__exact=1**")
    page.locator(".user summary").click()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/admin/logout/")
    context.close()


def test_the_first_page_is_small_and_asks_no_other_site(page: Page, watch: PolicyWatch, base: str) -> None:
    answers: dict[str, bytes] = {}
    page.on("response", lambda response: answers.update({response.url: response.body()}))
    page.goto(base + "/admin/")
    watch.wait_until_quiet(page)
    assert all(address.startswith(base) for address in answers)
    assert 2 < len(answers) < 12
    assert sum(len(gzip.compress(body)) for body in answers.values()) < 300_000
