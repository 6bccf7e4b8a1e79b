"""The door for the control panel vendor's own programs: one function that gives one access token.

docs/access-tokens.md has worked examples, and what each failure means. Refresh tokens never pass this door.
"""

from __future__ import annotations

from consent import clients
from consent.models import ApplicationRegistration, PartnerConsent
from consent.naming import SeveralRegistrations as SeveralRegistrations
from consent.naming import UnknownRegistration as UnknownRegistration
from consent.naming import listed, registration_named
from consent.tokens.custody import TokenUnavailable
from consent.tokens.service import Audience
from consent.tokens.service import Contained as Contained
from consent.uses.book import By, Purpose
from portal.audit.trail import Actor, record
from portal.microsoft.identifiers import new_correlation_id, parse_tenant_id
from portal.microsoft.secret import Secret
from portal.rights import SERVER, require
from tenants.models import CustomerTenant, PartnerTenant

PROGRAM = "python"


class UnknownTenant(LookupError):
    """The portal knows no such partner, or no such customer of this partner; nothing was sent."""


def get_access_token(
    partner: str,
    audience: Audience | str,
    *,
    registration: str = "",
    customer: str = "",
    fresh: bool = False,
    actor: Actor | None = None,
    to: str = "a program",
) -> Secret:
    """Return an access token for one partner that is good for five minutes at least.

    Each use is audited, before the token leaves (S-58). Ask again before each piece of work: this process keeps a token
    until shortly before its end, so asking costs nothing, and a partner that was disabled meanwhile is refused.

    Args:
        partner: the partner's tenant id, a GUID.
        audience: an :class:`~consent.tokens.service.Audience` or its value, such as ``"graph"``.
        registration: which of our applications acts: its application id, or its number. Needed as soon as the partner
            consented to more than one.
        customer: a customer's tenant id: the token is then for the customer's tenant.
        fresh: redeem even if this process has a good one, because an API refused that one.
        actor: who asks, for the audit trail; by default the user of the operating system.
        to: where it goes, for the audit trail.

    Raises:
        ValueError: no tenant id, no audience, or one that this cloud does not have.
        UnknownTenant: no such partner or customer.
        UnknownRegistration: no such application registration, or it is of another cloud than the partner.
        SeveralRegistrations: the partner consented to several and none was named; the text lists them.
        Contained: an emergency stop is on; ask again when staff have resumed.
        TokenUnavailable: the partner may not be used; says why and what to do. Nothing was sent, or nothing is left.
        IdentityMismatch: a token of somebody else; the partner was stopped.
        RemoteError: what the vault or the sign-in service answered; its class says who acts.
    """
    actor = actor or Actor.command(PROGRAM)
    require(actor, SERVER)
    wanted = Audience(audience)
    owner = PartnerTenant.objects.filter(tenant_id=parse_tenant_id(partner)).first()
    if owner is None:
        raise UnknownTenant("No partner with this tenant id.")
    managed = None
    if customer:
        tenant_id = parse_tenant_id(customer)
        managed = CustomerTenant.objects.for_partner(owner).filter(tenant_id=tenant_id).first()
        if managed is None:
            raise UnknownTenant(f"{owner.name} has no such customer; synchronise its customers first.")
    consent = consent_of(owner, registration_named(registration, cloud=owner.cloud) if registration else None)
    correlation_id = new_correlation_id()
    by = By(actor=actor or Actor.command(PROGRAM), purpose=Purpose.PROGRAM)
    token = clients.tokens().access_token(
        consent, wanted, by=by, customer=managed, fresh=fresh, correlation_id=correlation_id
    )
    record(
        "token.handed_out",
        actor=by.actor,
        subject={
            "partner": owner.pk,
            "consent": consent.pk,
            "registration": consent.registration_id,
            "customer": managed.pk if managed else 0,
        },
        details={"audience": wanted.value, "to": to},
        correlation_id=correlation_id,
    )
    return token


def consent_of(partner: PartnerTenant, registration: ApplicationRegistration | None = None) -> PartnerConsent:
    """Return the partner's consent to this registration; without one, the only consent that the partner ever gave.

    A consent that was disconnected counts as well: a program of one product must not act as another one because the
    partner left the first. Whether its token may be used says the token service.

    Raises:
        TokenUnavailable: the partner has not consented, or is disabled.
        SeveralRegistrations: there is more than one, and none was chosen.
    """
    if why := partner.why_inactive:
        raise TokenUnavailable(why)
    given = PartnerConsent.objects.for_partner(partner).filter(generation__gt=0).order_by("pk")
    if registration is not None:
        given = given.filter(registration=registration)
    consents = list(given.select_related("partner", "registration__credential"))
    active = [one for one in consents if one.registration.state == ApplicationRegistration.State.ACTIVE]
    candidates = active or consents
    if len(candidates) > 1:
        raise SeveralRegistrations(
            f"{partner.name} consented to {len(candidates)} applications; name one (--registration): "
            f"{listed(one.registration for one in candidates)}."
        )
    if not candidates:
        to = f" to {registration.name}" if registration is not None else ""
        raise TokenUnavailable(f"{partner.name} has not consented{to} yet; send it a link.")
    return candidates[0]
