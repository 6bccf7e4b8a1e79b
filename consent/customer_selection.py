"""Which consents in customer tenants a command or a run is about: a small record of plain words, kept in the run's row.

===============  ======================================================
``partner``      tenant ids of partners
``tag``          customers of partners with any of these tags
``cloud``        customers of partners of this cloud
``registration`` consents to this application registration, by its key
``customer``     tenant ids of customers
``state``        consents in any of these states
``age``          consents last read longer ago than this, or never
``consents``     these rows, as somebody chose them on a page
``offboarding``  chooses nothing: tells the run of an offboarding from any other one
``week_hour``    consents that have this hour of the week as theirs, and those that were missed in their hour
===============  ======================================================
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Mod, Now

from consent.models import ApplicationRegistration, CustomerConsent
from consent.models.customers import CustomerConsentQuerySet
from consent.selection import (
    ONE_REGISTRATION,
    add_partners,
    hours,
    one_tenant_id,
    partner_consents_in,
    partners_in,
    scope_of,
)
from tenants.models import CustomerTenant

WEEK_HOURS = 7 * 24
_PARTNER_WORDS = ("partner", "tag", "cloud")
_CHUNK = 1000


def add_customer_selection(parser: ArgumentParser) -> None:
    """Add the arguments that choose consents in customer tenants."""
    add_partners(parser)
    parser.add_argument("--registration", metavar="REGISTRATION", help=ONE_REGISTRATION)
    parser.add_argument("--customer", action="append", default=[], metavar="TENANT", help="a customer's tenant id")
    parser.add_argument(
        "--state", action="append", default=[], choices=sorted(CustomerConsent.State.values), help="in this state"
    )
    parser.add_argument("--age", type=hours, metavar="HOURS", help="last read longer ago than this, or never")


def customer_scope_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the selection of a command's arguments.

    Raises:
        CommandError: a tenant id of a customer is none or unknown, or what ``scope_of`` raises.
    """
    scope = scope_of({name: options[name] for name in (*_PARTNER_WORDS, "registration")})
    scope |= {"state": sorted(set(options["state"]))} if options["state"] else {}
    scope |= {} if options["age"] is None else {"age": options["age"]}
    if options["customer"]:
        wanted = {one_tenant_id(text) for text in options["customer"]}
        known = CustomerTenant.objects.filter(partner__in=partners_in(scope_of_partners(scope)), tenant_id__in=wanted)
        if missing := wanted - set(known.values_list("tenant_id", flat=True)):
            raise CommandError(
                f"No active partner has a customer {', '.join(sorted(missing))}; run sync_customers first.",
                returncode=2,
            )
        scope["customer"] = sorted(wanted)
    return scope


def scope_of_partners(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a selection of consents says about partners."""
    return {name: scope[name] for name in _PARTNER_WORDS if name in scope}


def consents_in(scope: Mapping[str, Any]) -> CustomerConsentQuerySet:
    """Return the consents of a selection in customer tenants of active partners; all of them for an empty one."""
    consents = CustomerConsent.objects.filter(customer__partner__in=partners_in(scope_of_partners(scope)))
    if "registration" in scope:
        consents = consents.filter(registration=scope["registration"])
    if "customer" in scope:
        consents = consents.filter(customer__tenant_id__in=scope["customer"])
    if "state" in scope:
        consents = consents.filter(state__in=scope["state"])
    if "age" in scope:
        consents = consents.exclude(verified_at__gte=Now() - timedelta(hours=scope["age"]))
    if "consents" in scope:
        consents = consents.filter(pk__in=scope["consents"])
    if "week_hour" in scope:
        missed = Q(tried_at__isnull=True) | Q(tried_at__lt=Now() - timedelta(days=8))
        tried_today = Q(tried_at__gte=Now() - timedelta(days=1))
        consents = consents.annotate(own_hour=Mod("pk", WEEK_HOURS)).filter(
            missed | Q(own_hour=scope["week_hour"]) & ~tried_today
        )
    return consents


def open_rows(scope: Mapping[str, Any]) -> int:
    """Make the rows of chosen customers that were never looked at, in the state "unknown"; return how many.

    One row for each application that the partner consented to, or for the chosen one.
    """
    made = 0
    of_partners = {name: value for name, value in scope.items() if name in (*_PARTNER_WORDS, "registration")}
    doors = partner_consents_in(of_partners).usable().filter(registration__state=ApplicationRegistration.State.ACTIVE)
    for registration in doors.order_by("registration").values_list("registration", flat=True).distinct():
        known = CustomerConsent.objects.filter(customer=OuterRef("pk"), registration=registration)
        customers = CustomerTenant.objects.listed().filter(
            ~Exists(known), partner__in=doors.filter(registration=registration).values("partner")
        )
        if "customer" in scope:
            customers = customers.filter(tenant_id__in=scope["customer"])
        while chunk := list(customers.order_by("pk").values_list("pk", flat=True)[:_CHUNK]):
            CustomerConsent.objects.bulk_create(
                [CustomerConsent(customer_id=key, registration_id=registration) for key in chunk],
                ignore_conflicts=True,
            )
            made += len(chunk)
    return made


def counted(consents: QuerySet[CustomerConsent]) -> tuple[int, dict[int, int]]:
    """Return in how many customer tenants these consents are, and in how many of them each registration is, by its key.

    A customer of two partners is one tenant.
    """
    rows = consents.order_by().values_list("registration").annotate(tenants=Count("customer__tenant_id", distinct=True))
    return consents.order_by().values("customer__tenant_id").distinct().count(), dict(rows)
