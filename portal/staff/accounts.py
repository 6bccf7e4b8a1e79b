"""Accounts of staff from the server: the first one, and the way back when nobody gets in any more."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from portal.audit.trail import Actor, Outcome, record
from portal.decisions.kinds import Approval
from portal.incidents.service import report
from portal.mail import MailFailed, MailPrinted, one_address, open_mailer, send
from portal.microsoft.diagnosis import Owner
from portal.microsoft.secret import Secret
from portal.rights import SERVER, require
from portal.staff import factors, sessions
from portal.staff.models import LINK_LIFETIME, StaffLink
from portal.staff.passkeys import origin

RECOVERED = "account_recovered"
MAKE_LINK = "staff.make_stafflink"
FIRST_ROLE = "Security administrator"  # gives roles to all others


class AccountRefused(Exception):
    """The account cannot be made or recovered; the text says why and what to do."""


def has_first_role() -> bool:
    """Whether the role of the first administrator exists; without it the first account must be a superuser."""
    return Group.objects.filter(name=FIRST_ROLE).exists()


def create(name: str, *, roles: Sequence[str] = (), superuser: bool = False, actor: Actor) -> Secret:
    """Make an account without a password, and return the address of the link that sets password and factor.

    Args:
        roles: names of groups.
        superuser: the emergency role, which may do everything.

    Raises:
        AccountRefused: the name is taken or no name, or a role is unknown.
    """
    require(actor, SERVER)
    groups = _groups(roles)
    user = User(username=name, is_staff=True, is_superuser=superuser)
    user.set_unusable_password()
    try:
        user.full_clean(exclude=["password"])
    except ValidationError as error:
        raise AccountRefused(" ".join(error.messages)) from None
    with transaction.atomic():
        user.save()
        user.groups.set(groups)
        record(
            "staff.created",
            actor=actor,
            subject={"staff": user.pk},
            details={"username": name, "roles": sorted(roles), "superuser": superuser},
        )
        return _link(user, StaffLink.Kind.FIRST)


def is_in_use(user: User) -> bool:
    """Whether the account has a password or a factor, so that a link would take it away from its owner."""
    return user.has_usable_password() or factors.has_any(user)


def needs_second_person(user: User) -> bool:
    """Whether two persons decide about a link: the account is in use, or gives roles to all others."""
    return is_in_use(user) or user.groups.filter(name=FIRST_ROLE).exists()


def why_no_link(user: User, *, by: User | None = None) -> str:
    """Say why no link is made for this account; empty when one can be.

    Args:
        by: who would make it.
    """
    if not user.is_active or not user.is_staff:
        return "The account is switched off, or is none of staff: change that first."
    if by is not None and user.is_superuser and not by.is_superuser:
        return "Only a superuser makes a link for the account of a superuser."
    return ""


def make_link(user: User, *, by: User, actor: Actor, approved: Approval | None = None) -> Secret:
    """Return the address of a link that sets password and factor of another person's account.

    Where the account is in use, an incident and a mail to its owner tell it: the link opens it without password and
    factor.

    Args:
        approved: of two persons, where the account is in use, or that of a security administrator.

    Raises:
        AccountRefused: the account is switched off, may do everything and who asks may not, or a second person has to
            approve it.
    """
    require(actor, MAKE_LINK)
    if why := why_no_link(user, by=by):
        raise AccountRefused(why)
    in_use = is_in_use(user)
    if approved is None and needs_second_person(user):
        raise AccountRefused("Two persons decide about a link for this account. Ask a second person first.")
    with transaction.atomic():
        kind = StaffLink.Kind.RECOVERY if in_use else StaffLink.Kind.FIRST
        details = {"kind": kind.value, **(approved.noted() if approved else {})}
        record("staff.link_made", actor=actor, subject={"staff": user.pk}, details=details)
        if in_use:
            report(
                RECOVERED,
                about=f"staff:{user.pk}",
                name=user.get_username(),
                owner=Owner.US,
                words=(
                    f"{actor.name} made a link that sets a new password and factor for {user.get_username()}. Ask this "
                    "person whether the link was wanted. If not, switch both accounts off and look at the audit trail."
                ),
                subject={"staff": user.pk},
            )
        address = _link(user, kind)
    if in_use:
        _tell_owner(user, actor)
    return address


def _tell_owner(user: User, actor: Actor) -> None:
    """Mail the owner of an account that a link to it was made; outside any transaction. The trail says what came of it.

    The mail holds no link, and who has no address is told by nobody but the incident.
    """
    outcome, why = Outcome.FAILED, "no address"
    if user.email:
        text = (
            f"{actor.name} made a link that sets a new password and a new factor for your account "
            f"{user.get_username()}. It works once, for an hour. When it is used, your password, your factors and your "
            "sessions end.\n\nDid you ask for it? Then use the link that you are given. If not, tell a colleague at "
            f"once, by telephone: somebody may be taking over your account.\n\n{origin()}\n"
        )
        try:
            with open_mailer() as mailer:
                to = [one_address(user.email)]
                send(EmailMessage("A link to your account was made", text, to=to), mailer)
            outcome, why = Outcome.DONE, ""
        except MailPrinted:
            outcome, why = Outcome.DONE, "printed"
        except MailFailed as failed:
            why = str(failed)
    details = {"why": why} if why else {}
    record("staff.link_told", actor=actor, outcome=outcome, subject={"staff": user.pk}, details=details)


def recover(name: str, *, actor: Actor) -> Secret:
    """Return the address of a link that sets a new password and a new factor for an account; report it loudly.

    The account works again if it was switched off. Its sessions end, and its factors go, when the link is used.

    Raises:
        AccountRefused: there is no such account.
    """
    require(actor, SERVER)
    user = User.objects.filter(username=name).first()
    if user is None:
        raise AccountRefused(f"There is no account {name}.")
    with transaction.atomic():
        was_active = user.is_active
        user.is_active = user.is_staff = True
        user.save(update_fields=["is_active", "is_staff"])
        details = {"was_active": was_active, "superuser": user.is_superuser}
        record("staff.recovery_begun", actor=actor, subject={"staff": user.pk}, details=details)
        report(
            RECOVERED,
            about=f"staff:{user.pk}",
            name=name,
            owner=Owner.US,
            words=(
                f"On the server {actor.name} asked for a link that sets a new password and factor for {name}. If "
                "nobody of you did, whoever did has access to the server: switch the account off, and look there."
            ),
            subject={"staff": user.pk},
        )
        address = _link(user, StaffLink.Kind.RECOVERY)
    _tell_owner(user, actor)
    return address


def _groups(roles: Sequence[str]) -> list[Group]:
    found = {group.name: group for group in Group.objects.filter(name__in=roles)}
    if unknown := [role for role in roles if role not in found]:
        known = ", ".join(Group.objects.order_by("name").values_list("name", flat=True)) or "none"
        raise AccountRefused(f"There is no role {unknown[0]}. The roles are: {known}.")
    return list(found.values())


def _link(user: User, kind: StaffLink.Kind) -> Secret:
    token = secrets.token_urlsafe(32)
    now = timezone.now()
    StaffLink.objects.filter(user=user, used_at=None).update(expires_at=now)  # the newest is the only one
    StaffLink.objects.create(user=user, kind=kind, token_hash=_hash(token), expires_at=now + LINK_LIFETIME)
    return Secret(f"{origin()}{reverse('staff_link', args=[token])}")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def find_link(token: str) -> StaffLink | None:
    """Return the link that this is the token of, if it is still good."""
    links = StaffLink.objects.select_related("user")
    return links.filter(token_hash=_hash(token), used_at=None, expires_at__gt=timezone.now()).first()


def use_link(link: StaffLink, password: str, *, actor: Actor) -> bool:
    """Set the password of a link's account, take its factors away and end its sessions.

    Returns:
        False when somebody used the link meanwhile, or it is over.
    """
    now = timezone.now()
    user = link.user
    with transaction.atomic():
        if not StaffLink.objects.filter(pk=link.pk, used_at=None, expires_at__gt=now).update(used_at=now):
            return False
        user.set_password(password)
        user.save(update_fields=["password"])
        factors.remove_all(user, actor=actor)
        sessions.end_all(user, why=sessions.Why.PASSWORD, actor=actor)
        record("staff.link_used", actor=actor, subject={"staff": user.pk}, details={"kind": link.kind})
    return True
