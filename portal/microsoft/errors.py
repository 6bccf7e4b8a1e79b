"""What can go wrong when we talk to Microsoft or to a vault, named by what the caller does next.

=====================  ==========================================================================
Retry later            :class:`Unreachable`, :class:`Throttled`, :class:`ServerFault`
The partner acts       :class:`ConsentRequired`, :class:`InteractionRequired`, :class:`MfaRequired`
The operator acts      :class:`AuthenticationFailed` (our credential), :class:`AccessDenied` (a right is missing)
We fix our software    :class:`InvalidRequest`
Look at what is there  :class:`NotFound`, :class:`AlreadyExists`, :class:`Conflict`
Not known yet          :class:`UnexpectedResponse`
=====================  ==========================================================================

``str(error)`` is safe for a log or a page of staff: service, operation, status, code and ids, never a body, a URL, a
token or a text that came from outside. Configuration errors and programming errors stand outside this family, so
that nothing which swallows remote failures swallows them.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import ClassVar

_SAFE_CODE = re.compile(r"[^A-Za-z0-9_.\-]")


def safe_code(text: object, limit: int = 60) -> str:
    """Reduce an outside error code to harmless characters; free text becomes unreadable on purpose (S-23, S-59)."""
    return _SAFE_CODE.sub("_", str(text))[:limit]


class NoAnswer(StrEnum):
    """What kept the answer of a host from us: the ``code`` of an :class:`Unreachable` that names its host."""

    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NAME = "certificate_of_another_name"
    CERTIFICATE_ISSUER = "certificate_of_unknown_issuer"
    CERTIFICATE = "certificate_refused"
    TLS = "tls_failed"
    NAME = "name_unknown"
    REFUSED = "connection_refused"
    SILENT = "silent"
    PROXY = "proxy_failed"
    BROKEN_OFF = "connection_broken_off"
    LEFT_ALONE = "left_alone"
    NO_TIME = "no_time_left"

    @property
    def is_certificate(self) -> bool:
        """Whether the host's certificate was refused: a wrong clock, a proxy that inspects, or an interception."""
        return self in {self.CERTIFICATE_EXPIRED, self.CERTIFICATE_NAME, self.CERTIFICATE_ISSUER, self.CERTIFICATE}


class WrongSetup(Exception):
    """The portal itself is set up wrongly: no unit of work is to blame, and no other one would fare better."""


class RemoteError(Exception):
    """Base of the family.

    Args:
        service: who answered or should have: ``entra``, ``partner_center``, ``graph``, ``vault`` ...
        operation: what we wanted, in our words.
        status: HTTP status, None when there was no answer.
        code: the service's own error code, already passed through :func:`safe_code`; or a :class:`NoAnswer`.
        correlation_id: ours, to be found in Microsoft's logs.
        request_id: theirs.
        retry_after: seconds to wait, when the service said so.
        detail: our own words, never the service's.
        host: ``host[:port]`` that was asked, where no answer came; one of this deployment's addresses.
    """

    retryable: ClassVar[bool] = False
    summary: ClassVar[str] = "The service answered with an error"
    token_lifetime: int | None = None
    """Seconds that a token lives after its sign-in, where the service named them; set by the client that read it."""

    def __init__(
        self,
        service: str,
        operation: str,
        *,
        status: int | None = None,
        code: str = "",
        correlation_id: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        detail: str = "",
        host: str = "",
    ) -> None:
        super().__init__(service, operation)
        self.service = service
        self.operation = operation
        self.status = status
        self.code = safe_code(code)
        self.correlation_id = correlation_id
        self.request_id = safe_code(request_id)
        self.retry_after = retry_after
        self.detail = detail
        self.host = host

    def __str__(self) -> str:
        parts = [f"{self.service}: {self.operation}: {self.detail or self.summary}"]
        if self.host:
            parts.append(f"host {self.host}")
        if self.status is not None:
            parts.append(f"HTTP {self.status}")
        if self.code:
            parts.append(f"code {self.code}")
        if self.retry_after is not None:
            parts.append(f"retry after {self.retry_after:.0f} s")
        if self.correlation_id:
            parts.append(f"correlation id {self.correlation_id}")
        if self.request_id:
            parts.append(f"request id {self.request_id}")
        return ", ".join(parts)


class RetryableError(RemoteError):
    """No action is needed: the same call may succeed later. Never changes a partner's state (R-05, R-15)."""

    retryable = True
    summary = "Not available at the moment"


class Unreachable(RetryableError):
    """No usable answer: name, connection, TLS or a time limit. The request may or may not have had its effect."""

    summary = "No answer"


class NotSent(Unreachable):
    """The connection failed before a byte of the request left: even what must not be done twice may be repeated."""

    summary = "No connection"


class Throttled(RetryableError):
    """Asked to slow down; wait ``retry_after`` seconds (60 when the service gave none)."""

    summary = "Too many requests"


class ServerFault(RetryableError):
    """The service failed (5xx, ``temporarily_unavailable``)."""

    summary = "The service has a fault"


class ConsentRequired(RemoteError):
    """The grant is gone or unusable; the partner has to consent again with a new link."""

    summary = "The partner must consent again"


class InteractionRequired(ConsentRequired):
    """A person must sign in or satisfy a policy; by itself no proof that the grant is lost (R-15)."""

    summary = "Somebody must sign in"


class MfaRequired(InteractionRequired):
    """The sign-in was not proven by multifactor authentication; the partner consents again and completes it."""

    summary = "The sign-in must be proven by multifactor authentication"


class AuthenticationFailed(RemoteError):
    """Our own credential was refused; an operator repairs it. Says nothing about any partner (R-14)."""

    summary = "Our own credential was refused"


class AccessDenied(RemoteError):
    """Signed in, but a right is missing: a role, a group, a permission or a vault right."""

    summary = "A right is missing"


class InvalidRequest(RemoteError):
    """The service says that we asked wrongly."""

    summary = "The service did not accept the request"


class NotFound(RemoteError):
    summary = "Not found"


class Conflict(RemoteError):
    summary = "In conflict with what is there"


class AlreadyExists(Conflict):
    """It is there already. For a consent this means *look*, neither success nor failure (R-21)."""

    summary = "It exists already"


class UnexpectedResponse(RemoteError):
    """Not the answer that the service documents: wrong type, wrong shape, too large (R-25)."""

    summary = "The answer does not have the documented form"
