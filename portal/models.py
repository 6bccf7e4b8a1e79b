"""The table of the ground floor: how often who asked, in the current windows (S-63)."""

from __future__ import annotations

from django.db import models


class RequestCount(models.Model):
    """The requests of one address in one window. Written by ``portal.limits`` alone; rows of past windows go."""

    key = models.CharField(max_length=32, primary_key=True, help_text="HMAC of rule, window, address and link")
    hits = models.PositiveIntegerField()
    ends_at = models.BigIntegerField(db_index=True, help_text="End of the window, in seconds since 1970")

    class Meta:
        default_permissions = ()
        verbose_name = "request count"

    def __str__(self) -> str:
        return f"{self.hits} requests"
