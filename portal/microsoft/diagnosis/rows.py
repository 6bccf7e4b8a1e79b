"""What a row of the table consists of, and how the tables are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from portal.microsoft.errors import (
    AccessDenied,
    AuthenticationFailed,
    ConsentRequired,
    InteractionRequired,
    InvalidRequest,
    NotFound,
    RemoteError,
    ServerFault,
    Throttled,
    UnexpectedResponse,
)


class Owner(StrEnum):
    """Who must act."""

    US = "us"
    PARTNER = "partner"
    CUSTOMER = "customer"
    MICROSOFT = "microsoft"
    NOBODY = "nobody"

    @property
    def label(self) -> str:
        """What people read."""
        return _OWNER_LABELS[self]


_OWNER_LABELS = {
    Owner.US: "Us",
    Owner.PARTNER: "The partner",
    Owner.CUSTOMER: "The customer",
    Owner.MICROSOFT: "Microsoft",
    Owner.NOBODY: "Nobody: we try again",
}
OWNER_CHOICES = [(owner.value, owner.label) for owner in Owner]


class FailureClass(StrEnum):
    """What kind of outcome it was (R-15)."""

    OK = "ok"
    NEEDS_CONSENT = "needs_consent"
    NEEDS_INTERACTION = "needs_interaction"
    OUR_CREDENTIAL = "our_credential"
    NOT_PERMITTED = "not_permitted"
    NOT_FOUND = "not_found"
    THROTTLED = "throttled"
    TEMPORARY = "temporary"
    PROTOCOL_ERROR = "protocol_error"
    UNKNOWN = "unknown"

    @property
    def systemic(self) -> bool:
        """Whether the cause lies with us or with the service, so that no partner's state may change (R-14)."""
        return self not in {
            FailureClass.OK,
            FailureClass.NEEDS_CONSENT,
            FailureClass.NEEDS_INTERACTION,
            FailureClass.NOT_PERMITTED,
            FailureClass.NOT_FOUND,
        }


RAISED_FOR: Mapping[FailureClass, type[RemoteError]] = {
    FailureClass.NEEDS_CONSENT: ConsentRequired,
    FailureClass.NEEDS_INTERACTION: InteractionRequired,
    FailureClass.OUR_CREDENTIAL: AuthenticationFailed,
    FailureClass.NOT_PERMITTED: AccessDenied,
    FailureClass.NOT_FOUND: NotFound,
    FailureClass.THROTTLED: Throttled,
    FailureClass.TEMPORARY: ServerFault,
    FailureClass.PROTOCOL_ERROR: InvalidRequest,
    FailureClass.UNKNOWN: UnexpectedResponse,
}
"""What is raised for a class, unless the row says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One failure, read for a person. ``cause`` and ``remedy`` are one plain sentence each, in our words."""

    key: str
    """Microsoft's code in safe characters: ``AADSTS50076``, ``partner_center:900150``, ``entra:invalid_grant`` ..."""
    cause: str
    failure_class: FailureClass
    owner: Owner
    remedy: str
    error: type[RemoteError]
    """What a client raises for it."""
    fatal_for_token: bool = False
    """The stored refresh token never heals without a new consent."""
    not_consented: bool = False
    """The tenant that answered holds no consent of our application: "absent", where everything else means "look"."""

    @property
    def retry(self) -> bool:
        """Whether the same call may succeed later without anybody acting."""
        return self.error.retryable


class Words(NamedTuple):
    """What a person reads. The order is the one in which the page says it."""

    owner: Owner
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One known answer, before it is known who gave it."""

    failure_class: FailureClass
    words: Words
    error: type[RemoteError]
    in_customer: Words
    """The words when a customer's tenant gave this answer; they never call the partner's token suspect."""
    fatal_for_token: bool = False
    not_consented: bool = False
    also_with: frozenset[str] = frozenset()
    """Values of ``error`` outside the class's own family with which Microsoft sends this number."""

    def read(self, key: str, failure_class: FailureClass | None = None, *, customer_tenant: bool = False) -> Diagnosis:
        """Return the diagnosis; ``failure_class`` replaces the row's own where the protocol said something else."""
        settled = failure_class or self.failure_class
        owner, cause, remedy = self.in_customer if customer_tenant else self.words
        return Diagnosis(
            key=key,
            cause=cause,
            failure_class=settled,
            owner=owner,
            remedy=remedy,
            error=self.error if settled is self.failure_class else RAISED_FOR[settled],
            fatal_for_token=self.fatal_for_token and settled is self.failure_class and not customer_tenant,
            not_consented=self.not_consented,
        )


def row(
    failure_class: FailureClass,
    words: Words,
    *,
    in_customer: Words | None = None,
    error: type[RemoteError] | None = None,
    fatal: bool = False,
    not_consented: bool = False,
    also_with: frozenset[str] = frozenset(),
) -> Row:
    """Return one row; what is left out follows from the class."""
    return Row(
        failure_class=failure_class,
        words=words,
        error=error or RAISED_FOR[failure_class],
        in_customer=in_customer or words,
        fatal_for_token=fatal,
        not_consented=not_consented,
        also_with=also_with,
    )


def rows[Key](
    failure_class: FailureClass,
    owner: Owner,
    sentences: Mapping[Key, tuple[str, str]],
    *,
    in_customer: Words | None = None,
    error: type[RemoteError] | None = None,
    fatal: bool = False,
    not_consented: bool = False,
    also_with: frozenset[str] = frozenset(),
) -> dict[Key, Row]:
    """Return the rows of one kind. ``sentences`` holds cause and remedy of each code."""
    return {
        code: row(
            failure_class,
            Words(owner, cause, remedy),
            in_customer=in_customer,
            error=error,
            fatal=fatal,
            not_consented=not_consented,
            also_with=also_with,
        )
        for code, (cause, remedy) in sentences.items()
    }


def merged[Key](*tables: Mapping[Key, Row]) -> dict[Key, Row]:
    """Put tables together. Raises ValueError when a code stands in two of them."""
    result: dict[Key, Row] = {}
    for table in tables:
        twice = result.keys() & table.keys()
        if twice:
            raise ValueError(f"in two tables: {sorted(map(str, twice))}")
        result |= table
    return result


AGAIN = "Send the partner a new consent link."
MFA_AGAIN = "Send the partner a new consent link, and let the service account sign in with MFA."
LATER = "Nothing to do, because the portal tries again."
REPORT = "Report this with the correlation id, because the portal sent something that Microsoft does not accept."
LOOK = "Look at the code and the correlation id before anything is changed."
