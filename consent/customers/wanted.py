"""What a registration wants in customer tenants: its versions, what a change of them will mean, and the change.

``ApplicationGrant`` rows are the present set; each set that ever was is a version, which plans name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction

from consent.customers.consents import PushRefused, check_grants, wanted_grants
from consent.customers.judging import add_to, in_chunks, judged, new_tally
from consent.grants import Grants
from consent.models import ApplicationGrant, ApplicationRegistration, ConsentPlan, WantedGrants
from consent.permissions import outside_allow_list, parse_scopes
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.identifiers import InvalidIdentifier, parse_application_id
from portal.rights import require
from tenants.models import CustomerTenant, PartnerTenant

_OVERTAKEN = "Somebody else changed the wanted grants meanwhile; look at them first."


class WantedRefused(ValueError):
    """These grants cannot be wanted; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a new set will mean."""

    grants: Grants
    added: Grants
    removed: Grants
    outside: Grants
    """What this deployment does not allow; with any of these the set is refused (S-52)."""
    counts: dict[str, int]
    """Customers by the action that a plan would show for them; ``needs_reset``: only DELETE and POST can do it."""


def current(registration: ApplicationRegistration, *, actor: Actor) -> WantedGrants:
    """Return the version of the present set; a set that has none yet gets one."""
    require(actor, "consent.add_consentplan", "consent.apply_consentplan")
    latest = _latest(registration)
    return _version_of(registration, latest, wanted_grants(registration), actor)


def parse(text: str) -> Grants:
    """Return the grants of a text with one resource a line: its application id, a colon, its permissions.

    Raises:
        WantedRefused: see :func:`tidy`; names the line.
    """
    found: dict[str, object] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        resource, colon, scopes = line.partition(":")
        if not colon:
            raise WantedRefused(f"A colon stands between resource and permissions; this line has none: {line[:60]}")
        if resource.strip() in found:
            raise WantedRefused(f"The resource {resource.strip()} stands twice; put its permissions together.")
        found[resource.strip()] = scopes
    return tidy(found)


def tidy(grants: Mapping[str, object]) -> Grants:
    """Return canonical resource ids with sorted scopes.

    Raises:
        WantedRefused: an id or a name is none, a resource stands twice, or nothing is left.
    """
    clean: dict[str, list[str]] = {}
    for resource, scopes in grants.items():
        try:
            known, names = parse_application_id(resource), parse_scopes(scopes)
        except (InvalidIdentifier, ValueError) as error:
            raise WantedRefused(str(error)) from None
        if known in clean:
            raise WantedRefused(f"The resource {known} stands twice; put its permissions together.")
        clean[known] = names
    if not clean:
        raise WantedRefused(
            "Want at least one permission. To take the consent away from customers, plan its removal instead."
        )
    return Grants(clean)


def preview(registration: ApplicationRegistration, grants: Mapping[str, object]) -> Preview:
    """Say what it will mean to want these grants: nothing is saved and nothing is sent.

    Counts all listed customers of the registration's active partners; memory stays flat, three queries a thousand.

    Raises:
        WantedRefused: see :func:`tidy`.
    """
    wanted, before = tidy(grants), wanted_grants(registration)
    tally = new_tally()
    plan = ConsentPlan(registration=registration)
    partners = PartnerTenant.objects.active().in_cloud(registration.cloud)
    for chunk in in_chunks(CustomerTenant.objects.listed().filter(partner__in=partners)):
        add_to(tally, judged(plan, [(customer, wanted) for customer in chunk]))
    return Preview(
        grants=wanted,
        added=wanted - before,
        removed=before - wanted,
        outside=outside_allow_list(wanted),
        counts=dict(tally),
    )


def change(
    registration: ApplicationRegistration, grants: Mapping[str, object], *, actor: Actor, shown_hash: str
) -> WantedGrants:
    """Want these grants from now on; nothing is sent to any customer. Returns the new version.

    Args:
        shown_hash: ``digest`` of the set that the person saw and changed.

    Raises:
        WantedRefused: outside the allow list (S-52), the same set as before, changed by somebody else meanwhile, or see
            :func:`tidy`.
    """
    require(actor, "consent.change_applicationregistration")
    wanted = tidy(grants)
    subject: dict[str, str | int] = {"registration": registration.pk, "application_id": registration.application_id}
    try:
        check_grants(wanted)
    except PushRefused as refused:
        record(
            "wanted_grants.changed",
            actor=actor,
            outcome=Outcome.REFUSED,
            subject=subject,
            details={"reason": str(refused)},
        )
        raise WantedRefused(str(refused)) from None
    with transaction.atomic():
        latest = _latest(registration)  # before the rows: the second finds its number taken
        rows = ApplicationGrant.objects.filter(registration=registration)
        before = Grants({row.resource_application_id: row.scopes for row in rows})
        if before.digest != shown_hash:
            raise WantedRefused(_OVERTAKEN)
        if before == wanted:
            raise WantedRefused("These are the grants that are wanted already.")
        if before:
            latest = _version_of(registration, latest, before, actor)
        version, first = _add_version(registration, latest, wanted, actor)
        if not first:
            raise WantedRefused(_OVERTAKEN)
        rows.delete()
        ApplicationGrant.objects.bulk_create(
            ApplicationGrant(registration=registration, resource_application_id=resource, scopes=scopes)
            for resource, scopes in wanted.items()
        )
        added, removed = wanted - before, before - wanted
        record(
            "wanted_grants.changed",
            actor=actor,
            subject=subject,
            details={"version": version.number, "added": added.to_json(), "removed": removed.to_json()},
        )
    return version


def _latest(registration: ApplicationRegistration) -> WantedGrants | None:
    return WantedGrants.objects.filter(registration=registration).first()


def _version_of(
    registration: ApplicationRegistration, latest: WantedGrants | None, grants: Grants, actor: Actor
) -> WantedGrants:
    if latest is not None and latest.grants_hash == grants.digest:
        return latest
    return _add_version(registration, latest, grants, actor)[0]


def _add_version(
    registration: ApplicationRegistration, latest: WantedGrants | None, grants: Grants, actor: Actor
) -> tuple[WantedGrants, bool]:
    """Return the version after the latest, and whether it is ours: its number is given once, by the database."""
    return WantedGrants.objects.get_or_create(
        registration=registration,
        number=latest.number + 1 if latest else 1,
        defaults={
            "grants": {resource: sorted(scopes) for resource, scopes in grants.items()},
            "grants_hash": grants.digest,
            "created_by": actor.name[:150],
        },
    )
