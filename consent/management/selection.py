"""The arguments of commands that choose partners or consents, and the selection that they stand for."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.core.management.base import CommandError

from consent.models import ApplicationRegistration, CustomerConsent
from consent.naming import UnknownRegistration, registration_named
from consent.selection import Selection
from consent.states import ACTIVE_STATES
from portal.microsoft.clouds import MICROSOFT, UnknownCloud, get_cloud
from portal.microsoft.identifiers import InvalidIdentifier, parse_tenant_id
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant, PartnerTenantQuerySet

_LONGEST_AGE = 100 * 365 * 24  # hours; more is a slip of the keyboard
_ONE_REGISTRATION = "only this application registration: its application id, or its number"


def add_partner_selection(parser: ArgumentParser, *, registration: str = _ONE_REGISTRATION) -> None:
    """Add the arguments that choose partners, and which of their consents."""
    _add_selection(parser, [str(one) for one in ACTIVE_STATES], registration=registration)


def add_customer_selection(parser: ArgumentParser) -> None:
    """Add the arguments that choose consents in customer tenants."""
    _add_selection(parser, sorted(CustomerConsent.State.values))
    add_customers(parser)


def add_customers(parser: ArgumentParser) -> None:
    """Add the argument that names customers."""
    parser.add_argument("--customer", action="append", default=[], metavar="TENANT", help="a customer's tenant id")


def _add_selection(parser: ArgumentParser, states: list[str], *, registration: str = _ONE_REGISTRATION) -> None:
    parser.add_argument("--partner", action="append", default=[], metavar="TENANT", help="a partner's tenant id")
    parser.add_argument("--tag", action="append", default=[], help="partners with this tag")
    parser.add_argument(
        "--cloud", type=_cloud, metavar="{" + ",".join(sorted(MICROSOFT)) + "}", help="partners of this cloud"
    )
    parser.add_argument("--registration", metavar="REGISTRATION", help=registration)
    parser.add_argument("--state", action="append", default=[], choices=states, help="those in this state")
    parser.add_argument(
        "--age", type=_hours, metavar="HOURS", help="those last tried or read longer ago than this, or never"
    )


def _cloud(text: str) -> str:
    """Return the cloud of an argument. Raises ArgumentTypeError (usage), which says why it cannot be chosen."""
    try:
        return get_cloud(text).key
    except UnknownCloud as reason:
        raise ArgumentTypeError(str(reason)) from None


def _hours(text: str) -> float:
    """Return the hours of an argument. Raises ArgumentTypeError (usage)."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= _LONGEST_AGE:
        raise ArgumentTypeError("write hours, such as 24")
    return number


def partner_selection(options: Mapping[str, Any]) -> Selection:
    """Return the selection of a command's arguments.

    Raises:
        CommandError: it can never match: a tenant id is invalid or unknown, no tag or registration has this name, or
            partner, cloud and registration do not belong together.
        UnknownRegistration, SeveralRegistrations: as :func:`consent.naming.registration_named`.
    """
    partners, tags, cloud = tenant_ids(options["partner"]), sorted(set(options["tag"])), options["cloud"]
    if missing := set(tags) - set(PartnerTag.objects.filter(name__in=tags).values_list("name", flat=True)):
        raise CommandError(f"No tag {', '.join(sorted(missing))}; see the tags in the admin.", returncode=2)
    clouds = {cloud} if cloud else set()
    if partners:
        found = dict(PartnerTenant.objects.active().filter(tenant_id__in=partners).values_list("tenant_id", "cloud"))
        if missing := set(partners) - set(found):
            raise CommandError(
                f"No active partner with tenant id {', '.join(sorted(missing))}; see the partner list in the admin.",
                returncode=2,
            )
        if clouds and (elsewhere := sorted(one for one, its_cloud in found.items() if its_cloud not in clouds)):
            raise CommandError(f"No partner of the cloud {cloud}: {', '.join(elsewhere)}.", returncode=2)
        clouds = set(found.values())
    named = options.get("registration")
    return Selection(
        partner=partners or None,
        tag=tuple(tags) or None,
        cloud=cloud,
        registration=_registration(named, clouds).pk if named else None,
        state=tuple(sorted(set(options["state"]))) or None,
        age=options["age"],
    )


def customer_selection(options: Mapping[str, Any]) -> Selection:
    """Return the selection of a command's arguments; also customers are known. Raises as ``partner_selection``."""
    chosen = partner_selection(options)
    return with_customers(chosen, chosen.of_partners().partners(), options["customer"], "No active partner has a")


def with_customers(chosen: Selection, partners: PartnerTenantQuerySet, named: list[str], refusal: str) -> Selection:
    """Return the selection with these customers. Raises CommandError when none of the partners has one of them."""
    wanted = tenant_ids(named)
    known = CustomerTenant.objects.filter(partner__in=partners, tenant_id__in=wanted)
    if missing := set(wanted) - set(known.values_list("tenant_id", flat=True)):
        raise CommandError(f"{refusal} customer {', '.join(sorted(missing))}; run sync_customers first.", returncode=2)
    return replace(chosen, customer=wanted or None)


def _registration(text: str, clouds: set[str]) -> ApplicationRegistration:
    if len(clouds) < 2:
        return registration_named(text, cloud="".join(clouds))
    registration = registration_named(text)
    if clouds != {registration.cloud}:
        raise UnknownRegistration(
            f"{registration.name} belongs to the cloud {registration.cloud}; not all partners do."
        )
    return registration


def tenant_ids(texts: list[str]) -> tuple[str, ...]:
    """Return the canonical tenant ids of an argument that may be repeated, sorted. Raises CommandError (usage)."""
    return tuple(sorted({one_tenant_id(text) for text in texts}))


def one_tenant_id(text: str) -> str:
    """Return the canonical tenant id of an argument. Raises CommandError (usage)."""
    try:
        return parse_tenant_id(text)
    except InvalidIdentifier as error:
        raise CommandError(str(error), returncode=2) from None
