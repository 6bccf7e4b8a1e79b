"""Roles of staff: which rights each has, who may give them, and the groups that carry them (S-48).

A role is a group of Django with a fixed set of permissions. ``RIGHTS`` is the one table; after each ``migrate`` the
groups are made as it says, whatever they held before. So a person's rights are those of the person's roles, an identity
provider can name roles, and nobody edits permissions by hand. ``docs/roles.md`` shows what follows from the table for
every page, action and service.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

from django.apps import AppConfig
from django.apps import apps as installed
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import F

from portal.audit.models import AuditEvent
from portal.audit.trail import Actor, record
from portal.decisions.kinds import Approval
from portal.models import Team
from portal.rights import require

GRANT = "portal.grant_role"


class Role(StrEnum):
    """The roles, by the names of their groups."""

    VIEWER = "Viewer"
    ONBOARDER = "Onboarder"
    OPERATOR = "Operator"
    SECURITY = "Security administrator"
    AUDITOR = "Auditor"


PURPOSES: Mapping[Role, str] = {
    Role.VIEWER: "Sees partners, customers, plans, runs and incidents. Changes nothing.",
    Role.ONBOARDER: "Adds and edits partners, makes and mails links, runs campaigns and imports.",
    Role.OPERATOR: "Checks tokens, synchronises, plans and applies consent, verifies it, works on runs and incidents.",
    Role.SECURITY: (
        "Disables and offboards partners, decides on accounts, keeps registrations, credentials, wanted grants and "
        "permission sets, and gives roles to staff."
    ),
    Role.AUDITOR: "Sees everything, reads the audit trail and exports lists. Changes nothing.",
}

_RANK: Mapping[Role, int] = {Role.VIEWER: 1, Role.AUDITOR: 1, Role.ONBOARDER: 2, Role.OPERATOR: 2, Role.SECURITY: 3}
_TOP = max(_RANK.values())

_ALL = tuple(Role)
_ONBOARD = (Role.ONBOARDER,)
_OPERATE = (Role.OPERATOR,)
_SECURE = (Role.SECURITY,)
_HANDLE = (Role.OPERATOR, Role.SECURITY)
_CONTROL = (Role.SECURITY, Role.AUDITOR)

RIGHTS: Mapping[str, Sequence[Role]] = {
    # What all roles see.
    "consent.view_applicationcredential": _ALL,
    "consent.view_applicationregistration": _ALL,
    "consent.view_campaign": _ALL,
    "consent.view_campaignpartner": _ALL,
    "consent.view_consentflow": _ALL,
    "consent.view_consentlink": _ALL,
    "consent.view_consentobservation": _ALL,
    "consent.view_consentplan": _ALL,
    "consent.view_consentplanitem": _ALL,
    "consent.view_containment": _ALL,
    "consent.view_customerconsent": _ALL,
    "consent.view_offboarding": _ALL,
    "consent.view_ownpermissionset": _ALL,
    "consent.view_partnerconsent": _ALL,
    "consent.view_tokenuse": (*_HANDLE, Role.AUDITOR),
    "consent.view_waitingtoken": _ALL,
    "incidents.view_incident": _ALL,
    "runs.view_run": _ALL,
    "runs.view_runitem": _ALL,
    "runs.view_scheduledjob": _ALL,
    "tenants.view_customertenant": _ALL,
    "tenants.view_partnertag": _ALL,
    "tenants.view_partnertenant": _ALL,
    # Partners, links and campaigns.
    "consent.add_campaign": _ONBOARD,
    "consent.add_consentlink": _ONBOARD,
    "consent.close_campaign": _ONBOARD,
    "consent.extend_consentlink": _ONBOARD,
    "consent.revoke_consentlink": _ONBOARD,
    "consent.send_campaign": _ONBOARD,
    "consent.send_consentlink": _ONBOARD,
    "tenants.add_partnertag": _ONBOARD,
    "tenants.add_partnertenant": _ONBOARD,
    "tenants.change_partnertag": _ONBOARD,
    "tenants.change_partnertenant": _ONBOARD,
    # Tokens, customers, plans.
    "consent.add_consentplan": _OPERATE,
    "consent.apply_consentplan": _OPERATE,
    "consent.check_partnerconsent": _OPERATE,
    "consent.remove_customerconsent": _OPERATE,
    "consent.renew_partnerconsent": _OPERATE,
    "consent.verify_customerconsent": _OPERATE,
    "runs.start_scheduledjob": _OPERATE,
    "tenants.sync_partnertenant": _OPERATE,
    # Runs, incidents, what is shared.
    "incidents.note_incident": _HANDLE,
    "incidents.settle_incident": _HANDLE,
    "incidents.snooze_incident": _HANDLE,
    "portal_site.share_savedfilter": _HANDLE,
    "runs.steer_run": _HANDLE,
    # What endangers partners, and what the portal is.
    "consent.add_applicationcredential": _SECURE,
    "consent.begin_containment": _HANDLE,
    "consent.resume_containment": _SECURE,
    "consent.erase_partner": _SECURE,
    "consent.view_erasure": _CONTROL,
    "consent.add_applicationregistration": _SECURE,
    "consent.add_ownpermissionset": _SECURE,
    "consent.change_applicationregistration": _SECURE,
    "consent.change_ownpermissionset": _SECURE,
    "consent.decide_waitingtoken": _SECURE,
    "consent.disconnect_partnerconsent": _SECURE,
    "consent.offboard_partner": _SECURE,
    "consent.promote_applicationcredential": _SECURE,
    "consent.retire_applicationcredential": _SECURE,
    "tenants.disable_partnertenant": _SECURE,
    # Staff.
    "auth.add_user": _SECURE,
    "auth.change_user": _SECURE,
    "portal.add_team": _SECURE,
    "portal.change_team": _SECURE,
    GRANT: _SECURE,
    "decisions.decide_keys": _SECURE,
    "decisions.view_decision": (*_HANDLE, Role.AUDITOR),
    "staff.end_staffsession": _SECURE,
    "staff.make_stafflink": _SECURE,
    "portal.view_team": _CONTROL,
    "auth.view_group": _CONTROL,
    "auth.view_user": _CONTROL,
    # The trail, and files of lists.
    "audit.view_auditevent": _CONTROL,
    "portal_site.export_list": (Role.OPERATOR, Role.SECURITY, Role.AUDITOR),
}
"""The roles that have a right. A right that stands not here belongs to nobody but superusers."""


class RoleRefused(ValueError):
    """These roles are not given; the text says why and what to do."""


def rights_of(*roles: Role) -> frozenset[str]:
    """Return what the holder of these roles may do."""
    return frozenset(right for right, holders in RIGHTS.items() if set(holders) & set(roles))


def roles_of(person: User) -> list[Role]:
    """Return a person's roles in their order; one query."""
    held = set(person.groups.filter(name__in=list(Role)).values_list("name", flat=True))
    return [role for role in Role if role in held]


