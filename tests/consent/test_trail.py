"""What is done with a partner leaves its entry in the audit trail: one, by its actor, with its outcome (S-55)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.db.models import BooleanField, DateTimeField

from consent import partners
from consent.containment.service import Scope, contain
from consent.invitations import links
from consent.moving_in import partners as imports
from consent.two_persons import OFFBOARD, offboarding_of
from portal.audit import walking
from portal.audit.models import AuditEvent
from portal.decisions.service import ask, refuse
from portal.microsoft.identifiers import canonical_guid
from portal.site.admin import PortalModelAdmin
from tenants.models import PartnerTenant
from tests.support import builders, custody, decisions, schema
from tests.support.commands import run
from tests.support.erasing import write_of_people
from tests.support.moving_in import csv_of, file_row
from tests.support.portal import Portal
from tests.support.staff import Staff

type Lines = list[tuple[str, str, str]]


@pytest.fixture
def new_entries() -> Callable[[], Lines]:
    """Return a function that gives the entries since its last call, each as action, outcome and kind of actor."""
    seen = 0

    def entries() -> Lines:
        nonlocal seen
        rows = list(AuditEvent.objects.order_by("sequence").values_list("action", "outcome", "actor_kind"))
        new, seen = rows[seen:], len(rows)
        return new

    return entries


@pytest.mark.req("S-55")
def test_each_thing_that_is_done_leaves_one_entry(portal: Portal, new_entries: Callable[[], Lines]) -> None:
    new_entries()
    partner = portal.partner

    portal.onboard(accept=False)
    assert new_entries() == [
        ("link.issued", "done", "command"),
        ("flow.started", "done", "link"),
        ("flow.refused", "refused", "link"),
    ]
    portal.onboard()
    assert new_entries() == [
        ("link.issued", "done", "command"),
        ("flow.started", "done", "link"),
        ("token.stored", "done", "link"),
    ]
    custody.make_due(portal.consent())
    custody.ask(portal.consent(), fresh=True)
    assert new_entries() == [("token.stored", "done", "system")]
    assert run("get_access_token", partner.tenant_id, "graph").code == 0
    assert new_entries() == [("token.handed_out", "done", "command")]
    assert run("check_tokens").code == 0
    assert new_entries() == [
        ("run.started", "done", "command"),
        ("run.finished", "done", "command"),
    ]
    link, _ = links.issue(partner, portal.registration, actor=builders.ACTOR)
    links.extend(link, lifetime=timedelta(days=30), actor=builders.ACTOR)
    links.revoke(link, actor=builders.ACTOR)
    assert [action for action, *_ in new_entries()] == ["link.issued", "link.extended", "link.revoked"]
    partners.disable(PartnerTenant.objects.get(), actor=builders.ACTOR)
    partners.enable(PartnerTenant.objects.get(), actor=builders.ACTOR)
    partners.disable(PartnerTenant.objects.get(), actor=builders.ACTOR)
    assert [action for action, *_ in new_entries()] == ["partner.disabled", "partner.enabled", "partner.disabled"]
    assert run("erase_tokens", partner.tenant_id, "--why", "It is meant.").code == 1
    decisions.approve()
    assert new_entries() == [("decision.asked", "done", "command"), ("decision.approved", "done", "staff")]
    assert run("erase_tokens", partner.tenant_id).code == 0
    assert new_entries() == [("partner.tokens_erased", "done", "command"), ("decision.done", "done", "command")]
    assert walking.first_broken_sequence() is None


# --- what the trail keeps for ever ----------------------------------------------------------------------------------


def leaves(value: Any) -> Iterator[str]:
    """Yield each text in a value of JSON."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, str):
        yield value.casefold()


def personal_values() -> dict[str, set[str]]:
    """Return the texts in all personal columns of all tables but the trail's, by column; ids and names of staff apart.

    Ids are what the trail may keep, and who of staff did what is what it is for.
    """
    by_design = {name.casefold() for name in User.objects.values_list("username", flat=True)}
    by_design |= {name.casefold() for name in AuditEvent.objects.values_list("actor", flat=True)}
    personal, found = schema.described().personal, dict[str, set[str]]()
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.concrete_fields:
            column = f"{model._meta.db_table}.{field.column}"
            if model is AuditEvent or column not in personal or field.is_relation:
                continue
            rows = model._default_manager.values_list(field.attname, flat=True).distinct().order_by()
            texts = {row.casefold() for row in rows if isinstance(row, str)} - by_design
            found[column] = {text for text in texts if len(text) > 2 and not canonical_guid(text)}
    return found


