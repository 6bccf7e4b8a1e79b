"""What two persons decide about the accounts of staff: who becomes a security administrator, and links to accounts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet

from portal.decisions.kinds import Approval, CannotBeDone, Change, Kind, Parameters, Preview, Result, TwoPersons
from portal.staff import accounts, factors
from portal.staff.roles import GRANT, Role, RoleRefused, grant, needs_second_person, roles_of
from portal.text import number_of


def _rows(parameters: Parameters) -> QuerySet[User]:
    return User.objects.filter(pk=parameters["staff"])


def _person(parameters: Parameters) -> User:
    return _rows(parameters).get()  # no account of staff is ever deleted


# --- a security administrator -----------------------------------------------------------------------------------------


def roles_for(person: User, roles: Collection[Role]) -> dict[str, Any]:
    """Return the parameters to give a person exactly these roles."""
    return {"staff": person.pk, "roles": [role.value for role in Role if role in roles]}


def _see_roles(parameters: Parameters) -> Preview:
    person, roles = _person(parameters), [Role(name) for name in parameters["roles"]]
    name = person.get_username()
    if not needs_second_person(person, roles):
        raise CannotBeDone(f"{name} is a security administrator already. Change the roles on the page of the account.")
    if not person.is_active:
        raise CannotBeDone(f"The account {name} is switched off.")
    return Preview(
        what=f"Make {name} a security administrator",
        whom=name,
        subject={"staff": person.pk},
        changes=[Change(label="Roles", now=", ".join(roles_of(person)) or "none", then=", ".join(roles))],
    )


def _give_roles(parameters: Parameters, approved: Approval) -> Result:
    roles = [Role(name) for name in parameters["roles"]]
    grant(_person(parameters), roles, actor=approved.actor, approved=approved)
    return Result(words="The roles are given.", subject={"staff": parameters["staff"]})


MAKE_SECURITY = Kind(
    key="make_security_administrator",
    title="Make somebody a security administrator",
    permission=GRANT,
    preview=_see_roles,
    rows=_rows,
    execute=_give_roles,
    refusals=(CannotBeDone, RoleRefused),
)


# --- a link to an account in use --------------------------------------------------------------------------------------


def link_for(person: User) -> dict[str, Any]:
    """Return the parameters to make a one-time link for a person's account."""
    return {"staff": person.pk}


def _see_link(parameters: Parameters) -> Preview:
    person = _person(parameters)
    name, held = person.get_username(), number_of(len(factors.of(person)), "factor")
    if why := accounts.why_no_link(person):
        raise CannotBeDone(why)
    return Preview(
        what=f"Make a one-time link for the account of {name}",
        whom=name,
        subject={"staff": person.pk},
        changes=[
            Change(
                label="Password and factors",
                now=f"a password and {held}" if person.has_usable_password() else held,
                then="set anew by whoever opens the link within an hour; the old ones and all sessions end",
            ),
            Change(label="Roles", now=", ".join(roles_of(person)) or "none", then="those of whoever opens the link"),
        ],
        cannot_be_undone="Ask the person, by another way than mail, whether the link is wanted.",
    )


LINK = Kind(
    key="link_for_account",
    title="Make a one-time link for an account in use",
    permission=accounts.MAKE_LINK,
    preview=_see_link,
    rows=_rows,
    then="Who asked makes the link now, on the page of the account, before the request ends.",
    refusals=(accounts.AccountRefused,),
)

TWO_PERSONS = TwoPersons(kinds=(MAKE_SECURITY, LINK))
