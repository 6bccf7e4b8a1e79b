"""What is known of staff beside Django's own table of users: outside identities, sessions, links, tries."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import models
from django.utils import timezone

if TYPE_CHECKING:
    from django.contrib.auth.models import User

LINK_LIFETIME = timedelta(hours=1)


class Method(models.TextChoices):
    """How somebody proved who they are."""

    PASSWORD = "password", "password alone"
    TOTP = "totp", "password and a code of the authenticator app"
    PASSKEY = "passkey", "passkey"
    RECOVERY_CODE = "recovery_code", "password and a recovery code"
    DIRECTORY = "directory", "the organisation's sign-in service"


class StaffIdentity(models.Model):
    """A person at the organisation's sign-in service. Known by issuer and subject, never by name or address."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="identities")
    issuer = models.CharField(max_length=300)
    subject = models.CharField(max_length=255, help_text="oid at Entra, sub elsewhere")
    made_at = models.DateTimeField(default=timezone.now)

    class Meta:
        default_permissions = ()
        verbose_name = "identity"
        verbose_name_plural = "identities"
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="staff_identity_once")]

    def __str__(self) -> str:
        return self.issuer


class StaffSessionQuerySet(models.QuerySet["StaffSession"]):
    def of(self, user: User) -> StaffSessionQuerySet:
        """Sessions of this person that are not over, newest use first."""
        return self.filter(user=user, session__expire_date__gt=timezone.now()).order_by("-seen_at", "-made_at")


class StaffSession(models.Model):
    """Whose a session is, so that it can be shown and ended. It goes with the row of the session itself."""

    session = models.OneToOneField(
        Session, on_delete=models.DB_CASCADE, primary_key=True, related_name="+", help_text="By the hash of its key"
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.DB_CASCADE, related_name="+")
    method = models.CharField(max_length=20, choices=Method, blank=True)
    made_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now, help_text="Within five minutes")
    address = models.GenericIPAddressField(null=True)
    agent = models.CharField(max_length=100, blank=True, help_text="Browser and system, shortened")

    objects = StaffSessionQuerySet.as_manager()

    class Meta:
        default_permissions = ()
        permissions = [("end_staffsession", "Can end the sessions of other members of staff")]
        verbose_name = "session"

    def __str__(self) -> str:
        return f"session since {self.made_at:%Y-%m-%d %H:%M}"


class StaffLink(models.Model):
    """A link that lets its holder set the password and the factor of one account, once and within an hour."""

    class Kind(models.TextChoices):
        FIRST = "first", "first sign-in"
        RECOVERY = "recovery", "recovery"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=10, choices=Kind)
    token_hash = models.CharField(max_length=64, unique=True, help_text="SHA-256 of what the link carries")
    made_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        permissions = [("make_stafflink", "Can make one-time links for the accounts of other members of staff")]
        verbose_name = "one-time link"

    def __str__(self) -> str:
        return f"{self.get_kind_display()} until {self.expires_at:%Y-%m-%d %H:%M}"


class SignInTries(models.Model):
    """Wrong passwords of one account, address or browser since the last right one.

    Written by ``portal.staff.attempts`` alone.
    """

    key = models.CharField(max_length=32, primary_key=True, help_text="HMAC of what is counted")
    failures = models.PositiveIntegerField(default=0)
    turned_away = models.PositiveIntegerField(default=0, help_text="Tries that were not looked at, since the first")
    free_at = models.DateTimeField(help_text="Until then no try is looked at")
    forget_at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()
        verbose_name = "count of tries"
        verbose_name_plural = "counts of tries"

    def __str__(self) -> str:
        return f"{self.failures} wrong passwords"
