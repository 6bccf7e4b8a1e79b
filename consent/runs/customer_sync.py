"""Mirroring partners' customers and GDAP relationships as a kind of bulk work: each page is stored as it comes.

One partner's lists are read one page after the other, so a partner never has more than one call of its sync at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from consent import clients
from consent.customers.consents import own_groups
from consent.models import ApplicationRegistration, PartnerConsent
from consent.models.tokens import PartnerConsentQuerySet
from consent.naming import line_names
from consent.selection import EVERYTHING, WORDS, Selection
from consent.tokens.checking import blame_of
from consent.tokens.custody import TokenUnavailable
from consent.tokens.health import refresh_partner
from consent.tokens.renewal import Renewal
from consent.tokens.service import Audience
from consent.tokens.versions import IdentityMismatch
from consent.uses.book import By, Purpose
from portal.incidents import service as incidents
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import AccessDenied, ConsentRequired, RemoteError
from portal.microsoft.identifiers import CorrelationId
from portal.microsoft.secret import Secret
from portal.runs.kinds import Contained, Context, Done, Kind, Outcome, Unit
from tenants.gdap_sync import note_unread, sync_relationships
from tenants.models import PartnerTenant
from tenants.readiness import UNREAD
from tenants.sync import TooManyMissing, sync_customers

NOT_CONSENTED = "not_consented"
TOO_MANY = "customers_missing"  # causes of incidents
ODD = "list_items_odd"


@dataclass(slots=True)
class Sync:
    """One partner, and its consent whose token reads the lists."""

    partner: PartnerTenant
    consent: PartnerConsent | None
    mismatch: str = ""


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the chosen partners that have a usable token, those that were mirrored longest ago first."""
    chosen = Selection.from_json(scope)
    rows = (
        chosen.partners()
        .filter(pk__gt=after, pk__in=doors(chosen).values("partner"))
        .order_by("pk")
        .values_list("pk", "name", "customers_synced_at")[:limit]
    )
    return [
        Unit(key=key, group=key, label=name, rank=int(synced.timestamp()) if synced else 0)
        for key, name, synced in rows
    ]


def load(keys: Sequence[int], context: Context) -> dict[int, Sync]:
    """Read partners and consents again, immediately before use.

    The lists are the partner's, whichever application reads them. So without a chosen one a token that works is
    preferred, then the older consent: a second product never takes over by itself.
    """
    consents: dict[int, PartnerConsent] = {}
    readable = doors(Selection.from_json(context.scope)).filter(partner__in=keys)
    for consent in readable.order_by("-pk").with_all_for_calls():
        known = consents.get(consent.partner_id)
        if known is None or _works(consent) or not _works(known):
            consents[consent.partner_id] = consent
    return {
        partner.pk: Sync(partner, consents.get(partner.pk))
        for partner in PartnerTenant.objects.active().filter(pk__in=keys)
    }


def doors(chosen: Selection = EVERYTHING) -> PartnerConsentQuerySet:
    """Return the consents whose tokens may read the lists."""
    doors = PartnerConsent.objects.usable().filter(registration__state=ApplicationRegistration.State.ACTIVE)
    return doors if chosen.registration is None else doors.filter(registration=chosen.registration)


def _works(consent: PartnerConsent) -> bool:
    return consent.state in {PartnerConsent.State.CONNECTED, PartnerConsent.State.MFA_MISSING}


def work(key: int, sync: Sync, context: Context) -> Outcome:
    """Mirror the partner's customers, as far as they can be read; see ``tenants.sync``."""
    consent = sync.consent
    correlation_id = CorrelationId(context.correlation_id(key))
    registration = None if consent is None else consent.registration
    fields = {**line_names(sync.partner, registration), "correlation_id": correlation_id}
    if consent is None:
        words = f"{sync.partner.name} has not consented yet; send it a link."
        return _failed(NOT_CONSENTED, words, Owner.US, fields)
    about, force = f"partner:{sync.partner.pk}", bool(context.options.get("force"))
    try:
        by = By(actor=context.actor, purpose=Purpose.SYNC, run=context.run_id)
        token = _token(sync, consent, Audience.PARTNER_CENTER, by, correlation_id)
        source = clients.tokens().held(consent, token)
        client = clients.partner_center(clients.cloud(sync.partner.cloud), source, correlation_id)
        report = sync_customers(sync.partner, client, actor=context.actor, force=force)
        counts = {"listed": report.listed, "new": report.created, "missing": report.missing}
        gdap = _relationships(sync, consent, by, correlation_id, force=force)
    except (TokenUnavailable, IdentityMismatch) as error:
        return _failed("skipped", str(error), Owner.US, fields)
    except TooManyMissing as error:
        incidents.report(
            TOO_MANY,
            about=about,
            name=sync.partner.name,
            owner=Owner.US,
            words=str(error),
            subject={"partner": sync.partner.pk},
        )
        return _failed("held_back", str(error), Owner.US, fields)
    except RemoteError as error:
        failed = Outcome.of(diagnose(error), error)
        blame = None if failed.systemic else blame_of(consent, error)
        return _with_line(replace(failed, blame=blame), fields)
    incidents.settle(TOO_MANY, about=about)
    if odd := [*report.odd, *gdap.pop("odd", [])]:
        return _odd(sync.partner, odd, fields | counts | gdap)
    incidents.settle(ODD, about=about)
    return Outcome(fields=fields | {"ok": True} | counts | gdap)


