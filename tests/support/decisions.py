"""A second person who decides, and something harmless to decide about."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission, User

from portal.decisions import service
from portal.decisions.kinds import Approval, CannotBeDone, Change, Kind, Parameters, Preview, Result
from portal.decisions.models import Decision
from portal.decisions.service import Person
from tenants.models import PartnerTenant
from tests.support import builders


def account(name: str, *permissions: str) -> User:
    """Make an account with these permissions; without any, a superuser."""
    if not permissions:
        return User.objects.create_superuser(name)
    made = User.objects.create_user(name, is_staff=True)
    for one in permissions:
        app, codename = one.split(".")
        made.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    return made


def person(of: User, *, proven: float | None = 1.0, factors: tuple[str, ...] = ()) -> Person:
    """Return somebody who proved a second ago who they are."""
    return Person(account=of, address="192.0.2.9", proven=proven, factors=frozenset(factors))


def second_person() -> Person:
    """Return another member of staff, who may decide about everything."""
    name = "second-person"
    return person(User.objects.filter(username=name).first() or account(name))


def approve(decision: Decision | None = None) -> Decision:
    """Let a second person approve the request, by default the only one that waits."""
    return service.approve(decision or Decision.objects.get(state=Decision.State.WAITING), person=second_person())


def decided(kind: Kind, parameters: Parameters) -> Decision:
    """Let somebody ask for it and a second person approve it; it is done then, or may be done by its command."""
    decision, _ = service.ask(kind, parameters, why="It is meant.", actor=builders.ACTOR)
    return approve(decision) if decision.state == Decision.State.WAITING else decision


def approval(kind: str = "test") -> Approval:
    """Return an approval for a service that wants one, where the decision is not what a test is about."""
    return Approval(decision=0, kind=kind, actor=builders.ACTOR, approved_by="second-person", way="second")


class Broken(Exception):
    """Something that the deed did not expect."""


def _preview(parameters: Parameters) -> Preview:
    partner = PartnerTenant.objects.filter(pk=parameters["partner"]).first()
    if partner is None:
        raise CannotBeDone("The partner is gone.")
    return Preview(
        what=f"Rename {partner.tenant_id}",
        whom=partner.name,
        subject={"partner": partner.pk},
        changes=[Change(label="Name", now=partner.name, then=parameters["name"])],
        cannot_be_undone="Nobody remembers the old name.",
    )


def _rename(parameters: Parameters, approved: Approval) -> Result:
    if parameters["name"] == "broken":
        raise Broken("secret detail")
    if parameters["name"] == "refused":
        raise CannotBeDone("This name is taken.")
    changed = PartnerTenant.objects.filter(pk=parameters["partner"]).update(name=parameters["name"])
    return Result(words=f"{changed} renamed.", subject={"partner": parameters["partner"]})


_COMMON: dict[str, Any] = {
    "permission": "tenants.change_partnertenant",
    "preview": _preview,
    "rows": lambda parameters: PartnerTenant.objects.filter(pk=parameters["partner"]),
    "refusals": (CannotBeDone,),
}
RENAME = Kind(key="test_rename", title="Rename a partner", execute=_rename, **_COMMON)
RENAME_ON_THE_SERVER = Kind(key="test_rename_server", title="Rename a partner there", may_repeat=True, **_COMMON)
