"""The tables of the ground floor: who asked how often (S-63), which forms were sent (S-54), teams of staff (S-48)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import IntegrityError, models, transaction
from django.utils import timezone

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser


class RequestCount(models.Model):
    """The requests of one address in one window. Written by ``portal.site.limits`` alone; rows of past windows go."""

    key = models.CharField(max_length=32, primary_key=True, help_text="HMAC of rule, window, address and link")
    hits = models.PositiveIntegerField()
    ends_at = models.BigIntegerField(db_index=True, help_text="End of the window, in seconds since 1970")

    class Meta:
        default_permissions = ()
        verbose_name = "request count"

    def __str__(self) -> str:
        return f"{self.hits} requests"


class SpentFormManager(models.Manager["SpentForm"]):
    def spend(self, number: str, *, seconds: float) -> bool:
        """Note that the form of this number was sent; False when it was before, by any process.

        Args:
            seconds: how long the form could be sent at all; its row then goes with the next form that is spent.
        """
        now = timezone.now()
        self.filter(until__lte=now).delete()
        try:
            with transaction.atomic():
                self.create(number=number, until=now + timedelta(seconds=seconds))
        except IntegrityError:
            return False
        return True


class SpentForm(models.Model):
    """A form that works once and was sent. The key's uniqueness decides between two presses of one button."""

    number = models.CharField(max_length=32, primary_key=True, help_text="Random, from the signed form")
    until = models.DateTimeField(db_index=True, help_text="No form of this number is accepted from then on")

    objects = SpentFormManager()

    class Meta:
        default_permissions = ()
        verbose_name = "spent form"

    def __str__(self) -> str:
        return self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a person sees who is a member of teams; somebody without a team has no limits.

    Attributes:
        person: the user name, for what the person began.
        teams: for each team with limits, their keys by kind. Without one nothing of any partner is seen.
    """

    person: str
    teams: tuple[Mapping[str, frozenset[int]], ...]


class TeamLimitQuerySet(models.QuerySet["TeamLimit"]):
    def of(self, person: AbstractUser) -> Limits:
        """Return the limits of a member of teams; one query."""
        teams: dict[int, dict[str, set[int]]] = {}
        for team, kind, key in self.filter(team__group__user=person.pk).values_list("team", "kind", "key"):
            teams.setdefault(team, {}).setdefault(kind, set()).add(key)
        frozen = tuple({kind: frozenset(keys) for kind, keys in team.items()} for team in teams.values())
        return Limits(person=person.get_username(), teams=frozen)


class Team(models.Model):
    """People who see some partners only, whatever roles they have. Written by ``portal.staff.teams`` only.

    The members are those of its group, whose one permission says that they are limited: so a page that asks for the
    rights of a person learns it without another query. Who is in several teams sees what each of them sees.
    """

    group = models.OneToOneField("auth.Group", on_delete=models.CASCADE, related_name="team")

    class Meta:
        ordering = ["group__name"]
        verbose_name = "team"
        default_permissions = ("add", "change", "view")
        permissions = [
            ("grant_role", "Can give roles and teams to staff"),
            ("limited", "Sees the partners of own teams only"),
        ]

    def __str__(self) -> str:
        return self.group.name


class TeamLimit(models.Model):
    """One thing that a team is limited to. Written by ``portal.staff.teams`` only.

    Of limits of one kind one is enough, and of several kinds each counts; a team without a limit sees nothing.
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="limits")
    kind = models.CharField(max_length=40, help_text="A word that an app declares, such as tag")
    key = models.BigIntegerField(help_text="Of the row that it names")

    objects = TeamLimitQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["team", "kind", "key"], name="team_limit_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"
