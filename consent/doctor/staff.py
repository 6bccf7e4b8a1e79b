"""The step of the sign-in service by which staff sign in: Entra with the own tenant, or another one."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.contrib.auth.models import Group
from django.utils import timezone

from consent.doctor.case import Case, said_no
from consent.doctor.steps import Finding, failed, not_seen, notice, well
from portal.microsoft.errors import RemoteError
from portal.staff import directory
from portal.staff.oidc import certificate_of
from portal.text import number_of

_ENDS_SOON_DAYS = 14


def look_at_sign_in(case: Case) -> Iterator[Finding]:
    """Look at roles and credential here, and read metadata and signing keys anew; nobody is signed in."""
    if not directory.is_set_up():
        yield not_seen("No sign-in service is set (STAFF_OIDC_TENANT): staff sign in by accounts of this portal.")
        return
    client = directory.new_client()
    host = client.provider.host
    known = set(Group.objects.values_list("name", flat=True))
    if unknown := sorted(set(settings.STAFF_OIDC_ROLES.values()) - known):
        yield failed(
            f"STAFF_OIDC_ROLES names {', '.join(unknown)}, and there is no such role: who has no other one is refused.",
            f"Correct STAFF_OIDC_ROLES. The roles are: {', '.join(sorted(known)) or 'none; run migrate'}.",
        )
    try:
        yield from _credential()
        client.look()
    except RemoteError as error:
        yield said_no(error, f"Sign-in service of staff, {host}")
        return
    yield well(
        f"Metadata and signing keys of {host} can be read. Its registration {client.provider.client_id} has to name "
        f"the redirect URI {directory.redirect_uri()}; a sign-in shows whether it does."
    )


def _credential() -> Iterator[Finding]:
    """Look at the certificate. A client secret tells nothing of itself; only a sign-in proves it."""
    certificate = certificate_of(settings.STAFF_OIDC_CREDENTIAL)
    if certificate is None:
        return
    left = certificate.not_valid_after_utc - timezone.now()
    if left.total_seconds() <= 0:
        yield failed(
            f"The certificate of STAFF_OIDC_CREDENTIAL ended on {certificate.not_valid_after_utc:%d %B %Y}.",
            "Make a new one, add it to the registration of the sign-in, and set it.",
        )
    elif left.days < _ENDS_SOON_DAYS:
        yield notice(
            f"The certificate of STAFF_OIDC_CREDENTIAL ends in {number_of(left.days, 'day')}.",
            "Make the next one, add it to the registration of the sign-in, and set it.",
        )
