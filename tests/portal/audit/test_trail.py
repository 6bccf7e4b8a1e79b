"""The audit trail: append only by every way, and a chain that shows what was done to it.

Covers: portal.audit.models, portal.audit.triggers.
"""

# ruff: noqa: S608  # the statements are ours
from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction

from portal.audit import trail, walking
from portal.audit.models import AppendOnly, AuditEvent
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.audit_table import TABLE, sql, without_triggers

pytestmark = pytest.mark.django_db


def write(number: int, action: str = "thing.happened") -> list[AuditEvent]:
    return [
        trail.record(action, actor=builders.ACTOR, subject={"thing": index}, details={"after": index})
        for index in range(number)
    ]


# --- append only --------------------------------------------------------------------------------------------------


@pytest.mark.req("S-56")
def test_the_model_offers_no_way_to_change_or_remove_an_event() -> None:
    event, _ = write(2)
    for attempt in (
        event.save,
        event.delete,
        lambda: AuditEvent.objects.update(action="x"),
        lambda: AuditEvent.objects.filter(pk=event.pk).update(action="x"),
        lambda: AuditEvent.objects.all().delete(),
        lambda: AuditEvent.objects.bulk_update([event], ["action"]),
        lambda: AuditEvent.objects.bulk_create([event], ignore_conflicts=True),
        lambda: AuditEvent.objects.update_or_create(pk=event.pk, defaults={"action": "x"}),
        lambda: AuditEvent.objects.get_or_create(pk=event.pk),
        AuditEvent.objects.get(pk=event.pk).save,
    ):
        with pytest.raises(AppendOnly):
            attempt()
    assert AuditEvent.objects.count() == 2
    assert walking.first_broken_sequence() is None


@pytest.mark.req("S-56")
@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {TABLE} SET action = 'x'",
        f"UPDATE {TABLE} SET action = 'x' WHERE sequence = 2",
        f"DELETE FROM {TABLE}",
        f"DELETE FROM {TABLE} WHERE sequence = 3",
        "replace",
        "truncate",
    ],
)
def test_the_database_itself_refuses_raw_sql(statement: str) -> None:
    write(3)
    columns = (
        "id, sequence, at, actor_kind, actor, action, outcome, subject, details, correlation_id, previous_mac, mac"
    )
    forged = f"SELECT {columns.replace(' action', chr(32) + chr(39) + 'x' + chr(39))} FROM {TABLE} WHERE sequence = 2"
    if statement == "replace":
        statement = (
            f"INSERT OR REPLACE INTO {TABLE} ({columns}) {forged}"
            if connection.vendor == "sqlite"
            else f"INSERT INTO {TABLE} ({columns}) {forged} ON CONFLICT (id) DO UPDATE SET action = 'x'"
        )
    elif statement == "truncate":
        statement = f"DELETE FROM {TABLE} WHERE 1" if connection.vendor == "sqlite" else f"TRUNCATE {TABLE}"

    with pytest.raises(DatabaseError, match="append only"), transaction.atomic():
        sql(statement)

    assert list(AuditEvent.objects.order_by("sequence").values_list("sequence", "action")) == [
        (1, "thing.happened"),
        (2, "thing.happened"),
        (3, "thing.happened"),
    ]
    assert walking.first_broken_sequence() is None


@pytest.mark.req("S-58")
def test_what_cannot_be_recorded_does_not_happen() -> None:
    partner = builders.partner(name="Before")

    @transaction.atomic
    def change() -> None:
        PartnerTenant.objects.update(name="After")
        trail.record("partner.changed", actor=builders.ACTOR, subject={"partner": partner.pk}, details={"x": object()})

    with pytest.raises(TypeError):
        change()
    assert PartnerTenant.objects.get().name == "Before"
    assert not AuditEvent.objects.exists()


# --- the chain ----------------------------------------------------------------------------------------------------


