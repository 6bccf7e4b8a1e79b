"""Every page, action and file of the admin, and every service: who of staff gets in, tried and written as a table.

What is tried is found in the admin itself: each address, each action of a list, each button of a row's page. Pages are
opened, actions lead to the confirmation that they ask, and nothing of it stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import transaction
from django.db.models import Model
from django.test import RequestFactory
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from consent.admin.new_credentials import WAYS
from consent.microsoft.certificates import new_key, pem_of, request_for, self_signed
from consent.models import (
    ApplicationCredential,
    ApplicationRegistration,
    Erasure,
    Offboarding,
    PartnerConsent,
    WaitingToken,
)
from portal.audit.trail import Actor
from portal.incidents.service import report
from portal.microsoft.diagnosis import Owner
from portal.runs import schedule
from portal.runs.models import Run, RunItem
from portal.site.admin import PortalModelAdmin
from portal.staff import teams
from portal.staff.roles import PURPOSES, Role, rights_of
from tenants.models import PartnerTag, PartnerTenant
from tests.browser.rows_for_each_list import REGISTRATION_PAGES, fill
from tests.support import builders
from tests.support.portal import Browser
from tests.support.services import lets_in, services
from tests.support.source import COMMANDS, ROOT

DOCUMENT = ROOT / "docs/roles.md"
BEGIN, END = "<!-- tried: begin -->", "<!-- tried: end -->"
NO_ROLE = "no role"
OTHER = "Row of another team"
NO_ROW = "no row"
# What each list has alike is tried at the list of partners.
_ALIKE = ("history", "keep_filter", "remove_filter", "choose_columns")
_NEVER = ("delete",)  # nobody deletes by a page: tests/portal/site/test_admin.py
# Of the site itself: who may sign in, and what asks nothing but that.
_OF_THE_SITE = (
    "go_on",
    "login",
    "logout",
    "password_change",
    "password_change_done",
    "jsi18n",
    "view_on_site",
    "app_list",
)
_FORMS = {"ask", "do", "keep_filter", "remove_filter", "choose_columns", "save"}  # which answer to POST only
_WORDS: Mapping[str, Sequence[str]] = {
    "tenants.partnertenant: ask": ("check", "renew", "synchronise", "plan"),
    "tenants.customertenant: ask": ("read-again", "synchronise", "plan"),
    "consent.applicationregistration: do": ("owners",),
    "consent.applicationregistration: file": ("manifest.json",),
    "consent.applicationregistration: prepare_file": ("manifest.json",),
    "consent.applicationcredential: new": (next(iter(WAYS)),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """One thing that a person can ask for.

    Attributes:
        row: the row that it is about, None for a list or a page without one.
    """

    name: str
    path: str
    method: str = "GET"
    data: Mapping[str, Any] = field(default_factory=dict)
    row: Model | None = None


def rows() -> None:
    """Make a row for each list, with what ``fill`` leaves out."""
    User.objects.create_user("colleague", is_staff=True)  # the first account is no superuser
    fill()
    now = timezone.now()
    consent = PartnerConsent.objects.order_by("pk").first()
    assert consent is not None
    WaitingToken.objects.create(
        consent=consent, object_id=builders.guid(), secret_name="rt-w", expires_at=now + timedelta(days=1)
    )
    Offboarding.objects.create(partner=builders.partner(), started_by="anna", state=Offboarding.State.WAITING)
    run = Run.objects.create(kind="token_check", scope_hash="0" * 64, actor_kind="staff", actor="anna")
    RunItem.objects.create(run=run, key=consent.pk, group=consent.partner_id, label="one", turn=0, correlation_id="c")
    report("mfa_missing", about="consent:1", name="one", owner=Owner.PARTNER, words="one", subject={"partner": 1})
    schedule.tick()
    key = new_key()
    certificate, request = pem_of([self_signed(key, "one", days=30)]), request_for(key, "one")
    ApplicationCredential.objects.update(public_certificate=certificate, certificate_request=request)
    partner = Offboarding.objects.get().partner
    Erasure.objects.create(partner=partner, started_by="anna", started_at=now)
    teams.make("Europe", {"tag": [PartnerTag.objects.get(name="Europe").pk]}, actor=builders.ACTOR)


def surfaces() -> Iterator[Surface]:
    """Yield everything, in the order of its names."""
    yield Surface(name="overview", path=reverse("admin:index"))
    yield Surface(name="search", path=f"{reverse('admin:search')}?q=partner")
    yield Surface(name="running", path=reverse("admin:running"))
    named = {str(name) for one in admin.site.get_urls() if (name := getattr(one, "name", None))}
    of_models = set()
    for model, page in sorted(admin.site._registry.items(), key=lambda one: one[0]._meta.label_lower):
        assert isinstance(page, PortalModelAdmin)
        of_models |= {getattr(url, "name", None) for url in page.get_urls()}
        yield from _of(model, page)
    others = named - of_models - set(_OF_THE_SITE) - {"index", "search", "running", "autocomplete"}
    assert not others, f"pages of the site that the table does not know: {others}"


def _of(model: type[Model], page: PortalModelAdmin[Any]) -> Iterator[Surface]:
    label, prefix = model._meta.label_lower, f"{model._meta.app_label}_{model._meta.model_name}_"
    row = model._default_manager.order_by("pk").first()
    assert row is not None, f"no row of {label}"
    names = [str(url.name).removeprefix(prefix) for url in page.get_urls() if url.name]
    for name in sorted({*names, "save"} - set(_NEVER), key=_place):
        if name in _ALIKE and label != "tenants.partnertenant":
            continue
        yield from _addressed(label, prefix, name, row)
    everybody = RequestFactory().get("/")
    everybody.user = User.objects.get(username="anna")
    for name in sorted(page.get_actions(everybody)):
        if name != "export_xlsx":  # the same code as CSV
            data = {"action": name, "_selected_action": [row.pk], "index": 0}
            yield Surface(
                name=f"{label}: action {name}",
                path=reverse(f"admin:{prefix}changelist"),
                method="POST",
                data=data,
                row=row,
            )


def _place(name: str) -> tuple[int, str]:
    first = ["changelist", "add", "change", "save"]
    return (first.index(name), "") if name in first else (len(first), name)


def _addressed(label: str, prefix: str, name: str, row: Model) -> Iterator[Surface]:
    shown = {"changelist": "list", "change": "page"}.get(name, name)
    method = "POST" if name in _FORMS else "GET"
    view = "change" if name == "save" else name
    for word in _WORDS.get(f"{label}: {name}", ("",)):
        path, about = _path(prefix, view, row, word)
        path = f"{path}?{asked[name]}" if (asked := _queries().get(label, {})).get(name) else path
        yield Surface(name=f"{label}: {shown} {word}".rstrip(), path=path, method=method, row=about)


def _queries() -> Mapping[str, Mapping[str, str]]:
    """Return what is asked after the address, by model and page."""
    partner, registration = PartnerTenant.objects.first(), ApplicationRegistration.objects.first()
    assert partner is not None
    assert registration is not None
    return {
        "consent.applicationregistration": {"prepare_file": REGISTRATION_PAGES[-1].partition("?")[2]},
        "consent.consentlink": {"preview": f"partner={partner.pk}&registration={registration.pk}"},
    }


def _path(prefix: str, name: str, row: Model, word: str) -> tuple[str, Model | None]:
    """Return the address, and the row if it names one."""
    registration = ApplicationRegistration.objects.order_by("pk").first()
    full = name if name == "consent_doctor" or name.startswith("tenants_") else prefix + name
    for arguments, about in (
        ([], None),
        ([word], None),
        ([row.pk], row),
        ([row.pk, word], row),
        ([registration.pk if registration else 0, word], None),
    ):
        try:
            return reverse(f"admin:{full}", args=arguments), about
        except NoReverseMatch:
            continue
    raise AssertionError(f"no address for {full}")


class Person(Browser):
    """A member of staff who tries things; what an answer changed is taken back."""

    def __init__(self, user: User) -> None:
        super().__init__()
        self.handler.enforce_csrf_checks = False
        self.force_login(user)

    def request(self, **request: Any) -> Any:
        """Ask as the parent does, without keeping a copy of each template's context, which takes half of the time."""
        return self.handler(self._base_environ(**request))  # type: ignore[attr-defined]  # not in the stubs

    def gets(self, surface: Surface) -> bool:
        """Tell whether this is let in: no refusal, no missing row, no action that the list does not offer."""
        with transaction.atomic():
            here = {"referer": f"https://portal.localhost{surface.path}"}
            if surface.method == "POST":
                answer = self.post(surface.path, dict(surface.data), headers=here)
            else:
                answer = self.get(surface.path)
            said = " ".join(str(one) for one in get_messages(answer.wsgi_request))
            self.rows = _rows_of(answer)
            ignored = "action" in surface.data and "cl" in (getattr(answer, "context_data", None) or {})
            transaction.set_rollback(True)
        if answer.status_code == 302 and "/login/" in answer["Location"]:
            return False
        none_there = ignored or "No action selected" in said or "doesn’t exist" in said
        return answer.status_code not in {403, 404} and not none_there

    def gets_row(self, surface: Surface) -> bool:
        """Tell the same of a row; an action has to have it among those that it works on."""
        return self.gets(surface) and ("action" not in surface.data or self.rows > 0)