def why_not_managed(person: User, *, by: User) -> str:
    """Say why one person must not change the account of another; empty when it may. Two queries at most.

    Whoever could set the password of somebody with more rights would have those rights.
    """
    if by.is_superuser or by.pk == person.pk:
        return ""
    if person.is_superuser:
        return "This account is a superuser, for emergencies. It is changed on the server only."
    if _rank(roles_of(person)) > _rank(roles_of(by)):
        return f"{person.get_username()} has a role above yours. Ask somebody who has that role."
    return ""


def needs_second_person(person: User, roles: Collection[Role]) -> bool:
    """Whether these roles would make somebody a security administrator, who gives roles to all others."""
    return Role.SECURITY in roles and Role.SECURITY not in roles_of(person)


def why_not_granted(person: User, roles: Collection[Role], *, actor: Actor) -> str:
    """Say why the actor cannot give a person these roles; empty when it can. Raises Forbidden without the right."""
    require(actor, GRANT)
    try:
        refuse_own(person, actor)
        _refuse_above(roles_of(person), [role for role in Role if role in roles], actor)
        _refuse_member_of_team(person, roles)
    except RoleRefused as refused:
        return str(refused)
    return ""


def grant(person: User, roles: Collection[Role], *, actor: Actor, approved: Approval | None = None) -> bool:
    """Give a person exactly these roles, and say whether that changed anything.

    Nobody raises own rights: one's own roles are given and taken by another person, and nobody gives a role above the
    highest of one's own.

    Args:
        approved: of two persons, where a member of staff makes somebody a security administrator.

    Raises:
        Forbidden: the actor may not give roles.
        RoleRefused: own roles, a role above one's own, a person with one, or a second person has to approve it.
    """
    require(actor, GRANT)
    with transaction.atomic():
        # Writes nothing new; the row is held until the end, so that of two changes the second sees the first.
        User.objects.filter(pk=person.pk).update(username=F("username"))
        person = User.objects.get(pk=person.pk)
        before, after = roles_of(person), [role for role in Role if role in roles]
        if before == after:
            return False
        refuse_own(person, actor)
        _refuse_above(before, after, actor)
        _refuse_member_of_team(person, after)
        if approved is None and Role.SECURITY in {*after} - {*before} and actor.kind == AuditEvent.ActorKind.STAFF:
            raise RoleRefused("Two persons decide who becomes a security administrator. Ask a second person first.")
        groups = list(Group.objects.filter(name__in=after))
        if len(groups) != len(after):
            raise RoleRefused("A role has no group yet. Run migrate on the server, then try again.")
        person.groups.remove(*Group.objects.filter(name__in=list(Role)).exclude(name__in=after))
        person.groups.add(*groups)
        record(
            "staff.roles_changed",
            actor=actor,
            subject={"staff": person.pk},
            details={
                "before": [role.value for role in before],
                "after": [role.value for role in after],
                **(approved.noted() if approved else {}),
            },
        )
    return True