@pytest.mark.req("S-57")
def test_an_untouched_chain_is_whole_and_starts_at_one() -> None:
    assert walking.first_broken_sequence() is None
    events = write(4)
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    assert events[0].previous_mac == ""
    assert [event.previous_mac for event in events[1:]] == [event.mac for event in events[:-1]]
    assert walking.first_broken_sequence() is None


@pytest.mark.req("S-57")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("statements", "broken"),
    [
        ([f"UPDATE {TABLE} SET action = 'x' WHERE sequence = 3"], 3),
        ([f"UPDATE {TABLE} SET outcome = 'refused' WHERE sequence = 3"], 3),
        ([f"UPDATE {TABLE} SET actor = 'somebody' WHERE sequence = 1"], 1),
        ([f"UPDATE {TABLE} SET actor_kind = 'staff' WHERE sequence = 2"], 2),
        ([f"UPDATE {TABLE} SET address = '192.0.2.1' WHERE sequence = 2"], 2),
        ([f"""UPDATE {TABLE} SET subject = '{{"thing": 9}}' WHERE sequence = 4"""], 4),
        ([f"""UPDATE {TABLE} SET details = '{{}}' WHERE sequence = 5"""], 5),
        ([f"UPDATE {TABLE} SET correlation_id = 'x' WHERE sequence = 5"], 5),
        ([f"UPDATE {TABLE} SET at = '2020-01-01 00:00:00' WHERE sequence = 5"], 5),
        ([f"UPDATE {TABLE} SET mac = 'x' WHERE sequence = 5"], 5),
        ([f"DELETE FROM {TABLE} WHERE sequence = 3"], 3),
        ([f"DELETE FROM {TABLE} WHERE sequence = 1"], 1),
        (
            [
                f"DELETE FROM {TABLE} WHERE sequence = 3",
                f"UPDATE {TABLE} SET sequence = 3 WHERE sequence = 4",
                f"UPDATE {TABLE} SET sequence = 4 WHERE sequence = 5",
            ],
            3,
        ),
        (
            [
                f"UPDATE {TABLE} SET sequence = 99 WHERE sequence = 2",
                f"UPDATE {TABLE} SET sequence = 2 WHERE sequence = 3",
                f"UPDATE {TABLE} SET sequence = 3 WHERE sequence = 99",
            ],
            2,
        ),
    ],
)
def test_the_chain_names_the_first_entry_that_was_tampered_with(statements: list[str], broken: int) -> None:
    write(5)
    with without_triggers():
        for statement in statements:
            sql(statement)
    assert walking.first_broken_sequence() == broken


@pytest.mark.req("S-57")
@pytest.mark.django_db(transaction=True)
def test_a_splice_of_two_genuine_chains_shows_although_each_entry_has_its_true_mac() -> None:
    """Two copies of a database went on apart; the tail of one is put behind the head of the other."""
    write(2)
    write(2, "branch.one")
    one = list(AuditEvent.objects.filter(sequence__gt=2).order_by("sequence").values())
    with without_triggers():
        sql(f"DELETE FROM {TABLE} WHERE sequence > 2")
    write(2, "branch.two")
    with without_triggers():
        sql(f"DELETE FROM {TABLE} WHERE sequence = 4")
    AuditEvent(**one[1]).save(force_insert=True)
    assert [event.action for event in AuditEvent.objects.order_by("sequence")][2:] == ["branch.two", "branch.one"]
    assert walking.first_broken_sequence() == 4


@pytest.mark.req("S-57")
def test_an_entry_written_past_the_trail_shows() -> None:
    last = write(2)[-1]
    AuditEvent.objects.create(
        sequence=3,
        at=datetime.now(UTC),
        actor_kind="system",
        actor="portal",
        action="thing.invented",
        outcome="done",
        previous_mac=last.mac,
        mac="0" * 64,
    )
    assert walking.first_broken_sequence() == 3


@pytest.mark.req("S-57")
def test_the_chain_cannot_be_computed_without_the_key(settings: Any) -> None:
    write(2)
    settings.INTEGRITY_KEY = "another key, another key, another key, another key"
    assert walking.first_broken_sequence() == 1


