"""Every page that a partner can see, with an address for each, and views that fail as views do."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest
from django.urls import include, path, reverse
from django.utils import timezone

from consent.invitations import links
from consent.models import ConsentFlow, ConsentLink
from consent.sign_in import flow
from consent.words import CHECK_WORDS, PROBLEMS
from portal.microsoft.secret import Secret
from tests.support import builders


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicPage:
    """An address and the status with which its page comes."""

    name: str
    path: str
    status: int


@login_not_required
def refuse(request: HttpRequest) -> NoReturn:
    raise PermissionDenied


@login_not_required
def suspect(request: HttpRequest) -> NoReturn:
    raise SuspiciousOperation


@login_not_required
def fail(request: HttpRequest) -> NoReturn:
    raise RuntimeError


urlpatterns = [
    path("", include("portal.urls")),
    path("broken/400", suspect),
    path("broken/403", refuse),
    path("broken/500", fail),
]


def make(binder: str) -> list[PublicPage]:
    """Fill the database with one flow for each page and return all pages.

    Args:
        binder: the flow cookie of the browser that will ask.
    """
    partner = builders.partner(name="Northwind Cloud Solutions GmbH & Co. KG")
    registration = builders.registration(name="Example Control Panel", permission_set="extended")
    builders.grant(registration, "User.Read.All", "Directory.Read.All")
    trust = reverse("consent:trust", args=[registration.cloud, registration.application_id])
    first = _issue(partner, registration, ConsentLink.Kind.SIGN_IN)
    link = ConsentLink.objects.get()
    pages = [
        PublicPage(name="landing", path=first, status=200),
        PublicPage(name="landing-whole-tenant", path=_issue(partner, registration, "admin_consent"), status=200),
        PublicPage(name="trust", path=trust, status=200),
        PublicPage(name="link-unknown", path=reverse("consent:landing", args=["x" * 43]), status=404),
    ]
    outcomes = ConsentFlow.Outcome
    for outcome, state in (
        (outcomes.CONNECTED, "passed"),
        (outcomes.CONNECTED, "failed"),
        (outcomes.CONNECTED, "unverified"),
        (outcomes.MFA_MISSING, "unverified"),
        (outcomes.WAITING_APPROVAL, "passed"),
    ):
        checks = [{"check": check, "state": state} for check in CHECK_WORDS]
        pages.append(_ended(link, binder, f"{outcome}-{state}", outcome=outcome, checks=checks))
    pages.append(_ended(link, binder, "consented", outcome=outcomes.ADMIN_CONSENTED))
    pages.append(_ended(link, binder, "still-working", status=202, outcome=outcomes.WORKING))
    for problem, words in PROBLEMS.items():
        pages.append(
            _ended(
                link,
                binder,
                f"refused-{problem}",
                status=words.status,
                outcome=outcomes.REFUSED,
                problem=problem.value,
                code="AADSTS50000",
            )
        )
    pages += [PublicPage(name=f"error-{status}", path=f"/broken/{status}", status=status) for status in (400, 403, 500)]
    own = ConsentFlow.objects.filter(problem="declined").values_list("public_id", flat=True)[0]
    pages.append(PublicPage(name="landing-again", path=reverse("consent:landing_again", args=[own]), status=200))
    return [*pages, PublicPage(name="error-404", path="/nothing-here", status=404)]


def _issue(partner: object, registration: object, kind: str) -> str:
    _, address = links.issue(
        partner,  # type: ignore[arg-type]
        registration,  # type: ignore[arg-type]
        actor=builders.ACTOR,
        kind=ConsentLink.Kind(kind),
    )
    return reverse("consent:landing", args=[Secret.reveal(address).split("/")[4]])


def _ended(link: ConsentLink, binder: str, name: str, *, status: int = 200, **columns: object) -> PublicPage:
    now = timezone.now()
    row = ConsentFlow.objects.create(
        link=link,
        public_id=secrets.token_hex(16),
        state_hash=flow.sha256(name),
        binder_hash=flow.sha256(binder),
        expires_at=now + timedelta(minutes=10),
        claimed_at=now,
        finished_at=None if columns["outcome"] == ConsentFlow.Outcome.WORKING else now,
        correlation_id="3f0f5a4e-5d0b-4f39-9d58-0f3f3c1b7f10",
        **columns,
    )
    return PublicPage(name=name, path=reverse("consent:result", args=[row.public_id]), status=status)
