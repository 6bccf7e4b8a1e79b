"""The tables of the ground floor: how often who asked in the current windows (S-63), which forms were sent (S-54)."""

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, models, transaction
from django.utils import timezone


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