def refuse_own(person: User, actor: Actor) -> None:
    """Raise RoleRefused when somebody acts on the own account, or on that of somebody above."""
    if (giver := _member(actor)) is None:
        return
    if giver.pk == person.pk:
        raise RoleRefused("Nobody changes their own roles or teams. Ask another security administrator.")
    if why := why_not_managed(person, by=giver):
        raise RoleRefused(why)


def _refuse_above(before: Sequence[Role], after: Sequence[Role], actor: Actor) -> None:
    giver = _member(actor)
    highest = _TOP if giver is None or giver.is_superuser else _rank(roles_of(giver))
    if above := [role for role in after if role not in before and _RANK[role] > highest]:
        raise RoleRefused(f"{above[0]} is a role above yours. Ask somebody who has it.")


def _refuse_member_of_team(person: User, roles: Collection[Role]) -> None:
    if Role.SECURITY in roles and Team.objects.filter(group__user=person.pk).exists():
        raise RoleRefused("A security administrator sees all partners: take the person out of the teams first.")


def _member(actor: Actor) -> User | None:
    """Return the account of a member of staff; a command and an identity provider have none, and no role above."""
    return User.objects.get_by_natural_key(actor.name) if actor.kind == AuditEvent.ActorKind.STAFF else None


def _rank(roles: Collection[Role]) -> int:
    return max((_RANK[role] for role in roles), default=0)


def keep_groups(app_config: AppConfig, using: str, apps: Any = installed, **_: Any) -> None:
    """Make the groups as the table says, after the permissions of the last app were made; three queries when they are.

    A receiver of ``post_migrate``: permissions are rows that no migration can count on.
    """
    if app_config.label != [one.label for one in installed.get_app_configs() if one.models_module is not None][-1]:
        return
    try:
        permissions, groups = apps.get_model("auth", "Permission"), apps.get_model("auth", "Group")
    except LookupError:
        return
    names = {right.partition(".")[2] for right in RIGHTS}
    rows = permissions._default_manager.using(using).filter(codename__in=names).select_related("content_type")
    keys = {f"{row.content_type.app_label}.{row.codename}": row.pk for row in rows}
    known = {group.name: group for group in groups._default_manager.using(using).filter(name__in=list(Role))}
    through = groups.permissions.through._default_manager.using(using)
    held = set(through.filter(group__in=known.values()).values_list("group", "permission"))
    for role in Role:
        group = known.get(role.value) or groups._default_manager.using(using).create(name=role.value)
        wanted = {(group.pk, keys[right]) for right in rights_of(role) if right in keys}
        mine = {pair for pair in held if pair[0] == group.pk}
        if mine - wanted:
            through.filter(group=group.pk, permission__in=[key for _, key in mine - wanted]).delete()
        through.bulk_create(through.model(group_id=one, permission_id=key) for one, key in sorted(wanted - mine))