def _rows_of(answer: Any) -> int:
    """Return how many rows a file has, or a confirmation names."""
    if answer.streaming:
        return len(b"".join(answer.streaming_content).splitlines()) - 1
    return len((getattr(answer, "context_data", None) or {}).get("keys", ()))


def member(name: str, *roles: str) -> User:
    """Make a member of staff with these roles."""
    user = User.objects.create_user(name, is_staff=True)
    user.groups.set(user.groups.model.objects.filter(name__in=roles))
    return user


def tried_pages(roles: Collection[str]) -> dict[str, list[str]]:
    """Return which of these roles get in, by the name of each surface.

    ``OTHER`` is somebody with all roles that a member of a team can have, whose team sees another partner: it is tried
    where there is a row.
    """
    people = {role: Person(member(f"one-{number}", role)) for number, role in enumerate(roles)}
    stranger = member("stranger", *(role.value for role in Role if role is not Role.SECURITY))
    tag = PartnerTag.objects.create(name="Elsewhere")
    builders.partner().tags.add(tag)
    teams.put_into(stranger, [teams.make("Elsewhere", {"tag": [tag.pk]}, actor=builders.ACTOR)], actor=builders.ACTOR)
    other = Person(stranger)
    found: dict[str, list[str]] = {}
    for one in surfaces():
        found[one.name] = [role for role, person in people.items() if person.gets(one)]
        found[one.name] += [OTHER] if one.row is not None and other.gets_row(one) else []
        found[one.name] += [NO_ROW] if one.row is None else []
    return found


