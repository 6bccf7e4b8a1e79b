"""Lines of permission sets, and sets that are made of them."""

from __future__ import annotations

from collections.abc import Sequence

from consent.applications import permission_sets
from consent.models import OwnPermissionSet
from consent.permissions import PERMISSION_SETS
from portal.microsoft.clouds import PARTNER_API_APPLICATION_ID
from tests.support import builders


def line(resource: str, name: str, **more: str) -> dict[str, str]:
    """Return one line as a form gives it."""
    return {"resource": resource, "name": name, **more}


STRICT = [line(one.resource, one.name) for one in PERMISSION_SETS["strict"].permissions]
PRICES = [*STRICT, line(PARTNER_API_APPLICATION_ID, "user_impersonation")]
OWN_SERVICE = line(
    "3c0d7a52-4a0e-4d67-9d1b-5c8a0f1e2b3c",
    "Invoices.Read",
    id="5d1e8b63-5b1f-4e78-8e2c-6d9b1a2f3c4d",
    service="Billing API",
    title="Read your invoices",
    why="We bill you right.",
)


def made(name: str, lines: Sequence[dict[str, str]]) -> OwnPermissionSet:
    """Make a set as staff would."""
    return permission_sets.create(name=name, note="", wanted=permission_sets.tidy(lines), actor=builders.ACTOR)