def write_of_partners(portal: Portal) -> None:
    """Let staff write down names wherever they can, by the ways of every day."""
    partner = PartnerTenant.objects.get()
    write_of_people(portal)
    staff = Staff()
    form: dict[str, object] = {
        "name": "Levin Estates", "domain": "levin.example", "kind": "direct", "notes": "Konstantin mows himself",
        "contacts-TOTAL_FORMS": 0, "contacts-INITIAL_FORMS": 0,
    }  # fmt: skip
    new = form | {"name": "Oblonsky Rail", "domain": "oblonsky.example", "tenant_id": builders.guid()}
    assert staff.post("/admin/tenants/partnertenant/add/", new | {"cloud": "global"}).status_code == 302
    imported = imports.read(
        csv_of(file_row("Karenin Law", builders.guid(), Domain="karenin.example", Notes="Alexei answers")),
        file_name="Karenins list.csv",
        actor=builders.ACTOR,
    )
    imports.apply(imported, actor=builders.ACTOR)
    account = {"username": "stiva", "email": "stiva@oblonsky.example", "first_name": "Stepan", "is_staff": "on"}
    staff.post("/admin/auth/user/add/", {"username": "stiva", "usable_password": "false"})
    staff.post(f"/admin/auth/user/{User.objects.get(username='stiva').pk}/change/", account)
    decision, _ = ask(OFFBOARD, offboarding_of(partner), why="Anna Arkadyevna has left", actor=builders.ACTOR)
    refuse(decision, person=decisions.second_person(), answer="Vronsky says no")
    contain(Scope(partner=partner), reason="Betsy Tverskaya called", actor=builders.ACTOR)
    known = partner.contacts.get()
    contacts: dict[str, object] = {
        "contacts-TOTAL_FORMS": 2, "contacts-INITIAL_FORMS": 1, "contacts-0-id": known.pk,
        "contacts-0-partner": partner.pk, "contacts-0-name": "Darya Oblonskaya", "contacts-0-email": known.email,
        "contacts-1-partner": partner.pk, "contacts-1-name": "Kitty Shcherbatskaya",
        "contacts-1-email": "kitty@levin.example",
    }  # fmt: skip
    assert staff.post(f"/admin/tenants/partnertenant/{partner.pk}/change/", form | contacts).status_code == 302


@pytest.mark.req("S-68")
@pytest.mark.req("S-70")
@pytest.mark.django_db(transaction=True)
def test_no_value_of_a_personal_column_of_any_table_stands_in_an_entry(portal: Portal) -> None:
    portal.onboard()
    assert run("sync_customers").code == 0
    write_of_partners(portal)

    known = personal_values()
    told = {leaf for row in AuditEvent.objects.values_list("details", "subject") for leaf in leaves(list(row))}

    assert {"levin estates", "oblonsky rail", "karenin law"} <= known["tenants_partnertenant.name"]
    for column, text in (
        ("tenants_partnercontact.email", "kitty@levin.example"),
        ("consent_containment.reason", "betsy tverskaya called"),
        ("decisions_decision.why", "anna arkadyevna has left"),
        ("auth_user.email", "stiva@oblonsky.example"),
    ):
        assert text in known[column], "the walk has not written this"
    found = {
        (column, text)
        for column, texts in known.items()
        for text in texts
        if any(text == leaf or (len(text) > 7 and text in leaf) for leaf in told)
    }
    assert found == set()


@pytest.mark.req("S-68")
def test_no_form_that_saves_by_itself_writes_a_personal_column_into_the_trail() -> None:
    personal = schema.described().personal
    for model, page in site._registry.items():
        if isinstance(page, PortalModelAdmin) and page.audit_word:
            names = {
                field.name
                for field in model._meta.concrete_fields
                if field.editable
                and not isinstance(field, BooleanField | DateTimeField)
                and f"{model._meta.db_table}.{field.column}" in personal
            }
            assert names <= {*page.audit_without_values}, model