@pytest.mark.req("S-57")
@pytest.mark.django_db(transaction=True)
def test_eight_parallel_writers_leave_a_valid_chain() -> None:
    together = threading.Barrier(8)

    def writer(_: int) -> None:
        try:
            together.wait(10)
            write(5)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(writer, range(8)))

    assert AuditEvent.objects.count() == 40
    assert walking.first_broken_sequence() is None


@pytest.mark.req("S-57")
def test_values_of_every_kind_read_back_as_they_were_sealed() -> None:
    trail.record(
        "thing.changed",
        actor=trail.Actor.staff("Åsa", "2001:db8::1"),
        outcome=trail.Outcome.INTENT,
        subject={"tenant_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "partner": 2**40},
        details={
            "none": None,
            "yes": True,
            "float": 0.25,
            "text": "株式会社 🚀",
            "nested": {"set": {"b", "a"}, "tuple": (1, 2)},
            "empty": "",
        },
        correlation_id="11111111-1111-4111-8111-111111111111",
    )
    event = AuditEvent.objects.get()
    assert event.details["nested"] == {"set": ["a", "b"], "tuple": [1, 2]}
    assert walking.first_broken_sequence() is None


# --- what enters --------------------------------------------------------------------------------------------------


@pytest.mark.req("S-31")
@pytest.mark.parametrize(
    "details",
    [
        {"token": Secret("canary")},
        {"deep": [{"token": Secret("canary")}]},
        {"bytes": b"canary"},
        {"row": PartnerTenant()},
    ],
    ids=["secret", "nested secret", "bytes", "model"],
)
def test_a_secret_or_a_foreign_object_never_enters(details: dict[str, Any]) -> None:
    with pytest.raises(TypeError) as caught:
        trail.record("thing.happened", actor=builders.ACTOR, subject={}, details=details)
    assert "canary" not in str(caught.value)
    assert not AuditEvent.objects.exists()


@pytest.mark.req("S-59")
@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "a\x1b[2Jb", "a\x00b", "a\u202eb", "a\u2066b", "a\u200bb", "a\x85b", "a\ud800b"]
)
def test_control_and_bidi_characters_are_replaced_in_every_text(text: str) -> None:
    trail.record("thing.happened", actor=trail.Actor.staff(text, None), subject={"tenant": text}, details={"d": [text]})
    event = AuditEvent.objects.get()
    for shown in (event.actor, event.subject["tenant"], event.details["d"][0]):
        assert shown.startswith("a�")
        assert shown.isprintable()
    assert walking.first_broken_sequence() is None


def test_long_texts_are_cut_and_events_are_found_by_what_they_are_about() -> None:
    trail.record(
        "thing.happened",
        actor=trail.Actor.staff("n" * 999, None),
        subject={"partner": 7, "link": 1},
        details={"t": "x" * 999},
    )
    trail.record("thing.happened", actor=trail.SYSTEM, subject={"partner": 8})
    event = AuditEvent.objects.about(partner=7, link=1).get()
    assert (len(event.actor), len(event.details["t"])) == (150, 300)
    assert not AuditEvent.objects.about(partner=7, link=2).exists()
    assert str(event) == "1: thing happened, done"


def test_a_command_is_recorded_with_its_name_and_the_user_of_the_system() -> None:
    actor = trail.Actor.command("sync_customers")
    assert actor.kind == "command"
    assert actor.name.startswith("sync_customers (")


@pytest.mark.django_db
@pytest.mark.req("R-29")
def test_the_events_of_a_partner_are_found_by_an_index() -> None:
    wanted = trail.record("a.b", actor=trail.SYSTEM, subject={"partner": 7, "link": 1})
    for subject in ({"partner": 77}, {"link": 7}, {}):
        trail.record("a.b", actor=trail.SYSTEM, subject=subject)
    found = AuditEvent.objects.about(partner=7)
    assert list(found) == [wanted]
    assert not AuditEvent.objects.about(partner=7, link=2).exists()
    if connection.vendor == "sqlite":  # PostgreSQL reads a table of four rows
        assert "audit_of_partner" in found.explain()
