"""What every list of the admin keeps: declared lookups, constant queries, exports, and actions that ask.

Covers: portal.site.base, portal.site.change_list, portal.site.confirming, portal.site.exporting.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from django.contrib import admin as django_admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldFetchBlocked
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.site import first_page
from tests.portal.site.pages import EntryPage, GroupPage, MirroredPage, site

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.portal.site.pages")]

GROUPS, ENTRIES = "/admin/auth/group/", "/admin/admin/logentry/"


@pytest.fixture(autouse=True)
def _only_this_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_admin, "site", site)
    monkeypatch.setattr(first_page, "extensions", tuple)


@pytest.fixture
def anna() -> User:
    return User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery")


@pytest.fixture
def staff(client: Client, anna: User) -> Client:
    client.handler.enforce_csrf_checks = False
    client.force_login(anna)
    return client


def entries(number: int, **fields: Any) -> None:
    kind = ContentType.objects.get_for_model(Group)
    for index in range(number):
        user = User.objects.create(username=f"person-{User.objects.count()}")
        values = {"user": user, "content_type": kind, "object_id": str(index), "object_repr": f"row {index}"}
        LogEntry.objects.create(**{**values, "action_flag": 1, "action_time": timezone.now(), **fields})


# --- deletion (S-54) ---


@pytest.mark.req("S-54")
def test_no_list_offers_to_delete_what_is_selected(staff: Client) -> None:
    group = Group.objects.create(name="Operators")
    assert b"delete_selected" not in staff.get(GROUPS).content
    staff.post(GROUPS, {"action": "delete_selected", "_selected_action": [group.pk], "index": 0, "post": "yes"})
    assert Group.objects.filter(pk=group.pk).exists()


@pytest.mark.req("S-54")
def test_deletion_is_refused_unless_a_class_allows_it(staff: Client, anna: User) -> None:
    assert staff.get(f"/admin/auth/user/{anna.pk}/delete/").status_code == 403
    assert staff.post(f"/admin/auth/user/{anna.pk}/delete/", {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=anna.pk).exists()


def test_mirrored_rows_can_be_seen_but_not_written(anna: User) -> None:
    request = RequestFactory().get("/")
    request.user = anna
    page = MirroredPage(Group, site)
    assert page.has_view_permission(request)
    written = (
        page.has_add_permission(request),
        page.has_change_permission(request),
        page.has_delete_permission(request),
    )
    assert written == (False, False, False)


# --- lookups (S-35) ---


@pytest.mark.req("S-35")
@pytest.mark.parametrize(
    "query",
    [
        "user__password__startswith=pbkdf2",
        "change_message__startswith=a",
        "object_repr=x",
        "object_repr__regex=^a",
        "action_flag__gt=1",
        "user__username__startswith=a",
        "user__id__gt=1",
        "pk=1",
        "content_type__id__exact=1",
    ],
)
def test_a_lookup_that_no_filter_declares_is_refused(staff: Client, query: str) -> None:
    assert staff.get(f"{ENTRIES}?{query}").status_code == 400


@pytest.mark.req("S-35")
@pytest.mark.parametrize(
    "query",
    [
        "action_flag__exact=1",
        "user__id__exact=1",
        "user__isnull=False",
        "action_time__gte=2026-01-01 00:00:00%2B00:00",
        "action_time__year=2026&action_time__month=1",
        "q=row",
        "o=-1",
        "p=1",
    ],
)
def test_what_the_filters_themselves_produce_works(staff: Client, query: str) -> None:
    entries(1)
    assert staff.get(f"{ENTRIES}?{query}").status_code == 200


@pytest.mark.req("S-35")
def test_our_own_links_may_declare_one_more_lookup(staff: Client, anna: User) -> None:
    mine, _ = Group.objects.create(name="Mine"), Group.objects.create(name="Other")
    mine.user_set.add(anna)
    staff.force_login(anna)  # who gets other rights signs in anew
    page = staff.get(f"{GROUPS}?user__id__exact={anna.pk}")
    assert [group.name for group in page.context["cl"].result_list] == ["Mine"]
    assert staff.get(f"{GROUPS}?user__password__startswith=p").status_code == 400


@pytest.mark.req("S-35")
def test_a_password_hash_is_never_shown(staff: Client, anna: User) -> None:
    page = staff.get(f"/admin/auth/user/{anna.pk}/change/").content.decode()
    assert "A password is set." in page
    algorithm, *_, salt, digest = anna.password.split("$")
    assert not [part for part in (algorithm, salt[:6], digest[:6]) if part in page]


# --- cheap lists ---


def queries(staff: Client, path: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert staff.get(path).status_code == 200
    return len(captured)


def test_a_list_costs_the_same_for_two_rows_and_for_twenty(staff: Client) -> None:
    entries(2)
    staff.get(ENTRIES)  # the first request of a session writes when it began
    few = queries(staff, f"{ENTRIES}?action_flag__exact=1")
    entries(18)
    # The filter by person lists them in one query; the page is session, user, count, rows, people, dates.
    assert queries(staff, f"{ENTRIES}?action_flag__exact=1") == few


def test_a_column_that_would_query_for_each_row_is_an_error(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    entries(1)
    monkeypatch.setattr(EntryPage, "list_display", ["object_repr", "kind_of_thing"])
    monkeypatch.setattr(EntryPage, "kind_of_thing", lambda page, entry: entry.content_type.model, raising=False)
    with pytest.raises(FieldFetchBlocked):
        staff.get(ENTRIES)


def test_a_nullable_foreign_key_in_the_list_is_selected() -> None:
    page = EntryPage(LogEntry, site)
    page.list_display = ["object_repr", "content_type", "user"]
    request = RequestFactory().get("/")
    request.user = User.objects.create_superuser("anna")
    assert page.get_list_select_related(request) == ["content_type", "user"]


def test_a_list_counts_and_pages_through_no_more_than_it_says(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.site.change_list.MOST_LISTED", 6)
    monkeypatch.setattr(EntryPage, "list_per_page", 2)
    entries(6)
    text = staff.get(ENTRIES).content.decode()
    assert "6 log entries" in text
    assert "6+ log entries" not in text
    entries(3)
    with CaptureQueriesContext(connection) as captured:
        page = staff.get(f"{ENTRIES}?p=4000")
    assert "6+ log entries. The pages show the first 6; search, filter or sort to see others." in page.content.decode()
    shown = page.context["cl"]
    assert (shown.page_num, len(shown.result_list)) == (3, 2)
    assert [row.pk for row in shown.result_list] == list(
        LogEntry.objects.order_by("-action_time", "-pk").values_list("pk", flat=True)[4:6]
    )
    asked = [query["sql"] for query in captured if 'FROM "django_admin_log"' in query["sql"]]
    assert not any("COUNT" in sql for sql in asked)
    assert "LIMIT 7" in asked[0]


def test_an_empty_list_says_what_belongs_there_and_how_to_begin(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupPage, "empty_text", "A group holds permissions.")
    Group.objects.all().delete()  # those of the roles
    text = staff.get(GROUPS).content.decode()
    assert "A group holds permissions." in text
    assert "Add group</a>" in text.partition("empty")[2]


# --- export (S-64) ---


def table(response: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(b"".join(response.streaming_content).decode(), newline="")))


@pytest.mark.req("S-64")
def test_the_selected_rows_are_exported(staff: Client) -> None:
    one, _ = Group.objects.create(name="=cmd|calc"), Group.objects.create(name="Other")
    response = staff.post(GROUPS, {"action": "export_csv", "_selected_action": [one.pk], "index": 0})
    assert table(response) == [["Name"], ["'=cmd|calc"]]
    assert response["Content-Disposition"] == 'attachment; filename="auth-group.csv"'


@pytest.mark.req("S-64")
def test_all_rows_that_match_are_exported_also_beyond_the_page(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPage, "list_per_page", 2)
    entries(5)
    entries(1, action_flag=2)
    button = {"action": "export_csv", "select_across": "1", "_selected_action": "0", "index": 0}
    response = staff.post(f"{ENTRIES}?action_flag__exact=1", button)
    assert len(table(response)) == 6


@pytest.mark.req("S-64", "S-55")
def test_an_export_is_audited_with_the_number_of_rows(staff: Client) -> None:
    group = Group.objects.create(name="Operators")
    staff.post(GROUPS, {"action": "export_csv", "_selected_action": [group.pk], "index": 0})
    event = AuditEvent.objects.get(action="list.exported")
    assert (event.actor, event.subject, event.details["rows"]) == ("anna", {"list": "auth.group"}, 1)


@pytest.mark.req("S-64")
def test_a_list_that_is_too_long_is_not_exported(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.site.exporting.EXPORT_LIMIT", 1)
    groups = [Group.objects.create(name=name).pk for name in "ab"]
    response = staff.post(GROUPS, {"action": "export_csv", "_selected_action": groups, "index": 0})
    assert response.status_code == 302
    assert not AuditEvent.objects.exists()


@pytest.mark.req("S-64")
def test_who_may_not_export_has_no_button_and_no_action(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group.objects.create(name="Operators")
    assert b'value="export_csv"' in staff.get(GROUPS).content
    monkeypatch.setattr(GroupPage, "has_export_permission", lambda self, request: False)
    assert b"export_csv" not in staff.get(GROUPS).content
    response = staff.post(GROUPS, {"action": "export_csv", "_selected_action": [group.pk], "index": 0})
    assert not response.streaming


@pytest.mark.req("S-64")
def test_a_person_without_the_view_permission_gets_nothing(staff: Client) -> None:
    bob = User.objects.create_user("bob", password="correct horse battery", is_staff=True)
    bob.user_permissions.add(Permission.objects.get(codename="view_user"))
    staff.force_login(bob)
    assert staff.get(GROUPS).status_code == 403
    assert staff.post(GROUPS, {"action": "export_csv", "_selected_action": ["0"], "index": 0}).status_code == 403


# --- confirmations (S-54) ---


def confirmation(staff: Client, *groups: Group) -> tuple[Any, dict[str, Any]]:
    page = staff.post(GROUPS, {"action": "rename", "_selected_action": [group.pk for group in groups], "index": 0})
    html = page.content.decode()
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', html[html.index("data-once") :])
    form: dict[str, Any] = {}
    for name, value in fields:
        form.setdefault(name, []).append(value)
    return page, form


@pytest.mark.req("S-54")
def test_an_action_says_what_it_will_touch_and_waits(staff: Client) -> None:
    one, _ = Group.objects.create(name="Operators"), Group.objects.create(name="Viewers")
    page, _ = confirmation(staff, one)
    text = page.content.decode()
    assert "Each name gets an exclamation mark." in text
    assert "1 row is affected" in text
    assert "Operators" in text
    assert "Viewers" not in text
    assert not Group.objects.filter(name__endswith="!").exists()


@pytest.mark.req("S-54")
def test_a_confirmed_action_runs_once(staff: Client) -> None:
    group = Group.objects.create(name="Operators")
    _, form = confirmation(staff, group)
    staff.post(GROUPS, form)
    second = staff.post(GROUPS, form, follow=True)
    group.refresh_from_db()
    assert group.name == "Operators!"
    assert b"Nothing was repeated" in second.content


@pytest.mark.req("S-54")
def test_a_confirmation_belongs_to_its_action_and_person(staff: Client) -> None:
    group = Group.objects.create(name="Operators")
    _, form = confirmation(staff, group)
    for forged in ("x", form["_once"][0] + "x", ""):
        staff.post(GROUPS, {**form, "_once": forged})
    staff.force_login(User.objects.create_superuser("eve", "eve@vendor.example", "correct horse battery"))
    staff.post(GROUPS, form)
    group.refresh_from_db()
    assert group.name == "Operators"


@pytest.mark.req("S-54")
def test_too_many_rows_are_not_confirmed_unseen(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.site.confirming.CONFIRM_LIMIT", 1)
    response = staff.post(
        GROUPS, {"action": "rename", "index": 0, "_selected_action": [Group.objects.create(name=n).pk for n in "ab"]}
    )
    assert response.status_code == 302
    assert not Group.objects.filter(name__endswith="!").exists()


# --- sign-in (S-24) ---


@pytest.mark.req("S-24")
def test_next_leads_to_this_site_only(client: Client, anna: User) -> None:
    client.handler.enforce_csrf_checks = False
    for target in ("https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil.example"):
        credentials = {"username": "anna", "password": "correct horse battery", "next": target}
        response = client.post("/admin/login/", credentials)
        assert response.status_code == 302
        assert response["Location"] == "/admin/"
