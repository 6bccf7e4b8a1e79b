"""Passkeys: how one is made, and how it proves who signs in (WebAuthn Level 3, by python-fido2).

What a ceremony was begun with is carried by its form, signed, good for half an hour and once. So a look at the sign-in
page leaves no session behind. Every passkey asks its owner for a finger, a face or a PIN, so it is two factors in one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.internal.auth import WebAuthn
from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction
from fido2.server import Fido2Server
from fido2.utils import websafe_decode
from fido2.webauthn import (
    AttestedCredentialData,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from portal.audit.trail import Actor, record
from portal.microsoft.api import parse_json
from portal.models import SpentForm
from portal.site.sites import NAME

CEREMONY_SECONDS = 1800
LONGEST_NAME = 60
_LONGEST_ANSWER = 20_000
_SALT = "portal.staff.passkeys"
_VERIFIED = UserVerificationRequirement.REQUIRED


class PasskeyRefused(Exception):
    """The browser's answer proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceremony:
    """What the page hands to the browser, and what its form carries back beside the answer.

    Attributes:
        options: JSON for ``navigator.credentials``.
        kept: signed.
    """

    options: str
    kept: str


def origin() -> str:
    """Return the origin of the staff's pages, as a browser writes it; never taken from a request (S-28)."""
    parts = urlsplit(settings.PUBLIC_BASE_URL)
    return f"{parts.scheme}://{settings.ADMIN_HOST or parts.netloc}"


def _server() -> Fido2Server:
    return _server_of(origin())


@cache
def _server_of(ours: str) -> Fido2Server:
    host = urlsplit(ours).hostname or ""
    return Fido2Server(PublicKeyCredentialRpEntity(id=host, name=NAME), verify_origin=ours.__eq__)


def _known(user: User) -> list[tuple[Authenticator, AttestedCredentialData]]:
    rows = Authenticator.objects.filter(user=user, type=Authenticator.Type.WEBAUTHN)
    return [(row, WebAuthn(row).authenticator_data.credential_data) for row in rows]


# --- making one -------------------------------------------------------------------------------------------------------


def offer(user: User) -> Ceremony:
    """Begin to make a passkey for a person."""
    options, state = _server().register_begin(
        PublicKeyCredentialUserEntity(
            id=str(user.pk).encode(), name=user.get_username(), display_name=user.get_full_name() or user.get_username()
        ),
        credentials=[credential for _, credential in _known(user)],
        resident_key_requirement=ResidentKeyRequirement.REQUIRED,
        user_verification=_VERIFIED,
    )
    return _ceremony(options, state, user)


def add(user: User, kept: str, answer: str, name: str, *, actor: Actor) -> None:
    """Keep a passkey that the browser made.

    Raises:
        PasskeyRefused: the answer is no good, or its form is too old or was sent before.
    """
    state, credential = _read_kept(kept, user), _read_answer(answer)
    try:
        _server().register_complete(state, credential)
    except (ValueError, TypeError, KeyError):
        raise PasskeyRefused from None
    with transaction.atomic():
        WebAuthn.add(user, name.strip()[:LONGEST_NAME] or "Passkey", credential)
        details = {"kind": Authenticator.Type.WEBAUTHN.value}
        record("factor.added", actor=actor, subject={"staff": user.pk}, details=details)


# --- a proof by one ---------------------------------------------------------------------------------------------------


def ask(user: User | None = None) -> Ceremony:
    """Begin a proof by a passkey of this person; without one the browser offers all that it has for us."""
    credentials = [credential for _, credential in _known(user)] if user else []
    options, state = _server().authenticate_begin(credentials=credentials, user_verification=_VERIFIED)
    return _ceremony(options, state, user)


def check(kept: str, answer: str, user: User | None = None) -> User:
    """Return whose passkey gave this answer.

    Args:
        user: whom ``ask`` was about.

    Raises:
        PasskeyRefused: nobody's, or another person's, or the form is too old or was sent before.
    """
    state, credential = _read_kept(kept, user), _read_answer(answer)
    owner = user or _owner(credential)
    known = _known(owner)
    try:
        used = _server().authenticate_complete(state, [one for _, one in known], credential)
    except (ValueError, TypeError, KeyError):
        raise PasskeyRefused from None
    row = next(row for row, one in known if one.credential_id == used.credential_id)
    row.record_usage()
    return owner


def _owner(credential: Mapping[str, Any]) -> User:
    """Return the account that the answer names, which the signature has yet to prove."""
    try:
        number = websafe_decode(credential["response"]["userHandle"]).decode()
        return User.objects.get(pk=int(number))
    except (KeyError, TypeError, ValueError, OverflowError, User.DoesNotExist):
        raise PasskeyRefused from None


# --- what a form carries ----------------------------------------------------------------------------------------------


def _ceremony(options: Any, state: Any, user: User | None) -> Ceremony:
    kept = {"challenge": state["challenge"], "user": user.pk if user else None}
    return Ceremony(options=json.dumps(dict(options)["publicKey"], default=dict), kept=signing.dumps(kept, salt=_SALT))


def _read_kept(kept: str, user: User | None) -> dict[str, Any]:
    try:
        said = signing.loads(kept, salt=_SALT, max_age=CEREMONY_SECONDS)
    except signing.BadSignature:
        raise PasskeyRefused from None
    if said["user"] != (user.pk if user else None):
        raise PasskeyRefused
    number = hashlib.sha256(f"passkey {said['challenge']}".encode()).hexdigest()[:32]
    if not SpentForm.objects.spend(number, seconds=CEREMONY_SECONDS):
        raise PasskeyRefused
    return {"challenge": said["challenge"], "user_verification": _VERIFIED}


def _read_answer(answer: str) -> dict[str, Any]:
    if len(answer) > _LONGEST_ANSWER:
        raise PasskeyRefused
    try:
        found = parse_json(answer.encode())
    except ValueError:
        raise PasskeyRefused from None
    if not isinstance(found, dict):
        raise PasskeyRefused
    return found
