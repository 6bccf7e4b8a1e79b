"""Second factors of an account: authenticator app, passkeys, recovery codes.

They lie in the table of django-allauth, their keys encrypted (``factor_keys``). A code is good once: the library
remembers used codes in Django's cache, which the portal does not have, so they are spent in a table here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import generate_totp_secret, validate_totp_code
from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from portal.audit.trail import Actor, record
from portal.models import SpentForm
from portal.site.sites import NAME
from portal.staff.factor_keys import FactorUnreadable, lock, unlock
from portal.staff.models import Method

Type = Authenticator.Type
FORM_SECONDS = 900  # between seeing a key and typing its first code
_CODE_SECONDS = 120  # longer than any code is good
_FOR_EVER = 20 * 365 * 24 * 3600
_SALT = "portal.staff.factors"
_OFFERED = "offered"  # a key that is in no use yet


class CodeRefused(Exception):
    """The code is wrong, was used before, or is over."""


class LastFactor(Exception):
    """This is the last factor of the account; without it nobody could sign in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor as its owner sees it."""

    key: int
    title: str
    made_at: datetime
    used_at: datetime | None


def of(user: User) -> Sequence[Factor]:
    """Return the authenticator app and the passkeys of a person."""
    rows = Authenticator.objects.filter(user=user).exclude(type=Type.RECOVERY_CODES).order_by("created_at")
    return [
        Factor(
            key=row.pk,
            title="Authenticator app" if row.type == Type.TOTP else f"Passkey: {row.data['name']}",
            made_at=row.created_at,
            used_at=row.last_used_at,
        )
        for row in rows
    ]


def kinds(user: User) -> set[str]:
    """Return which kinds of factors a person has, as ``Type``."""
    return set(Authenticator.objects.filter(user=user).values_list("type", flat=True))


def has_any(user: User) -> bool:
    """Whether a person has a factor that a sign-in can ask for."""
    return bool(kinds(user) - {Type.RECOVERY_CODES})


# --- codes ------------------------------------------------------------------------------------------------------------


def check_app_code(user: User, code: str) -> bool:
    """Whether this is the present code of the person's authenticator app, and not used before; it is used then."""
    row = Authenticator.objects.filter(user=user, type=Type.TOTP).first()
    if row is None or not _fits(row, code := plain(code)) or not _spend(f"totp {user.pk} {code}", _CODE_SECONDS):
        return False
    row.record_usage()
    return True


def check_code(user: User, code: str) -> Method:
    """Take a code of the app or a recovery code, and return which it was.

    Raises:
        CodeRefused: it is neither, or was used before.
    """
    code = plain(code)
    if check_app_code(user, code):
        return Method.TOTP
    row = Authenticator.objects.filter(user=user, type=Type.RECOVERY_CODES).first()
    if row is not None and _use_recovery_code(row, code):
        return Method.RECOVERY_CODE
    raise CodeRefused


def _fits(row: Authenticator, code: str) -> bool:
    try:
        secret = unlock(row.data["secret"], kind=Type.TOTP, user=row.user_id)
    except FactorUnreadable:
        return False
    return bool(validate_totp_code(secret, code))


def plain(code: str) -> str:
    """Return the digits of a code as people type it, or an empty text: one code must not be spent in two spellings."""
    digits = "".join(code.split()).replace("-", "")
    return digits if digits.isascii() and digits.isdecimal() else ""


def _spend(code: str, seconds: float) -> bool:
    """Whether a code was not used before. The number is a unique key, so of two who send it at once one gets in."""
    return SpentForm.objects.spend(hashlib.sha256(code.encode()).hexdigest()[:32], seconds=seconds)


def _use_recovery_code(row: Authenticator, code: str) -> bool:
    try:
        codes = _recovery_codes(unlock(row.data["seed"], kind=Type.RECOVERY_CODES, user=row.user_id))
    except FactorUnreadable:
        return False
    place = next((number for number, one in enumerate(codes) if constant_time_compare(one, code)), None)
    if place is None or not _spend(f"recovery {row.pk} {place}", _FOR_EVER):
        return False
    row.data["used_mask"] |= 1 << place  # for the number of those that are left; used is what was spent
    row.last_used_at = timezone.now()
    row.save(update_fields=["data", "last_used_at"])
    return True


