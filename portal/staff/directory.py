"""Sign-in by the organisation's own sign-in service (S-46): who came back, and what they may do.

What a trip was begun with is carried by its state, signed, and by a cookie that only this browser has; nonce and PKCE
verifier are derived from that cookie and the server's key, and stored nowhere. A trip ends once.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.microsoft.http import WEB_SECONDS, GuardedSession, time_budget
from portal.microsoft.secret import Secret
from portal.models import SpentForm
from portal.staff.models import StaffIdentity
from portal.staff.oidc import DirectoryRefused, Flaw, OidcClient, Person, Provider
from portal.staff.passkeys import origin

log = logging.getLogger(__name__)

COOKIE = "__Host-staff-trip"
TRIP_SECONDS = 600
_SALT = "portal.staff.directory"
_LONGEST_CODE = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """A way to the sign-in service that has begun.

    Attributes:
        address: where the browser is sent.
        binder: for the cookie of this browser.
    """

    address: str
    binder: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Who came back, and where the trip was to lead.

    Attributes:
        proves: number of the account that was to prove itself again, None at a sign-in.
    """

    person: Person
    next: str
    proves: int | None


def is_set_up() -> bool:
    """Whether the settings name a sign-in service."""
    return bool(settings.STAFF_OIDC_ISSUER)


def service_origin() -> str:
    """Return the origin of the sign-in service, for the content security policy of the page that leads there."""
    return f"https://{urlsplit(settings.STAFF_OIDC_ISSUER).netloc}"


def client() -> OidcClient:
    """Return the client of the sign-in service that the settings name; one for this process."""
    return _client(_provider())


def new_client() -> OidcClient:
    """Return a client that has read nothing yet. Raises ImproperlyConfigured."""
    return _make_client(_provider())


def _provider() -> Provider:
    claim, _, value = settings.STAFF_OIDC_DEMAND_MFA.partition("=")
    return Provider(
        issuer=settings.STAFF_OIDC_ISSUER,
        client_id=settings.STAFF_OIDC_CLIENT_ID,
        credential=settings.STAFF_OIDC_CREDENTIAL,
        mfa=(claim, value) if value else None,
    )


def _make_client(provider: Provider) -> OidcClient:
    ca_file = settings.OUTGOING_CA_FILE
    if ca_file and not Path(ca_file).is_file():
        raise ImproperlyConfigured(f"OUTGOING_CA_FILE names {ca_file}, which is no file")
    proxy = settings.OUTGOING_PROXY
    session = GuardedSession(
        is_allowed=provider.host.__eq__,
        ca_file=ca_file or None,
        proxies={"https": proxy} if proxy else None,
        loopback=bool(settings.TEST_ENDPOINTS),
    )
    return OidcClient(session, provider)


_client = cache(_make_client)


def redirect_uri() -> str:
    """Return the address that the registration of the sign-in service names; never taken from a request (S-28)."""
    return f"{origin()}{reverse('staff_directory_callback')}"


def begin(following: str, *, proves: User | None = None) -> Trip:
    """Begin a trip. Raises RemoteError."""
    binder = secrets.token_urlsafe(32)
    state = signing.dumps(
        {
            "binder": hashlib.sha256(binder.encode()).hexdigest(),
            "next": following,
            "proves": proves.pk if proves else None,
            "began": int(timezone.now().timestamp()),
        },
        salt=_SALT,
        compress=True,
    )
    with time_budget(WEB_SECONDS):
        address = client().authorize_address(
            redirect_uri=redirect_uri(),
            state=state,
            nonce=_derived("nonce", binder),
            verifier=_derived("verifier", binder),
            again=proves is not None,
        )
    return Trip(address=address, binder=Secret(binder))


