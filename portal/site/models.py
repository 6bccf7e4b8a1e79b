"""What a person keeps for a list: filters, and the columns that are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import Q

from portal.fields import NameField

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class SavedFilterQuerySet(models.QuerySet["SavedFilter"]):
    def for_person(self, person: User) -> SavedFilterQuerySet:
        """The person's own filters and what others share."""
        return self.filter(Q(owner=person) | Q(shared=True))


class SavedFilter(models.Model):
    """A search and filters of one list under a name. Written by ``portal.site.preferences`` only."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    list_name = models.CharField(max_length=100, help_text="Such as tenants.partnertenant")
    name = NameField(max_length=60)
    query = models.CharField(max_length=1000, help_text="As it stands in the list's address")
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SavedFilterQuerySet.as_manager()

    class Meta:
        ordering = ["name", "pk"]
        verbose_name = "saved filter"
        default_permissions = ()
        permissions = [
            ("share_savedfilter", "Can share a saved filter with all staff"),
            ("export_list", "Can export lists"),
        ]
        constraints = [models.UniqueConstraint(fields=["owner", "list_name", "name"], name="saved_filter_once")]

    def __str__(self) -> str:
        return self.name


class ChosenColumns(models.Model):
    """The columns of one list that a person wants to see. Written by ``portal.site.preferences`` only."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    list_name = models.CharField(max_length=100)
    columns = models.JSONField(default=list, help_text="Names, as in list_display")

    class Meta:
        verbose_name = "chosen columns"
        verbose_name_plural = "chosen columns"
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["person", "list_name"], name="chosen_columns_once")]

    def __str__(self) -> str:
        return self.list_name
