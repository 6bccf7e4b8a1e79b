"""Permission sets that staff made, beside those that the product has (``consent.permissions.PERMISSION_SETS``)."""

from __future__ import annotations

from django.db import models

from consent.permissions import PermissionSet
from portal.fields import NameField


class OwnPermissionSet(models.Model):
    """What partners are asked for, as data. Written by ``consent.applications.permission_sets`` only.

    ``permissions`` holds one line for each delegated permission (``consent.permissions.Permission``). A set has no
    cloud: names and ids are the same in each, and hosts are taken from the registration's own.
    """

    name = NameField(unique=True, help_text="For staff; partners never read it.")
    note = models.CharField(max_length=300, blank=True, help_text="For staff: what it is for.")
    permissions = models.JSONField(help_text="Delegated permissions, one line each")
    changed_at = models.DateTimeField("changed", auto_now=True)

    class Meta:
        ordering = ["name", "pk"]
        verbose_name = "permission set"

    def __str__(self) -> str:
        return self.name

    @property
    def value(self) -> PermissionSet:
        """What it asks for."""
        return PermissionSet.from_json(self.permissions)
