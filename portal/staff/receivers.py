"""All sessions of an account end when its password or rights change or it is switched off (S-47), whoever does it.

These are signals because there are many doors: forms, services, commands, a shell. ``QuerySet.update`` on users sends
none; nothing of the portal uses it there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models.signals import m2m_changed, post_migrate, post_save, pre_save
from django.dispatch import receiver
from django.http import HttpRequest

from portal.audit.trail import Actor, record
from portal.site.addresses import client_address
from portal.site.middleware import is_staff_path
from portal.staff import sessions
from portal.staff.roles import keep_groups
from portal.staff.sessions import Why

_RIGHTS = ("is_staff", "is_superuser")
_WATCHED = ("password", "is_active", *_RIGHTS)
_CHANGES = {"post_add", "post_remove", "pre_clear"}

post_migrate.connect(keep_groups, dispatch_uid="keep_groups_of_roles")


@receiver(user_logged_in)
def know_the_session(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    sessions.keep(request, user)


@receiver(user_logged_out)
def note_the_end(sender: Any, request: HttpRequest, user: User | None, **kwargs: Any) -> None:
    if user is None or not is_staff_path(request.path_info):
        return
    why = Why.SIGNED_OUT if request.method == "POST" and request.path_info.endswith("/logout/") else Why.TIME
    record(
        "session.ended",
        actor=Actor.staff(user.get_username(), client_address(request)),
        subject={"staff": user.pk},
        details={"why": why.value, "sessions": 1},
    )


@receiver(pre_save, sender=User)
def compare(
    sender: Any, instance: User, raw: bool = False, update_fields: Collection[str] | None = None, **kwargs: Any
) -> None:
    """Keep on the row what of it changes; one query, and none where only the time of the sign-in is written."""
    instance._ends_because = None  # type: ignore[attr-defined]
    if raw or instance.pk is None or (update_fields is not None and not {*update_fields} & {*_WATCHED}):
        return
    before = User.objects.filter(pk=instance.pk).values(*_WATCHED).first()
    if before is None:
        return
    changed = {name for name in _WATCHED if before[name] != getattr(instance, name)}
    if "is_active" in changed:
        instance._ends_because = Why.SWITCHED_OFF  # type: ignore[attr-defined]
    elif changed & {*_RIGHTS}:
        instance._ends_because = Why.RIGHTS  # type: ignore[attr-defined]
    elif changed:
        instance._ends_because = Why.PASSWORD  # type: ignore[attr-defined]


@receiver(post_save, sender=User)
def end_after_a_change(sender: Any, instance: User, **kwargs: Any) -> None:
    why = getattr(instance, "_ends_because", None)
    if why is not None:
        sessions.end_all(instance, why=why)


@receiver(m2m_changed, sender=User.groups.through)
@receiver(m2m_changed, sender=User.user_permissions.through)
def end_after_a_change_of_rights(
    sender: Any, instance: Any, action: str, reverse: bool, pk_set: Collection[int] | None, **kwargs: Any
) -> None:
    if action not in _CHANGES or (action != "pre_clear" and not pk_set):
        return
    if not reverse:
        had_any = action != "pre_clear" or sender.objects.filter(user=instance).exists()
        people: Any = [instance] if had_any else []
    elif pk_set:
        people = User.objects.filter(pk__in=pk_set)
    else:
        people = instance.user_set.all()
    for user in people:
        sessions.end_all(user, why=Why.RIGHTS)


@receiver(m2m_changed, sender=Group.permissions.through)
def end_after_a_change_of_a_group(
    sender: Any, instance: Any, action: str, reverse: bool, pk_set: Collection[int] | None, **kwargs: Any
) -> None:
    if action not in _CHANGES or (action != "pre_clear" and not pk_set):
        return
    groups: Any = instance.group_set.all() if reverse and not pk_set else pk_set if reverse else [instance.pk]
    for user in User.objects.filter(groups__in=groups).distinct():
        sessions.end_all(user, why=Why.RIGHTS)