def _odd(partner: PartnerTenant, odd: Sequence[str], fields: Mapping[str, Any]) -> Outcome:
    """Name the items that could not be read; the rest is stored. The incident repeats no text from outside."""
    number = "One item" if len(odd) == 1 else f"{len(odd)} items"
    were = "was" if len(odd) == 1 else "were"
    left_out = f"{number} of Microsoft's lists could not be read and {were} left out, and nothing was marked missing"
    incidents.report(
        ODD,
        about=f"partner:{partner.pk}",
        name=partner.name,
        owner=Owner.US,
        words=f"{left_out}. The partner's latest customer sync names them. Report them to Microsoft.",
        subject={"partner": partner.pk},
    )
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    words = f"{left_out}: {'; '.join(odd[:3])}{more}. All others were stored. Report them to Microsoft."
    return _failed(ODD, words, Owner.US, {**fields, "odd": list(odd)})


def _relationships(
    sync: Sync, consent: PartnerConsent, by: By, correlation_id: CorrelationId, *, force: bool
) -> dict[str, Any]:
    """Mirror the partner's relationships; where its permissions do not show them, its customers' readiness says so."""
    cloud = clients.cloud(sync.partner.cloud)
    try:
        token = _token(sync, consent, Audience.GRAPH, by, correlation_id)
        source = clients.tokens().held(consent, token)
        report = sync_relationships(
            sync.partner,
            clients.gdap(cloud, source, correlation_id),
            actor=by.actor,
            accepted=settings.GDAP_ACCEPTED_ROLES,
            own_groups=own_groups(clients.account(cloud, source, correlation_id)),
            own_tenants={consent.registration.home_tenant_id},
            force=force,
        )
    except (AccessDenied, ConsentRequired) as error:
        if isinstance(error, ConsentRequired) and not diagnose(error).not_consented:
            raise
        note_unread(sync.partner)
        return {"relationships": None, "unverified": UNREAD}
    refresh_partner(sync.partner)
    return {
        "relationships": report.relationships,
        "assignments": report.assignments,
        "gdap_missing": report.missing,
        "odd": report.odd,
    }


def _token(sync: Sync, consent: PartnerConsent, audience: Audience, by: By, correlation_id: CorrelationId) -> Secret:
    """Return an access token of this partner, once for the whole list. The rotated one is dropped: checks renew."""
    service, redemption = clients.tokens(), Renewal(consent, consent.partner.tenant, correlation_id, by)
    if service.rotation.spends_stored:  # then each redemption is a renewal, with all that belongs to it
        return service.access_token(consent, audience, by=by, correlation_id=correlation_id)
    try:
        return service.redeem(redemption, audience).access_token
    finally:
        sync.mismatch = redemption.mismatch


def _failed(failure_class: str, words: str, owner: Owner, fields: Mapping[str, Any]) -> Outcome:
    return _with_line(Outcome(failure_class=failure_class, message=words, owner=owner.value), fields)


def _with_line(failed: Outcome, fields: Mapping[str, Any]) -> Outcome:
    why = {"ok": False, "class": failed.failure_class, "error": failed.message, "owner": failed.owner}
    return replace(failed, fields={**fields, **why})


def write(done: Sequence[Done], context: Context) -> None:
    """Stop whom another identity was found for; the customers were stored page by page."""
    custody = clients.renewals()
    for each in done:
        sync: Sync = each.subject
        if sync.mismatch and sync.consent is not None:
            custody.stop(sync.consent, sync.mismatch, CorrelationId(context.correlation_id(each.key)))


def contained(sync: Sync) -> Contained | None:
    return None if sync.consent is None else clients.gate().stop(sync.partner.pk, sync.consent.registration_id)


def place(sync: Sync) -> tuple[str, str]:
    return "" if sync.consent is None else sync.consent.registration.application_id, sync.partner.cloud


CUSTOMER_SYNC = Kind(
    name="customer_sync",
    label="Customer sync",
    words={**WORDS, "force": "Customers are marked missing also when they are very many"},
    units=units,
    load=load,
    work=work,
    rights=("tenants.sync_partnertenant",),
    write=write,
    repeats=True,
    prepare=clients.shared_by_all,
    place=place,
    book=lambda context: clients.uses().write_run(context.run_id),
    contained=contained,
    all_contained=lambda: clients.gate().stop_of_all(),
    seconds=3600.0,  # 100,000 customers and as many relationships are 5,500 calls
    uses_database=True,
)
