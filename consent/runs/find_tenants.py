"""Which tenants have the domains of an import's rows, asked at the sign-in service; for staff to confirm (S-04)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from consent import clients
from consent.microsoft.entra import FoundTenant, find_tenant
from consent.models import PartnerImport, PartnerImportRow
from consent.moving_in.partners import note_found
from portal.audit.trail import Actor
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId
from portal.rights import require
from portal.runs import service
from portal.runs.kinds import Context, Done, Kind, Outcome, Unit
from portal.runs.models import Run

NO_TENANT = "no_tenant"
_CONCURRENCY = 8


def start_finding(imported: PartnerImport, *, actor: Actor, **more: Any) -> tuple[Run, bool]:
    """Return the run that looks for the tenants of this import's domains, and whether it is new."""
    require(actor, "tenants.add_partnertenant")
    scope = {"partner_import": imported.pk}
    return service.start(FIND_TENANTS, scope=scope, actor=actor, **{"concurrency": _CONCURRENCY, **more})


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the rows whose tenant was not looked for yet."""
    rows = PartnerImportRow.objects.to_find().filter(imported=scope["partner_import"], pk__gt=after)
    chosen = rows.order_by("pk").values_list("pk", "number", "domain")[:limit]
    return [Unit(key=key, group=key, label=f"Row {number}: {domain}"[:200]) for key, number, domain in chosen]


def load(keys: Sequence[int], context: Context) -> dict[int, PartnerImportRow]:
    """Read the rows again."""
    return {row.pk: row for row in PartnerImportRow.objects.to_find().filter(pk__in=keys)}


def work(key: int, row: PartnerImportRow, context: Context) -> Outcome:
    """Ask the clouds' sign-in hosts, one after the other. No query."""
    correlation_id = CorrelationId(context.correlation_id(key))
    try:
        tenant = find_tenant(clients.session(), clients.clouds(), row.domain, correlation_id)
    except RemoteError as error:
        return Outcome.of(diagnose(error), error)
    if tenant is None:
        words = "No tenant of any cloud has this domain."
        return Outcome(failure_class=NO_TENANT, message=words, owner=Owner.US, result=None)
    return Outcome(result=tenant)


def write(done: Sequence[Done], context: Context) -> None:
    """Note what was found with each row; a row whose question failed can be asked again."""
    asked = [(each.subject, each.outcome) for each in done]
    found = [
        (row, outcome.result.tenant_id, outcome.result.cloud.key)
        for row, outcome in asked
        if isinstance(outcome.result, FoundTenant)
    ]
    note_found([*found, *((row, "", "") for row, outcome in asked if outcome.failure_class == NO_TENANT)])


FIND_TENANTS = Kind(
    name="find_tenants",
    label="Search for tenants by domain",
    units=units,
    load=load,
    work=work,
    rights=("tenants.add_partnertenant",),
    write=write,
    seconds=30.0,
)
