"""What an actor may do: asked by each service before it changes something or hands something out (S-48).

A page asks as well, so that it offers nothing that is refused; what counts is the answer here. A right is a permission
of Django by its name, such as ``incidents.settle_incident``. Who has which:

===========================  ===========================================================================================
actor                        rights
===========================  ===========================================================================================
a member of staff            the permissions of the person's roles (``portal.staff.roles``)
a command                    all: whoever may run it holds the keys and the database of the server anyway
the schedule                 those that its jobs name
the holder of a link         none: the sign-in checks the link itself
a run that is worked         none: it was asked of the person who began the run, and no unit of it needs one
===========================  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.dispatch import Signal

from portal.audit.models import AuditEvent
from portal.audit.trail import Actor, record
from portal.models import Limits, TeamLimit

LIMITED = "portal.limited"  # the permission of the groups of teams; it takes away
SERVER = "server"  # the right to what only a command or the schedule does; no role holds it

superuser_acted = Signal()
"""Sent with ``actor`` and ``right`` when a superuser passes: this account is for emergencies."""


class Forbidden(PermissionDenied):
    """The actor may not do this; nothing was done. The trail says so. The text says why, and who can change it.

    Args:
        needed: what was missing, for the trail.
    """

    def __init__(self, words: str, *, actor: Actor, needed: Sequence[str]) -> None:
        super().__init__(f"Nothing was done: {words}")
        self.actor, self.needed = actor, list(needed)
        self.event = self._recorded()

    def _recorded(self) -> AuditEvent:
        details = {"needed": self.needed}
        return record(
            "right.refused", actor=self.actor, outcome=AuditEvent.Outcome.REFUSED, subject={}, details=details
        )

    def write_again(self) -> None:
        """Write the entry anew if a transaction that this error ended took it along; call it outside of that one."""
        if not AuditEvent.objects.filter(pk=self.event.pk, mac=self.event.mac).exists():
            self.event = self._recorded()


def require(actor: Actor, *rights: str) -> None:
    """Let an actor pass who has any of these rights; what several rights cover names each of them.

    Raises:
        Forbidden: the actor has none of them; the trail says so.
    """
    for right in rights:
        if actor.may(right):
            if actor.is_superuser:
                superuser_acted.send(sender=None, actor=actor, right=right)
            return
    words = " or ".join(map(_words_of, rights)) or "work on the server"
    raise Forbidden(
        f"this needs the right to {words}. A security administrator can give you a role that has it.",
        actor=actor,
        needed=rights,
    )


def require_unlimited(actor: Actor) -> None:
    """Let an actor pass from whom no partner is hidden: what follows touches all of them.

    Raises:
        Forbidden: the actor is a member of a team.
    """
    if actor.limits() is not None:
        raise Forbidden(
            "this concerns all partners, and you see those of your teams only. Ask somebody who is in no team.",
            actor=actor,
            needed=["all partners"],
        )


def limits_of(person: Any) -> Limits | None:
    """Return what a signed-in person sees; None when that is everything.

    Only a member of a team costs a query, once in a request: that somebody is one stands among the rights.
    """
    if person.is_superuser or not person.has_perm(LIMITED):
        return None
    if not hasattr(person, "limits_of_teams"):
        person.limits_of_teams = TeamLimit.objects.of(person)
    limits: Limits = person.limits_of_teams
    return limits


def _words_of(right: str) -> str:
    """Return a right in words, as its permission is called: "Can disable a partner" becomes "disable a partner"."""
    app, _, name = right.partition(".")
    found = Permission.objects.filter(content_type__app_label=app, codename=name).values_list("name", flat=True).first()
    return "work on the server" if right == SERVER else (found or right).removeprefix("Can ")
