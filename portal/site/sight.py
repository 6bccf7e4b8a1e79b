"""A team sees its partners and what belongs to them: decided here for lists, pages, files and services (S-48)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from django.db.models import Model, Q, QuerySet

from portal.audit.trail import Actor
from portal.models import Limits
from portal.rights import Forbidden
from portal.site.extension_points import extensions
from portal.site.limit_kinds import LimitKind, Sight


@cache
def limit_kinds() -> Mapping[str, LimitKind]:
    """Return what a team can be limited to."""
    return {word: kind for extension in extensions() for word, kind in extension.limits.items()}


@cache
def sights() -> Mapping[str, Sight]:
    """Return what the apps declare, by ``app.model``."""
    return {model: sight for extension in extensions() for model, sight in extension.sights.items()}


def visible[Rows: QuerySet[Any]](rows: Rows, limits: Limits | None) -> Rows:
    """Return those rows that somebody with these limits sees; without limits the same queryset, untouched.

    Of a model that no app declares, nothing is seen.
    """
    if limits is None:
        return rows
    sight = sights().get(rows.model._meta.label_lower)
    if sight is None:
        return rows.none()
    return rows if sight.everybody else rows.filter(_seen(sight, limits))


def within[Rows: QuerySet[Any]](rows: Rows, actor: Actor) -> Rows:
    """Return those rows that the actor of a service may see."""
    return visible(rows, actor.limits())


def require_sight(actor: Actor, *rows: Model) -> None:
    """Let an actor pass who sees each of these rows. One query for each, none for somebody without a team.

    Raises:
        Forbidden: one of them belongs to a partner that is hidden from the actor; the trail says so.
    """
    limits = actor.limits()
    for row in rows if limits is not None else ():
        if not visible(type(row)._default_manager.filter(pk=row.pk), limits).exists():
            raise Forbidden(
                "it belongs to a partner that your teams do not see. Ask a security administrator to change them.",
                actor=actor,
                needed=[f"sight of {row._meta.label_lower} {row.pk}"],
            )


def _seen(sight: Sight, limits: Limits) -> Q:
    either = Q((sight.person, limits.person)) if sight.person else Q(pk__in=[])
    if not (sight.partner or sight.subject or sight.own):
        return either
    for team in limits.teams:
        own = {kind: path for kind, path in sight.own.items() if kind in team}
        every = Q(*(Q((f"{path}__in", team[kind])) for kind, path in own.items()))
        if sight.partner:
            every &= Q((f"{sight.partner}__in", _partners(team).values("pk")))
        if sight.subject:
            every &= Q((f"{sight.subject}__partner__in", list(_partners(team).values_list("pk", flat=True))))
        if not every:
            return Q()  # what the limits of this team do not speak of
        either |= every
    return either


def _partners(team: Mapping[str, frozenset[int]]) -> QuerySet[Any]:
    """Return the partners of a team: those that fit one limit of each of its kinds."""
    first, *others = [limit_kinds()[kind].partners(keys) for kind, keys in sorted(team.items())]
    for other in others:
        first = first.filter(pk__in=other.values("pk"))
    return first.order_by()
