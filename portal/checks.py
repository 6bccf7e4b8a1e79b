"""Deploy checks: what must not be true of a site that holds real keys (S-27, S-71).

docs/operations.md has a line for each id. Those of settings do no I/O but look at the modes of key files; those of the
database run with ``--database default`` only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from portal.databases import MIGRATE, unapplied

_PAGE = "See docs/operations.md#deploy-checks."
_SHORTEST_SECRET_KEY, _SHORTEST_INTEGRITY_KEY = 50, 32
_READABLE_BY_OTHERS = 0o007


# Each of these sends local variables, request bodies or headers of a failure to another company by default,
# and their filters by name know no refresh_token, code or client_assertion.
_ERROR_REPORTERS = ("sentry_sdk", "rollbar", "bugsnag", "raygun4py", "honeybadger", "elasticapm", "newrelic", "ddtrace")


def refuse_error_reporters() -> None:
    """Stop the start of a process into which a known error-reporting client was loaded (S-34).

    Raises:
        ImproperlyConfigured: one was.
    """
    loaded = [name for name in _ERROR_REPORTERS if name in sys.modules]
    if loaded:
        raise ImproperlyConfigured(
            f"An error-reporting client is loaded ({', '.join(loaded)}): it could send tokens to another company. "
            "Remove it; failures are in the log, in incidents and in the mails to ALERT_EMAIL, without secrets."
        )


@checks.register(deploy=True)
def deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Name every setting that opens what must stay closed."""
    found: list[checks.CheckMessage] = list(_errors())
    if not settings.VAULT_URL.startswith("https://"):
        found.append(
            checks.Warning(
                "Refresh tokens lie in the embedded vault on this machine's disk.",
                hint=f"Point VAULT_URL to an Azure Key Vault, or keep key file and data apart. {_PAGE}",
                id="portal.W001",
            )
        )
    return found


def _errors() -> Iterator[checks.Error]:
    if settings.TEST_ENDPOINTS:
        yield _error(
            1, "The portal talks to test endpoints instead of Microsoft.", "Unset TEST_ENDPOINTS and TEST_CA_FILE."
        )
    if not settings.PUBLIC_BASE_URL.startswith("https://"):
        yield _error(2, "The public address is not https.", "Set PUBLIC_BASE_URL to an https address.")
    if is_weak(settings.INTEGRITY_KEY, _SHORTEST_INTEGRITY_KEY) or settings.INTEGRITY_KEY == settings.SECRET_KEY:
        yield _error(
            3,
            "INTEGRITY_KEY is short, repeats itself, or is the same as SECRET_KEY.",
            f"Generate a key of its own of at least {_SHORTEST_INTEGRITY_KEY} random characters.",
        )
    if settings.SECURE_PROXY_SSL_HEADER and not settings.TRUSTED_PROXIES:
        yield _error(
            4,
            "A proxy stands in front, but no proxy is trusted to name the caller: all callers share one address.",
            "Set TRUSTED_PROXIES to the number of proxies between the internet and the portal.",
        )
    if settings.DEBUG:
        yield _error(5, "DEBUG is on: each failure shows the portal's inside to the caller.", "Set DEBUG=false.")
    if any(is_weak(key, _SHORTEST_SECRET_KEY) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)):
        yield _error(
            6,
            "SECRET_KEY, or one of SECRET_KEY_FALLBACKS, is short or repeats itself.",
            f"Generate at least {_SHORTEST_SECRET_KEY} random characters.",
        )
    if patterns := [host for host in settings.ALLOWED_HOSTS if "*" in host or host.startswith(".")]:
        yield _error(
            7,
            f"ALLOWED_HOSTS accepts more than it names: {', '.join(patterns)}.",
            "Name each host; a leading dot stands for every host below.",
        )
    if not settings.SECURE_HSTS_SECONDS:
        yield _error(
            8,
            "Browsers are not asked to use https only (HSTS).",
            "Leave SECURE_HSTS_SECONDS at one year, or lower it for a while without setting it to 0.",
        )
    if not settings.SECURE_CSP or not _cookies_are_bound():
        yield _error(
            10,
            "The content security policy is off, or a cookie lacks __Host-, Secure, HttpOnly or SameSite.",
            "Use the settings as they are shipped.",
        )
    if names := [str(file) for file in settings.KEY_FILES if _is_readable_by_others(file)]:
        yield _error(11, f"Others on this machine can read {', '.join(names)}.", "chmod 600 each of them.")


def _error(number: int, text: str, remedy: str) -> checks.Error:
    return checks.Error(text, hint=f"{remedy} {_PAGE}", id=f"portal.E{number:03}")


def is_weak(key: str, shortest: int) -> bool:
    """Whether a key is short, Django's example, or made of a few characters or one piece again and again."""
    pieces = [key[place : place + 4] for place in range(len(key) - 3)]
    return len(key) < shortest or key.startswith("django-insecure-") or len(set(pieces)) * 2 < len(pieces)


def _cookies_are_bound() -> bool:
    return all(
        getattr(settings, f"{cookie}_COOKIE_NAME").startswith("__Host-")
        and getattr(settings, f"{cookie}_COOKIE_SECURE")
        and getattr(settings, f"{cookie}_COOKIE_HTTPONLY")
        and getattr(settings, f"{cookie}_COOKIE_SAMESITE") in {"Lax", "Strict"}
        for cookie in ("SESSION", "CSRF")
    )


def _is_readable_by_others(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & _READABLE_BY_OTHERS)
    except OSError:
        return False  # the code that needs the file says that it is not there


@checks.register(checks.Tags.database, deploy=True)
def migrations(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Name the databases that lack migrations."""
    return [
        checks.Error(
            f"The database lacks {lacking} migration{'' if lacking == 1 else 's'}.",
            hint=f"Before the first start and after each upgrade {MIGRATE}. {_PAGE}",
            id="portal.E009",
        )
        for alias in databases or ()
        if (lacking := unapplied(alias))
    ]
