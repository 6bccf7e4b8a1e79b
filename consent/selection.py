"""Which partners a command or a run is about: a small record of plain words, kept in the run's row.

==========  ===================================================================
``partner``  tenant ids
``tag``      partners with any of these tags
``cloud``    partners of this cloud
``state``    partners in any of these states
``age``      partners whose last check is older than so many hours, or never was
``hour``     partners that have this hour of the day as theirs, a twenty-fourth of all
==========  ===================================================================
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Exists, OuterRef
from django.db.models.functions import Mod, Now

from consent.models import PartnerConsent
from portal.microsoft.clouds import MICROSOFT, UnknownCloud, get_cloud
from portal.microsoft.identifiers import InvalidIdentifier, parse_tenant_id
from tenants.models import PartnerTenant
from tenants.querysets import PartnerTenantQuerySet

_STATES = [PartnerTenant.State.INVITED, PartnerTenant.State.CONNECTED, PartnerTenant.State.ATTENTION]


def add_cloud(parser: ArgumentParser, words: str) -> None:
    """Add ``--cloud``, which says why a cloud cannot be chosen."""
    parser.add_argument("--cloud", type=_cloud, metavar="{" + ",".join(sorted(MICROSOFT)) + "}", help=words)


def _cloud(text: str) -> str:
    try:
        return get_cloud(text).key
    except UnknownCloud as reason:
        raise ArgumentTypeError(str(reason)) from None


def add_partner_selection(parser: ArgumentParser) -> None:
    """Add the arguments that choose partners."""
    parser.add_argument("--partner", action="append", default=[], metavar="TENANT", help="a partner's tenant id")
    parser.add_argument("--tag", action="append", default=[], help="partners with this tag")
    add_cloud(parser, "partners of this cloud")
    parser.add_argument(
        "--state", action="append", default=[], choices=[str(one) for one in _STATES], help="partners in this state"
    )
    parser.add_argument(
        "--age", type=float, metavar="HOURS", help="partners whose token was not tried for so many hours"
    )


def scope_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the selection of a command's arguments.

    Raises:
        CommandError: a tenant id is none or unknown, with the id and what to do.
    """
    scope: dict[str, Any] = {
        name: sorted(options[name]) for name in ("partner", "tag", "state") if options.get(name)
    } | {name: options[name] for name in ("cloud", "age") if options.get(name) is not None}
    if "partner" in scope:
        wanted = {one_tenant_id(text) for text in scope["partner"]}
        scope["partner"] = sorted(wanted)
        known = PartnerTenant.objects.active().filter(tenant_id__in=wanted).values_list("tenant_id", flat=True)
        if missing := wanted - set(known):
            raise CommandError(
                f"No active partner with tenant id {', '.join(sorted(missing))}; see the partner list in the admin.",
                returncode=2,
            )
    return scope


def partners_in(scope: Mapping[str, Any]) -> PartnerTenantQuerySet:
    """Return the active partners of a selection; all of them for an empty one."""
    partners = PartnerTenant.objects.active()
    if scope.get("partner"):
        partners = partners.filter(tenant_id__in=scope["partner"])
    if scope.get("tag"):
        partners = partners.tagged(*scope["tag"])
    if scope.get("cloud"):
        partners = partners.in_cloud(scope["cloud"])
    if scope.get("state"):
        partners = partners.filter(state__in=scope["state"])
    if scope.get("age") is not None:
        tried = PartnerConsent.objects.filter(
            partner=OuterRef("pk"), last_try_at__gte=Now() - timedelta(hours=scope["age"])
        )
        partners = partners.filter(~Exists(tried))
    if scope.get("hour") is not None:
        partners = partners.annotate(own_hour=Mod("pk", 24)).filter(own_hour=scope["hour"])
    return partners


def one_tenant_id(text: str) -> str:
    """Return the canonical tenant id of an argument. Raises CommandError (usage)."""
    try:
        return parse_tenant_id(text)
    except InvalidIdentifier as error:
        raise CommandError(str(error), returncode=2) from None