def recovery_codes_left(user: User) -> int:
    """Return how many recovery codes are unused."""
    row = Authenticator.objects.filter(user=user, type=Type.RECOVERY_CODES).first()
    if row is None:
        return 0
    return int(settings.MFA_RECOVERY_CODE_COUNT) - int(row.data["used_mask"]).bit_count()


@transaction.atomic
def new_recovery_codes(user: User, *, actor: Actor) -> Sequence[str]:
    """Make new recovery codes, to be shown once; the former ones are good no more."""
    Authenticator.objects.filter(user=user, type=Type.RECOVERY_CODES).delete()
    seed = RecoveryCodes.generate_seed()
    data = {"seed": lock(seed, kind=Type.RECOVERY_CODES, user=user.pk), "used_mask": 0}
    Authenticator.objects.create(user=user, type=Type.RECOVERY_CODES, data=data)
    codes = _recovery_codes(seed)
    _record("factor.codes_made", user, actor, Type.RECOVERY_CODES)
    return [f"{one[:5]}-{one[5:]}" for one in codes]


def _recovery_codes(seed: str) -> Sequence[str]:
    """Return the codes that follow from a seed, as the library makes them of a row that is not stored."""
    codes: Sequence[str] = RecoveryCodes(Authenticator(data={"seed": seed})).generate_codes()
    return codes


# --- an authenticator app ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApp:
    """A key for an authenticator app that is not in use yet.

    Attributes:
        kept: what the form carries in between: encrypted, and good for this person and fifteen minutes only.
        address: what the QR code says.
    """

    key: str
    kept: str
    address: str


def offer_app(user: User, kept: str = "") -> NewApp:
    """Return a new key for an authenticator app, or the one that a form carries."""
    try:
        secret = _read_kept(user, kept)
    except CodeRefused:
        secret = generate_totp_secret()
        kept = signing.dumps({"user": user.pk, "key": lock(secret, kind=_OFFERED, user=user.pk)}, salt=_SALT)
    label = quote(f"{NAME}:{user.get_username()}")
    return NewApp(key=secret, kept=kept, address=f"otpauth://totp/{label}?secret={secret}&issuer={quote(NAME)}")


def _read_kept(user: User, kept: str) -> str:
    try:
        said = signing.loads(kept, salt=_SALT, max_age=FORM_SECONDS)
        if said["user"] != user.pk:
            raise CodeRefused
        return unlock(said["key"], kind=_OFFERED, user=user.pk)
    except (signing.BadSignature, FactorUnreadable):
        raise CodeRefused from None


def add_app(user: User, kept: str, code: str, *, actor: Actor) -> None:
    """Take an authenticator app into use, in the place of the former one, once it gave a right code.

    Raises:
        CodeRefused: the code is wrong, or the form is too old.
    """
    secret, code = _read_kept(user, kept), plain(code)
    if not validate_totp_code(secret, code) or not _spend(f"totp {user.pk} {code}", _CODE_SECONDS):
        raise CodeRefused
    with transaction.atomic():
        Authenticator.objects.filter(user=user, type=Type.TOTP).delete()
        data = {"secret": lock(secret, kind=Type.TOTP, user=user.pk)}
        Authenticator.objects.create(user=user, type=Type.TOTP, data=data)
        _record("factor.added", user, actor, Type.TOTP)


# --- removal ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def remove(user: User, key: int, *, actor: Actor, may_be_last: bool = False) -> None:
    """Remove a factor of a person; with the last one the recovery codes go as well.

    Raises:
        Authenticator.DoesNotExist: the person has no such factor.
        LastFactor: it is the last one, and the account needs one.
    """
    rows = Authenticator.objects.filter(user=user).exclude(type=Type.RECOVERY_CODES)
    row = rows.get(pk=key)
    if not rows.exclude(pk=key).exists():
        if not may_be_last:
            raise LastFactor
        Authenticator.objects.filter(user=user, type=Type.RECOVERY_CODES).delete()
    row.delete()
    _record("factor.removed", user, actor, row.type)


@transaction.atomic
def remove_all(user: User, *, actor: Actor) -> None:
    """Remove all factors of a person, whose next sign-in sets a new one."""
    if Authenticator.objects.filter(user=user).delete()[0]:
        record("factor.all_removed", actor=actor, subject={"staff": user.pk})


def _record(action: str, user: User, actor: Actor, kind: str) -> None:
    record(action, actor=actor, subject={"staff": user.pk}, details={"kind": str(kind)})