def come_back(query: Mapping[str, str], binder: str) -> Arrival:
    """Return who came back with this answer.

    Args:
        query: of the callback.
        binder: the cookie of this browser.

    Raises:
        DirectoryRefused: the answer proves nobody, or belongs to no trip of this browser.
        RemoteError: the service did not answer.
    """
    try:
        trip = signing.loads(query.get("state", ""), salt=_SALT, max_age=TRIP_SECONDS)
    except signing.BadSignature:
        raise DirectoryRefused(Flaw.STATE) from None
    digest = hashlib.sha256(binder.encode()).hexdigest()
    if not hmac.compare_digest(trip["binder"], digest):
        raise DirectoryRefused(Flaw.STATE)
    if query.get("iss", settings.STAFF_OIDC_ISSUER) != settings.STAFF_OIDC_ISSUER:
        raise DirectoryRefused(Flaw.ISSUER)  # RFC 9207
    code = query.get("code", "")
    if not SpentForm.objects.spend(digest[:32], seconds=TRIP_SECONDS):
        raise DirectoryRefused(Flaw.STATE)
    if not 0 < len(code) <= _LONGEST_CODE:
        raise DirectoryRefused(Flaw.DENIED)
    with time_budget(WEB_SECONDS):
        person = client().redeem(
            Secret(code),
            redirect_uri=redirect_uri(),
            nonce=_derived("nonce", binder),
            verifier=_derived("verifier", binder),
            not_before=trip["began"] if trip["proves"] else None,
        )
    return Arrival(person=person, next=trip["next"], proves=trip["proves"])


def _derived(what: str, binder: str) -> Secret:
    key = hmac.digest(settings.SECRET_KEY.encode(), f"{_SALT} {what} {binder}".encode(), "sha256")
    return Secret(key.hex())


# --- who that is here -------------------------------------------------------------------------------------------------


def account_of(arrival: Arrival, *, signed_in: int | None, address: str | None) -> User:
    """Return the account of a person with the roles that the service says now; made at the first sign-in.

    An account is found by issuer and subject alone: a name or an address proves nothing, so it never leads to an
    account that was made here.

    Args:
        signed_in: number of the account that is signed in in this browser.

    Raises:
        DirectoryRefused: no role, or the account was switched off here, or it is not the one that was to prove itself.
    """
    person = arrival.person
    roles = {settings.STAFF_OIDC_ROLES[value] for value in person.roles if value in settings.STAFF_OIDC_ROLES}
    groups = list(Group.objects.filter(name__in=roles))
    if len(groups) < len(roles):
        log.error("STAFF_OIDC_ROLES names a role that is not there: %s", sorted(roles - {one.name for one in groups}))
    if not groups:
        raise DirectoryRefused(Flaw.TOO_MANY_GROUPS if person.groups_left_out else Flaw.ROLE)
    with transaction.atomic():
        identity = StaffIdentity.objects.select_related("user").filter(**_key(person)).first()
        user = identity.user if identity else _make(person, address)
        if not user.is_active or not user.is_staff:
            raise DirectoryRefused(Flaw.SWITCHED_OFF)
        if arrival.proves is not None and not arrival.proves == signed_in == user.pk:
            raise DirectoryRefused(Flaw.OTHER_PERSON)
        teams = list(user.groups.filter(team__isnull=False))  # these are given here, and stay
        before = set(user.groups.exclude(pk__in=[team.pk for team in teams]).values_list("name", flat=True))
        after = {group.name for group in groups}
        if before != after:
            user.groups.set([*groups, *teams])
            record(
                "staff.roles_taken_over",
                actor=Actor.staff(user.get_username(), address),
                subject={"staff": user.pk},
                details={"before": sorted(before), "after": sorted(after)},
            )
    return user


def _key(person: Person) -> dict[str, str]:
    return {"issuer": settings.STAFF_OIDC_ISSUER, "subject": person.subject}


def _make(person: Person, address: str | None) -> User:
    name = "".join(letter for letter in person.name if letter.isalnum() or letter in "@.+-_")[:120] or "staff"
    if User.objects.filter(username__iexact=name).exists():
        name = f"{name}+{hashlib.sha256(person.subject.encode()).hexdigest()[:8]}"
    user = User(username=name, is_staff=True)
    user.set_unusable_password()
    user.save()
    StaffIdentity.objects.create(user=user, **_key(person))
    record(
        "staff.created",
        actor=Actor.staff(name, address),
        subject={"staff": user.pk},
        details={"username": name, "by": "directory"},
    )
    return user


def has_identity(user: Any) -> bool:
    """Whether the person signs in by the service that the settings name."""
    return is_set_up() and StaffIdentity.objects.filter(user=user, issuer=settings.STAFF_OIDC_ISSUER).exists()
