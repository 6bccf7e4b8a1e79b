"""Rows as a vendor has them at full size: 10,000 partners, their customers and what was done with them.

All is made from the number of a row, so that two databases hold the same. Written for both ``tests.bench.lists`` and
its small form in the suite.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import batched
from typing import Any

from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from consent import unread
from consent.figures import count_today
from consent.models import (
    Campaign,
    CampaignPartner,
    ConsentFlow,
    ConsentLink,
    ConsentObservation,
    ConsentPlan,
    ConsentPlanItem,
    CustomerConsent,
    PartnerConsent,
    WantedGrants,
)
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.runs.models import Run, RunItem
from tenants.models import CustomerTenant, GdapRelationship, PartnerTag, PartnerTenant
from tests.support import builders

_ROWS_AT_ONCE = 5000
_LARGE = 50_000  # customers from which on indexes are quicker made at once
NOT_READY = 12  # one customer in so many
_SECOND = 20  # one partner in so many has a second application
_ACTIONS = ("token.renewed", "customers.synchronised", "link.issued", "consent.verified", "partner.changed")
_OWNERS = ("partner", "customer", "us", "microsoft")

type Row = Mapping[str, Any]


def guid(kind: int, number: int) -> str:
    """Return a GUID that says nothing but is the same each time."""
    return str(uuid.UUID(int=kind << 96 | number * 0x9E3779B97F4A7C15 % (1 << 96)))


def fill(model: type[Model], rows: Iterable[Row]) -> None:
    """Insert rows quickly; what a row does not name is the model's default."""
    quote = connection.ops.quote_name
    fields = [field for field in model._meta.concrete_fields if not field.generated]
    plain = model()
    defaults = {field.attname: field.get_db_prep_save(field.pre_save(plain, add=True), connection) for field in fields}
    columns = ", ".join(quote(str(field.column)) for field in fields)
    table, lines = quote(model._meta.db_table), (list((defaults | dict(row)).values()) for row in rows)
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for line in lines:
                    copy.write_row(line)
            # The next row that is made otherwise gets a key of its own.
            cursor.execute(f"SELECT setval(pg_get_serial_sequence(%s, 'id'), max(id)) FROM {table}", [table])  # noqa: S608
            return
        statement = f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})"  # noqa: S608
        for some in batched(lines, _ROWS_AT_ONCE):
            cursor.executemany(statement, some)


@contextmanager
def _indexes_made_at_once(tables: Iterable[str]) -> Iterator[None]:
    """Take the indexes of tables away, with triggers and foreign keys, and make them again when all rows are there."""
    names = list(tables)
    with connection.cursor() as cursor:
        before, after = (_on_postgresql if connection.vendor == "postgresql" else _on_sqlite)(cursor, names)
        for statement in before:
            cursor.execute(statement)
        yield
        for statement in after:
            cursor.execute(statement)


def _on_postgresql(cursor: Any, tables: list[str]) -> tuple[list[str], list[str]]:
    cursor.execute(
        "SELECT conrelid::regclass, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'f' AND conrelid::regclass::text = ANY(%s)",
        [tables],
    )
    keys = cursor.fetchall()
    cursor.execute(
        "SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid::regclass::text = ANY(%s)"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
        [tables],
    )
    indexes = cursor.fetchall()
    return [
        *(f"ALTER TABLE {table} DROP CONSTRAINT {name}" for table, name, _ in keys),
        *(f"DROP INDEX {name}" for name, _ in indexes),
    ], [
        "SET maintenance_work_mem = '512MB'",
        *(definition for _, definition in indexes),
        *(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}" for table, name, definition in keys),
        "RESET maintenance_work_mem",
    ]


def _on_sqlite(cursor: Any, tables: list[str]) -> tuple[list[str], list[str]]:
    cursor.execute(
        "SELECT type, tbl_name, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql > ''"
    )
    found = [(kind, name, sql) for kind, table, name, sql in cursor.fetchall() if table in tables]
    cursor.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%USING fts5%'")
    searched = [name for (name,) in cursor.fetchall() if name.removesuffix("_search") in tables]
    return [
        "PRAGMA journal_mode = OFF",
        "PRAGMA synchronous = OFF",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA cache_size = -500000",  # kB
        *(f'DROP {kind} "{name}"' for kind, name, _ in found),
    ], [
        *(sql for _, _, sql in found),
        *(f'INSERT INTO "{name}" ("{name}") VALUES (\'rebuild\')' for name in searched),  # noqa: S608
        "PRAGMA cache_size = -2000",  # its default, as in production
        "PRAGMA foreign_keys = ON",
        "PRAGMA synchronous = NORMAL",
        "PRAGMA journal_mode = WAL",
    ]


