"""Which partners a command or a run is about: a small record of plain words, kept in the run's row.

================  ===================================================================
``partner``       tenant ids
``tag``           partners with any of these tags
``cloud``         partners of this cloud
``registration``  consents to this application registration, by its key
``state``         partners in any of these states
``age``           consents whose last check is older than so many hours, or never was
``hour``          partners that have this hour of the day as theirs, a twenty-fourth of all
================  ===================================================================
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Mod, Now

from consent.models import ApplicationRegistration, PartnerConsent
from consent.models.tokens import PartnerConsentQuerySet
from consent.naming import UnknownRegistration, registration_named
from consent.states import ACTIVE_STATES, with_state
from portal.microsoft.clouds import MICROSOFT, UnknownCloud, get_cloud
from portal.microsoft.identifiers import InvalidIdentifier, parse_tenant_id
from tenants.models import PartnerTag, PartnerTenant, PartnerTenantQuerySet

_LONGEST_AGE = 100 * 365 * 24  # hours; more is a slip of the keyboard
ONE_REGISTRATION = "only this application registration: its application id, or its number"


def add_partner_selection(parser: ArgumentParser, *, registration: str = ONE_REGISTRATION) -> None:
    """Add the arguments that choose partners, and which of their consents."""
    add_partners(parser)
    parser.add_argument("--registration", metavar="REGISTRATION", help=registration)
    states = [str(one) for one in ACTIVE_STATES]
    parser.add_argument("--state", action="append", default=[], choices=states, help="partners in this state")
    parser.add_argument(
        "--age", type=hours, metavar="HOURS", help="tokens that were last tried longer ago than this, or never"
    )


def add_partners(parser: ArgumentParser) -> None:
    """Add the arguments that choose partners by what staff know of them."""
    parser.add_argument("--partner", action="append", default=[], metavar="TENANT", help="a partner's tenant id")
    parser.add_argument("--tag", action="append", default=[], help="partners with this tag")
    parser.add_argument(
        "--cloud", type=_cloud, metavar="{" + ",".join(sorted(MICROSOFT)) + "}", help="partners of this cloud"
    )


def _cloud(text: str) -> str:
    """Return the cloud of an argument. Raises ArgumentTypeError (usage), which says why it cannot be chosen."""
    try:
        return get_cloud(text).key
    except UnknownCloud as reason:
        raise ArgumentTypeError(str(reason)) from None


def hours(text: str) -> float:
    """Return the hours of an argument. Raises ArgumentTypeError (usage)."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= _LONGEST_AGE:
        raise ArgumentTypeError("write hours, such as 24")
    return number


def scope_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the selection of a command's arguments.

    Raises:
        CommandError: it can never match: a tenant id is none or unknown, no tag or registration has this name, or
            partner, cloud and registration do not belong together.
        UnknownRegistration, SeveralRegistrations: as :func:`consent.naming.registration_named`.
    """
    scope: dict[str, Any] = {
        name: sorted(options[name]) for name in ("partner", "tag", "state") if options.get(name)
    } | {name: options[name] for name in ("cloud", "age") if options.get(name) is not None}
    if "tag" in scope:
        known = PartnerTag.objects.filter(name__in=scope["tag"]).values_list("name", flat=True)
        if missing := set(scope["tag"]) - set(known):
            raise CommandError(f"No tag {', '.join(sorted(missing))}; see the tags in the admin.", returncode=2)
    clouds = {scope["cloud"]} if "cloud" in scope else set()
    if "partner" in scope:
        wanted = {one_tenant_id(text) for text in scope["partner"]}
        scope["partner"] = sorted(wanted)
        found = dict(PartnerTenant.objects.active().filter(tenant_id__in=wanted).values_list("tenant_id", "cloud"))
        if missing := wanted - set(found):
            raise CommandError(
                f"No active partner with tenant id {', '.join(sorted(missing))}; see the partner list in the admin.",
                returncode=2,
            )
        if clouds and (elsewhere := sorted(one for one, cloud in found.items() if cloud not in clouds)):
            raise CommandError(f"No partner of the cloud {scope['cloud']}: {', '.join(elsewhere)}.", returncode=2)
        clouds = set(found.values())
    if options.get("registration"):
        scope["registration"] = _registration(options["registration"], clouds).pk
    return scope


def _registration(text: str, clouds: set[str]) -> ApplicationRegistration:
    if len(clouds) < 2:
        return registration_named(text, cloud="".join(clouds))
    registration = registration_named(text)
    if clouds != {registration.cloud}:
        raise UnknownRegistration(
            f"{registration.name} belongs to the cloud {registration.cloud}; not all partners do."
        )
    return registration


def partners_in(scope: Mapping[str, Any], *, also_disabled: bool = False) -> PartnerTenantQuerySet:
    """Return the active partners of a selection; all of them for an empty one.

    Args:
        also_disabled: for what only says how things stand, such as a plan; nothing is done for a disabled partner.
    """
    partners = PartnerTenant.objects.not_offboarded() if also_disabled else PartnerTenant.objects.active()
    if scope.get("partner"):
        partners = partners.filter(tenant_id__in=scope["partner"])
    if scope.get("tag"):
        partners = partners.tagged(*scope["tag"])
    if scope.get("cloud"):
        partners = partners.in_cloud(scope["cloud"])
    if scope.get("state"):
        partners = with_state(partners).filter(Q(state__in=scope["state"]))
    if scope.get("age") is not None:
        tried = PartnerConsent.objects.filter(
            _of_registration(scope), partner=OuterRef("pk"), last_try_at__gte=Now() - timedelta(hours=scope["age"])
        )
        partners = partners.filter(~Exists(tried))
    if scope.get("hour") is not None:
        partners = partners.annotate(own_hour=Mod("pk", 24)).filter(own_hour=scope["hour"])
    return partners


def partner_consents_in(scope: Mapping[str, Any]) -> PartnerConsentQuerySet:
    """Return the consents of a selection of partners; each is chosen or left out by its own registration and age."""
    of_partners = {name: value for name, value in scope.items() if name != "age"}
    consents = PartnerConsent.objects.filter(_of_registration(scope), partner__in=partners_in(of_partners))
    if scope.get("age") is not None:
        consents = consents.exclude(last_try_at__gte=Now() - timedelta(hours=scope["age"]))
    return consents


def _of_registration(scope: Mapping[str, Any]) -> Q:
    return Q(registration=scope["registration"]) if "registration" in scope else Q()


def one_tenant_id(text: str) -> str:
    """Return the canonical tenant id of an argument. Raises CommandError (usage)."""
    try:
        return parse_tenant_id(text)
    except InvalidIdentifier as error:
        raise CommandError(str(error), returncode=2) from None
