"""Teams: who sees some partners only, and which (S-48).

A team is a group of people with limits. ``portal.site.sight`` says what follows from them for each list, page, file and
service. Who is in no team sees all partners.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from django.contrib.auth.models import Group, Permission, User
from django.db import transaction

from portal.audit.trail import Actor, record
from portal.models import Team, TeamLimit
from portal.rights import LIMITED, require, require_unlimited
from portal.site.sight import limit_kinds
from portal.staff.roles import GRANT, Role, RoleRefused, refuse_own, roles_of

type Keys = Mapping[str, Collection[int]]


class TeamRefused(ValueError):
    """This team cannot be so; the text says why and what to do."""


def make(name: str, limits: Keys, *, actor: Actor) -> Team:
    """Make a team without members.

    Args:
        limits: keys by the kinds that apps declare; at least one key.

    Raises:
        TeamRefused: there is a group of this name, or no limit.
    """
    require(actor, GRANT)
    require_unlimited(actor)
    with transaction.atomic():
        if Group.objects.filter(name=name).exists():
            raise TeamRefused(f"There is a role or team {name} already; choose another name.")
        group = Group.objects.create(name=name)
        app, _, codename = LIMITED.partition(".")
        group.permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
        team = Team.objects.create(group=group)
        after = _write(team, limits)
        record("team.created", actor=actor, subject={"team": team.pk}, details={"name": name, "after": after})
    return team


def change(team: Team, limits: Keys, *, actor: Actor) -> None:
    """Give a team these limits, from the next page of its members on.

    Raises:
        TeamRefused: no limit is left.
    """
    require(actor, GRANT)
    require_unlimited(actor)
    with transaction.atomic():
        before = _told(team)
        team.limits.all().delete()
        after = _write(team, limits)
        details = {"before": before, "after": after}
        record("team.changed", actor=actor, subject={"team": team.pk}, details=details)


def put_into(person: User, teams: Collection[Team], *, actor: Actor) -> bool:
    """Make a person a member of exactly these teams, and say whether that changed anything.

    Raises:
        RoleRefused: it is the actor, somebody above, or a security administrator, whose work concerns all partners.
    """
    require(actor, GRANT)
    require_unlimited(actor)
    with transaction.atomic():
        held = set(Team.objects.filter(group__user=person.pk))
        if held == set(teams):
            return False
        refuse_own(person, actor)
        if teams and Role.SECURITY in roles_of(person):
            raise RoleRefused("A security administrator works on what concerns all partners, and is in no team.")
        person.groups.remove(*(team.group for team in held - set(teams)))
        person.groups.add(*(team.group for team in set(teams) - held))
        details = {"before": sorted(map(str, held)), "after": sorted(map(str, teams))}
        record("staff.teams_changed", actor=actor, subject={"staff": person.pk}, details=details)
    return True


def _write(team: Team, limits: Keys) -> dict[str, list[int]]:
    if unknown := set(limits) - set(limit_kinds()):
        raise TeamRefused(f"A team cannot be limited by {min(unknown)}.")
    TeamLimit.objects.bulk_create(
        TeamLimit(team=team, kind=kind, key=key) for kind, keys in limits.items() for key in sorted(set(keys))
    )
    if not team.limits.exists():
        raise TeamRefused("Choose at least one: without a limit the members would see no partner.")
    return _told(team)


def _told(team: Team) -> dict[str, list[int]]:
    told: dict[str, list[int]] = {}
    for kind, key in team.limits.order_by("kind", "key").values_list("kind", "key"):
        told.setdefault(kind, []).append(key)
    return told