def _numbered(number: int, one: Callable[[int], Row]) -> Iterator[Row]:
    return map(one, range(1, number + 1))


@dataclass(frozen=True, slots=True)
class ManyRows:
    """Maker of the rows of each table.

    Attributes:
        partners: how many.
        customers: how many in all.
        now: when all of this is looked at.
        first, second: keys of the registrations.
        moments: by days before now, as the database takes them.
    """

    partners: int
    customers: int
    now: datetime
    first: int
    second: int
    _of_second: set[int] = field(default_factory=set)
    moments: dict[float, Any] = field(default_factory=dict)

    def _days_ago(self, days: float) -> Any:
        known = self.moments.get(days)
        if known is None:
            at = connection.ops.adapt_datetimefield_value(self.now - timedelta(days=days))
            known = self.moments[days] = at
        return known

    def partner(self, number: int) -> Row:
        domain = f"partner{number}.example.com"
        return {
            "id": number,
            "name": f"Partner {number}",
            "tenant_id": guid(1, number),
            "domain": domain,
            "kind": "indirect_provider" if number % 7 == 0 else "direct",
            "cloud": "china" if number % 97 == 0 else "global",
            "switch": "disabled" if number % 211 == 0 else "on",
            "customers_synced_at": self._days_ago(number % 100 / 50),
            "search_text": f"partner {number} {domain}",
        }

    def consent(self, number: int) -> Row:
        """One for each partner, and behind them one of the second application for each twentieth."""
        partner = number if number <= self.partners else (number - self.partners) * _SECOND
        state = "needs_consent" if number % 20 == 0 else "mfa_missing" if number % 33 == 0 else "connected"
        living = state != "needs_consent"
        return {
            "id": number,
            "partner_id": partner,
            "registration_id": self.first if number <= self.partners else self.second,
            "state": state,
            "consented_at": self._days_ago(200),
            "pinned_oid": guid(2, number),
            "generation": 1,
            "secret_name": f"rt-{number:032x}",
            "secret_version": f"{number:032x}",
            "fingerprint": "0" * 16,
            "stored_at": self._days_ago(number % 60),
            "mfa": "missing" if state == "mfa_missing" else "unproven" if number % 50 == 1 else "proven",
            "mfa_checked_at": self._days_ago(number % 48 / 24),
            "last_try_at": None if number % 300 == 7 else self._days_ago(number % 36 / 24),
            "last_class": "needs_consent" if not living else "ok",
            "last_owner": "partner" if state != "connected" else "",
            "last_code": "AADSTS50173" if number % 40 == 0 else "",
            "forecast_at": self._days_ago(-(number % 90)) if living else None,
            "forecast_cause": "idle" if living else "",
        }

    def customer(self, number: int) -> Row:
        tenant_id, domain = guid(4, number), f"customer{number}.example.com"
        not_ready = number % NOT_READY == 0
        return {
            "id": number,
            "partner_id": 1 + number % self.partners,
            "tenant_id": tenant_id,
            "partner_center_id": tenant_id,
            "company_name": f"Customer {number}",
            "domain": domain,
            "search_text": f"customer {number} {domain}",
            "first_seen_at": self._days_ago(400),
            "last_seen_at": self._days_ago(number % 240 / 100),
            "missing_since": self._days_ago(number % 30) if number % 200 == 9 else None,
            "gdap_ends_at": self._days_ago(-(number % 700)),
            "readiness": "not_ready" if not_ready else "unknown" if number % 31 == 0 else "ready",
            "readiness_reason": "There is no relationship." if not_ready else "",
            "readiness_owner": _OWNERS[number // NOT_READY % 2] if not_ready else "",
            "judged_at": self._days_ago(number % 24 / 24),
        }

    def customer_consents(self) -> Iterator[Row]:
        key = 0
        for number in range(1, self.customers + 1):
            if number % 250 != 3:  # those were never looked at
                key += 1
                yield self._customer_consent(key, number, self.first)
            if number % self.partners % _SECOND == _SECOND - 1 and number % 2:
                key += 1
                self._of_second.add(key)
                yield self._customer_consent(key, number, self.second)

    def _customer_consent(self, key: int, customer: int, registration: int) -> Row:
        state = (
            "absent"
            if customer % 25 == 0
            else "unknown"
            if customer % 101 == 0
            else "partial"
            if customer % 150 == 1
            else "differs"
            if customer % 400 == 2
            else "granted"
        )
        unread, failed = customer % 500 == 7, customer % 700 == 11
        return {
            "id": key,
            "customer_id": customer,
            "registration_id": registration,
            "state": state,
            "owner": _OWNERS[customer % 3] if state in {"partial", "differs"} else "",
            "reason": "Some permissions are missing." if state in {"partial", "differs"} else "",
            "service_principal_id": "" if state in {"absent", "unknown"} else guid(5, customer),
            "verified_at": None if state == "unknown" else self._days_ago(customer % 45),
            "requested_hash": "a" * 64 if state != "absent" else "",
            "changed_at": self._days_ago(customer % 300),
            "changed_by": "outside" if customer % 180 == 1 else "us" if customer % 9 == 0 else "first",
            "unread_since": self._days_ago(3) if unread else None,
            "unread_reason": "The role is not effective." if unread else "",
            "unread_owner": "partner" if unread else "",
            "tried_at": self._days_ago(0.5),
            "failed_at": self._days_ago(0.2) if failed else None,
            "failed_what": "apply" if failed else "",
            "failed_reason": "The relationship has ended." if failed else "",
            "failed_owner": "customer" if failed else "",
        }

    def observation(self, number: int) -> Row:
        return {
            "id": number,
            "consent_id": number,
            "registration_id": self.second if number in self._of_second else self.first,
            "observed_at": self._days_ago(number % 450 / 10),
            "state": "absent" if number % 25 == 0 else "granted",
            "changed_by": "outside" if number % 180 == 1 else "first" if number % 4 == 0 else "",
            "correlation_id": guid(6, number),
        }

    def relationship(self, number: int) -> Row:
        customer = number * 5
        return {
            "id": number,
            "partner_id": 1 + customer % self.partners,
            "relationship_id": guid(7, number),
            "customer_id": customer,
            "customer_tenant_id": guid(4, customer),
            "display_name": f"Relationship {number}",
            "status": "active",
            "ends_at": self._days_ago(-(number % 700)),
            "last_seen_at": self._days_ago(0.5),
            "first_seen_at": self._days_ago(300),
        }

    def item(self, run: int, offset: int, number: int) -> Row:
        bad = number % 50 == 0
        return {
            "id": offset + number,
            "run_id": run,
            "key": number,
            "group": 1 + number % self.partners,
            "label": f"Unit {number}",
            "turn": number // self.partners,
            "state": "done",
            "failure_class": "needs_consent" if bad else "ok",
            "message": "The partner must consent." if bad else "",
            "owner": "partner" if bad else "",
            "correlation_id": guid(3, offset + number),
            "finished_at": self._days_ago(number % 60 / 86400),
        }

    def plan_item(self, number: int) -> Row:
        done = number % 40
        return {
            "id": number,
            "plan_id": 1,
            "customer_id": number,
            "action": "blocked" if number % 30 == 0 else "create",
            "read_at": self._days_ago(1),
            "reason": "The partner must act." if number % 30 == 0 else "",
            "owner": "partner" if number % 30 == 0 else "",
            "result": "done" if done else "failed",
            "message": "" if done else "The relationship has ended.",
            "finished_at": self._days_ago(0.1),
        }

    def link(self, number: int) -> Row:
        return {
            "id": number,
            "partner_id": 1 + number % self.partners,
            "registration_id": self.first,
            "token_hash": f"{number:064x}",
            "created_at": self._days_ago(number % 60),
            "expires_at": self._days_ago(number % 60 - 14),
            "closed_at": self._days_ago(number % 60 - 0.1) if number % 3 else None,
        }

    def flow(self, number: int) -> Row:
        refused = number % 5 == 0
        return {
            "id": number,
            "link_id": 1 + number % (2 * self.partners),
            "public_id": f"{number:032x}",
            "state_hash": f"{number:064x}",
            "binder_hash": "0" * 64,
            "created_at": self._days_ago(number % 60 - 0.2),
            "expires_at": self._days_ago(number % 60 - 0.3),
            "claimed_at": self._days_ago(number % 60 - 0.2),
            "finished_at": self._days_ago(number % 60 - 0.2),
            "outcome": "refused" if refused else "connected",
            "problem": "wrong_tenant" if refused else "",
            "correlation_id": guid(8, number),
        }

    def invited(self, number: int) -> Row:
        return {"id": number, "campaign_id": 1, "partner_id": number, "link_id": number}

    def event(self, number: int) -> Row:
        partner = 1 + number % self.partners
        return {
            "id": number,
            "sequence": number,
            "at": self._days_ago(90 - number // 1000 / 100),
            "actor_kind": "system" if number % 10 else "staff",
            "actor": "portal" if number % 10 else f"anna{number % 70}",
            "action": _ACTIONS[number % len(_ACTIONS)],
            "outcome": "failed" if number % 90 == 0 else "done",
            "subject": json.dumps({"partner": partner, "tenant_id": guid(1, partner)}),
            "correlation_id": guid(9, number),
            "mac": f"{number:064x}",
        }

    def incident(self, number: int) -> Row:
        is_open = number % 3 == 0
        return {
            "id": number,
            "cause": ("wrong_tenant", "sessions_revoked", "gdap_ended")[number % 3 if not is_open else number // 3 % 3],
            "about": f"partner:{number}",
            "name": f"Partner {number}",
            "owner": _OWNERS[number % 4],
            "words": "Something happened; somebody must look.",
            "subject": json.dumps({"partner": number}),
            "first_seen_at": self._days_ago(30),
            "last_seen_at": self._days_ago(number % 200 / 10),
            "settled_at": None if is_open else self._days_ago(number % 10 / 10),
        }


def fill_database(partners: int, customers: int) -> None:
    """Fill an empty database.

    Args:
        customers: of each partner.
    """
    first, second = (builders.registration(name=name) for name in ("Control Panel", "Second Panel"))
    now = timezone.now()
    rows = ManyRows(partners, partners * customers, now, first.pk, second.pk)
    runs = [
        Run.objects.create(
            kind=kind, scope={}, scope_hash=f"bench {number}", actor_kind="command", actor="bench", total=partners
        )
        for number, kind in enumerate(["token_check", "customer_sync"] * 2)
    ]
    fill(PartnerTenant, _numbered(partners, rows.partner))
    fill(PartnerConsent, _numbered(partners + partners // _SECOND, rows.consent))
    tags = PartnerTag.objects.bulk_create(PartnerTag(name=f"Tag {number}") for number in range(3))
    fill(
        PartnerTenant.tags.through,
        (
            {"id": number, "partnertenant_id": number, "partnertag_id": tags[number % 3].pk}
            for number in range(1, partners + 1)
        ),
    )
    for number, run in enumerate(runs):
        fill(RunItem, _numbered(partners, partial(rows.item, run.pk, number * partners)))
    Run.objects.update(state=Run.State.DONE, listed_at=now, finished_at=now)
    with quickly(rows.customers, CustomerTenant, CustomerConsent, ConsentObservation, GdapRelationship):
        fill(CustomerTenant, _numbered(rows.customers, rows.customer))
        fill(CustomerConsent, rows.customer_consents())
        fill(ConsentObservation, _numbered(min(20 * partners, CustomerConsent.objects.count()), rows.observation))
        fill(GdapRelationship, _numbered(rows.customers // 10, rows.relationship))
    wanted = WantedGrants.objects.create(
        registration=first, number=1, grants={}, grants_hash="a" * 64, created_by="bench"
    )
    ConsentPlan.objects.create(
        pk=1, registration=first, wanted=wanted, created_by="bench", state=ConsentPlan.State.DONE, applied_at=now
    )
    fill(ConsentPlanItem, _numbered(rows.customers // 10, rows.plan_item))
    fill(ConsentLink, _numbered(2 * partners, rows.link))
    fill(ConsentFlow, _numbered(3 * partners, rows.flow))
    Campaign.objects.create(pk=1, name="Spring", registration=first, reason=Campaign.Reason.NEW_SCOPE, link_days=14)
    fill(CampaignPartner, _numbered(partners, rows.invited))
    fill(Incident, _numbered(max(partners * 3 // 5, 6), rows.incident))
    fill(AuditEvent, _numbered(10 * partners, rows.event))
    unread.renew()
    measure_tables()
    count_today()  # as the schedule does every ten minutes, with what was never read


def quickly(rows: int, *models: type[Model]) -> AbstractContextManager[None]:
    """Make the indexes of these models once for so many rows; of few rows as they come."""
    few = rows < _LARGE or connection.in_atomic_block
    return nullcontext() if few else _indexes_made_at_once(model._meta.db_table for model in models)


def measure_tables() -> None:
    """Let the database know its tables, as it does by itself after a while."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.in_atomic_block or connection.vendor == "sqlite" else "VACUUM ANALYZE")
