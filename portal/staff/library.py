"""django-allauth as it is used here: its table of factors, and what proves a TOTP code or a recovery code.

Its pages, limits and mails are not routed: they count in Django's cache, of which the portal has none, and would
believe each code twice. Our own pages count in the database (``attempts``) and spend each code once (``factors``).
"""

from __future__ import annotations

from allauth.account.apps import AccountConfig
from allauth.mfa.apps import MFAConfig


class LibraryAccountConfig(AccountConfig):  # type: ignore[misc]  # the library has no types
    """Needed by the factors; its own tables stay empty, and no page shows them."""

    has_pages = False


class LibraryFactorConfig(MFAConfig):  # type: ignore[misc]  # the library has no types
    """The table of factors; no page of the admin shows it."""

    has_pages = False

    def ready(self) -> None:
        """Do not what the library does here: it listens to its own pages, and loads all of them for that."""
