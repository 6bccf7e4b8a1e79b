"""What a partner reads on the page at the end of an attempt that was not refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from consent.words.problems import Who


class Result(StrEnum):
    """How an attempt ended for the person; all but ``TO_MEND`` are outcomes of a flow."""

    CONNECTED = "connected"
    TO_MEND = "connected_to_mend"
    MFA_MISSING = "connected_mfa_missing"
    WAITING_APPROVAL = "waiting_approval"
    ADMIN_CONSENTED = "admin_consented"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultWords:
    """One page; ``who`` is None, and there are no steps, where nothing is to be done."""

    title: str
    heading: str
    lead: str
    who: Who | None = None
    steps: tuple[str, ...] = ()

    @property
    def who_words(self) -> str:
        """Who acts, as the page says it."""
        return self.who.words if self.who else ""


RESULTS: Mapping[Result, ResultWords] = MappingProxyType(
    {
        Result.CONNECTED: ResultWords(
            title="Connected",
            heading="Your tenant is connected",
            lead="Thank you. The connection works and is stored safely; you can close this page.",
        ),
        Result.TO_MEND: ResultWords(
            title="Connected",
            heading="Your tenant is connected",
            lead=(
                "Thank you. The connection works and is stored safely. One thing should be mended in your tenant: "
                "please read below."
            ),
            who=Who.YOUR_ADMINISTRATOR,
            steps=(
                "Give the service account the role or the group that is marked as failed below.",
                (
                    "If it holds the role by Privileged Identity Management, see that it stays active while the "
                    "application works."
                ),
                "You do not have to sign in again for this.",
            ),
        ),
        Result.MFA_MISSING: ResultWords(
            title="Connected, MFA missing",
            heading="Connected, but MFA is missing",
            lead=(
                "The sign-in worked, but it was not proven by a second factor. Until that is done, Partner Center "
                "refuses our work for you."
            ),
            who=Who.YOUR_ADMINISTRATOR,
            steps=(
                (
                    "Register a second factor for the service account, for example an authenticator app or a security "
                    "key."
                ),
                "Make sure that a Conditional Access policy or security defaults ask this account for it.",
                "Open the link in your invitation again and sign in once more. The same link still works.",
            ),
        ),
        Result.WAITING_APPROVAL: ResultWords(
            title="Waiting for approval",
            heading="Thank you. We have to approve this account",
            lead=(
                "Your tenant was connected with another account before. Nothing changes until a person on our side has "
                "confirmed the new one."
            ),
            who=Who.US,
            steps=(
                "Nothing for now. The earlier connection keeps working.",
                "We confirm the change of account with you. Without that, the new sign-in is deleted after 7 days.",
                "If you did not mean to change the account, send us the reference on this page.",
            ),
        ),
        Result.ADMIN_CONSENTED: ResultWords(
            title="Consented, not connected yet",
            heading="Thank you. One step is left",
            lead=(
                "Microsoft confirmed that the application is permitted in your tenant. Nothing is connected yet: we "
                "hold no access."
            ),
            who=Who.US,
            steps=(
                "We send you a second link for the dedicated service account.",
                "The service account signs in with it, proven by a second factor.",
                "Only then do we check tenant, account and rights, and show you what was proven.",
            ),
        ),
    }
)


def result_of(outcome: str, *, failed: bool) -> Result:
    """Return the page for a flow's outcome.

    Args:
        failed: whether one of the checks after the sign-in failed.

    Raises:
        ValueError: the flow was refused, or has no end yet.
    """
    result = Result(outcome)
    return Result.TO_MEND if result is Result.CONNECTED and failed else result
