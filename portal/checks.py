"""Deploy checks: what must not be true of a site that holds real keys (S-27, S-71). No I/O."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

_ANCHOR = "See docs/operations.md."
_SHORTEST_KEY = 32


# Each of these sends local variables, request bodies or headers of a failure to another company unless told otherwise,
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
    found: list[checks.CheckMessage] = []
    if settings.TEST_ENDPOINTS:
        found.append(
            checks.Error(
                "The portal talks to test endpoints instead of Microsoft.",
                hint=f"Unset TEST_ENDPOINTS and TEST_CA_FILE. {_ANCHOR}",
                id="portal.E001",
            )
        )
    if not settings.PUBLIC_BASE_URL.startswith("https://"):
        found.append(
            checks.Error(
                "The public address is not https.",
                hint=f"Set PUBLIC_BASE_URL to an https address. {_ANCHOR}",
                id="portal.E002",
            )
        )
    if len(settings.INTEGRITY_KEY) < _SHORTEST_KEY or settings.INTEGRITY_KEY == settings.SECRET_KEY:
        found.append(
            checks.Error(
                "INTEGRITY_KEY is short or the same as SECRET_KEY.",
                hint=f"Generate a key of its own of at least {_SHORTEST_KEY} characters. {_ANCHOR}",
                id="portal.E003",
            )
        )
    if not settings.VAULT_URL.startswith("https://"):
        found.append(
            checks.Warning(
                "Refresh tokens lie in the embedded vault on this machine's disk.",
                hint=f"Point VAULT_URL to an Azure Key Vault, or silence portal.W001 knowingly. {_ANCHOR}",
                id="portal.W001",
            )
        )
    if settings.SECURE_PROXY_SSL_HEADER and not settings.TRUSTED_PROXIES:
        found.append(
            checks.Error(
                "A proxy stands in front, but no proxy is trusted to name the caller: all callers share one address.",
                hint=f"Set TRUSTED_PROXIES to the number of proxies between the internet and the portal. {_ANCHOR}",
                id="portal.E004",
            )
        )
    return found