def tried_services(ask_nothing: Collection[str]) -> dict[str, list[str]]:
    """Return which roles each service lets in, by its name."""
    actors = {role: Actor.staff("somebody", None, may=rights_of(role).__contains__) for role in Role}
    return {
        name: [role for role, actor in actors.items() if lets_in(name, function, actor)]
        for name, function in sorted(services().items())
        if name not in ask_nothing
    }


def table(first: str, found: Mapping[str, Collection[str]], columns: Sequence[str]) -> str:
    lines = [f"| {first} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [f"| `{name}` | {' | '.join(_cell(one, allowed) for one in columns)} |" for name, allowed in found.items()]
    return "\n".join(lines)


def _cell(column: str, allowed: Collection[str]) -> str:
    if column == OTHER and NO_ROW in allowed:
        return ""
    return "yes" if column in allowed else "–"


def written(pages: Mapping[str, Collection[str]], asked: Mapping[str, Collection[str]]) -> str:
    """Return the part of the document that is tried."""
    roles = [role.value for role in Role]
    return "\n\n".join(
        [
            "### Roles",
            "\n".join(f"- **{role}**: {PURPOSES[role]}" for role in Role),
            "### Pages, actions and files",
            table("Page, button or action", pages, [*roles, OTHER]),
            "### Services",
            table("Service", asked, roles),
            "### Commands",
            "These need the server's shell, and no role gives it: "
            + ", ".join(f"`{path.stem}`" for path in sorted(COMMANDS, key=lambda one: one.stem))
            + ".",
        ]
    )


def in_document() -> str:
    text = DOCUMENT.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def write(part: str) -> None:
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{part}\n{END}{after}")
