"""Each cause that keeps a person from the success page, and Microsoft's error numbers that lead to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Who(StrEnum):
    """Who must act before the partner gets on."""

    US = "us"
    YOU = "you"
    YOU_UNLESS_CONNECTED = "you_unless_connected"
    YOUR_ADMINISTRATOR = "your_administrator"
    MICROSOFT = "microsoft"
    NOBODY = "nobody"

    @property
    def words(self) -> str:
        """Who it is, as the partner's page says it."""
        return _WHO_WORDS[self]


_WHO_WORDS: Mapping[Who, str] = {
    Who.US: "We do",
    Who.YOU: "You do",
    Who.YOU_UNLESS_CONNECTED: "You do, unless your tenant is connected already",
    Who.YOUR_ADMINISTRATOR: "An administrator of your tenant",
    Who.MICROSOFT: "Microsoft; waiting is enough",
    Who.NOBODY: "Nobody; waiting is enough",
}


class Problem(StrEnum):
    """Why a person sees a page other than the success page. The values are stored on flows: never rename one."""

    LINK_UNUSABLE = "link_unusable"
    START_AGAIN = "start_again"
    STILL_WORKING = "still_working"
    DECLINED = "declined"
    ADMIN_APPROVAL_NEEDED = "admin_approval_needed"
    WRONG_TENANT = "wrong_tenant"
    PERSONAL_OR_GUEST_ACCOUNT = "personal_or_guest_account"
    OTHER_ACCOUNT_WAITING = "other_account_waiting"
    MFA_MISSING = "mfa_missing"
    ROLE_MISSING = "role_missing"
    PARTNER_CENTER_REFUSED = "partner_center_refused"
    BLOCKED_BY_POLICY = "blocked_by_policy"
    TRY_AGAIN = "try_again"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    INTERRUPTED = "interrupted"
    OUR_FAULT = "our_fault"
    ANSWER_REFUSED = "answer_refused"
    CLOCK = "clock"
    MALFORMED = "malformed"
    CONTAINED = "contained"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemWords:
    """One refusal page.

    ``status`` is the HTTP status; ``start_again`` says that opening the same link again makes sense.
    """

    status: int
    heading: str
    what: str
    who: Who
    steps: tuple[str, ...]
    start_again: bool

    @property
    def who_words(self) -> str:
        """Who acts, as the page says it."""
        return self.who.words

    @property
    def again_here(self) -> bool:
        """Whether it can help to try again in the same browser, without a private window."""
        return self.start_again and _PRIVATE_WINDOW not in self.steps


# Sentences that several refusals share, so that the same step always reads the same.
_OPEN_AGAIN = "Open the link in your invitation again and continue to Microsoft."
_OPEN_AGAIN_LATER = "Then open the link in your invitation again."
_TELL_US = "If it happens again, write to us and say what you saw."
_PRIVATE_WINDOW = (
    "Open the link in your invitation again, in a private browser window, so that no other account signs in by itself."
)

PROBLEMS: Mapping[Problem, ProblemWords] = MappingProxyType(
    {
        # One text for unknown, expired, revoked, used and disabled (S-03).
        Problem.LINK_UNUSABLE: ProblemWords(
            status=404,
            heading="This link is not open",
            what=(
                "Most often it has done its work: a link closes when its tenant is connected. It may also be "
                "incomplete, expired or withdrawn. Opening it changed nothing."
            ),
            who=Who.YOU_UNLESS_CONNECTED,
            steps=(
                (
                    "If your tenant was connected through it, all is well: the connection goes on, and nothing is left "
                    "to do."
                ),
                (
                    "If we wrote to you that the connection needs attention, or you are not sure, write to us. We look "
                    "it up, and send a new link if one is needed."
                ),
                (
                    "If it was not connected yet, check that you copied the whole link; mail programs sometimes cut it "
                    "at the end of a line. If it is complete, ask the person who sent it to you for a new one."
                ),
            ),
            start_again=False,
        ),
        Problem.START_AGAIN: ProblemWords(
            status=400,
            heading="This sign-in could not be finished",
            what=(
                "It was started more than 15 minutes ago, in another browser, or was finished already. Nothing was "
                "changed by this attempt."
            ),
            who=Who.YOU,
            steps=(
                "Open the link in your invitation again, and stay in the same browser until you are back here.",
                "Allow cookies for this site and for Microsoft, at least until you are done.",
                _TELL_US,
            ),
            start_again=True,
        ),
        Problem.STILL_WORKING: ProblemWords(
            status=202,
            heading="We are still checking",
            what="Microsoft has sent you back to us and we are checking the account. This takes a few seconds.",
            who=Who.NOBODY,
            steps=(
                "Wait ten seconds, then reload this page.",
                "If it still says this after two minutes, send us the reference on this page.",
            ),
            start_again=False,
        ),
        Problem.DECLINED: ProblemWords(
            status=200,
            heading="You did not accept, and that is fine",
            what="The permissions were not accepted at Microsoft. Nothing was connected, and nothing was stored.",
            who=Who.YOU,
            steps=(
                "If you want to ask something first, write to us; there is no hurry.",
                "To go on, open the link in your invitation again and choose Accept on Microsoft’s page.",
            ),
            start_again=True,
        ),
        Problem.ADMIN_APPROVAL_NEEDED: ProblemWords(
            status=403,
            heading="A Global Administrator has to accept",
            what=(
                "The account that signed in may not accept these permissions for your organization. Nothing was "
                "connected."
            ),
            who=Who.YOUR_ADMINISTRATOR,
            steps=(
                (
                    "In the Microsoft Entra admin center, give the service account the role Global Administrator. If "
                    "you use Privileged Identity Management, activate it."
                ),
                (
                    "If Microsoft offered to send an approval request, it can be approved under Enterprise "
                    "applications, Admin consent requests."
                ),
                _OPEN_AGAIN_LATER,
            ),
            start_again=True,
        ),
        Problem.WRONG_TENANT: ProblemWords(
            status=403,
            heading="This account belongs to another tenant",
            what=(
                "The invitation is for one tenant only, and the account that signed in is not from it. We kept "
                "nothing from this sign-in."
            ),
            who=Who.YOU,
            steps=(
                _PRIVATE_WINDOW,
                "Sign in with the service account of the tenant that is named on the first page.",
                (
                    "If you accepted the permissions in the other tenant, remove them there: in its Microsoft Entra "
                    "admin center open Enterprise applications, choose the application that Microsoft’s page named, "
                    "then Properties, then Delete."
                ),
                "If the tenant on the first page is not yours, tell us and do not continue.",
            ),
            start_again=True,
        ),
        Problem.PERSONAL_OR_GUEST_ACCOUNT: ProblemWords(
            status=403,
            heading="A guest or personal account cannot be used",
            what=(
                "Microsoft only lets a member of your own tenant work for your customers. We kept nothing from this "
                "sign-in."
            ),
            who=Who.YOU,
            steps=(
                "Have the service account ready: a work account that was created in your partner tenant.",
                _PRIVATE_WINDOW,
                "On Microsoft’s page choose “Use another account” and sign in with the service account.",
            ),
            start_again=True,
        ),
        Problem.OTHER_ACCOUNT_WAITING: ProblemWords(
            status=409,
            heading="This is not the account we know",
            what=(
                "Your tenant was connected with another account before. That connection keeps working unchanged; a "
                "change of account needs our approval first."
            ),
            who=Who.US,
            steps=(
                (
                    "If you meant to use the earlier account, open the link in your invitation again and sign in "
                    "with it."
                ),
                (
                    "If the account is meant to change, send us the reference on this page. We confirm it with you "
                    "before anything changes."
                ),
                "If you know nothing of a change, tell us as well.",
            ),
            start_again=True,
        ),
        Problem.MFA_MISSING: ProblemWords(
            status=403,
            heading="Multifactor authentication is missing",
            what=(
                "Partner Center only accepts sign-ins that were proven by a second factor, and this one was not. "
                "Nothing was changed by this attempt."
            ),
            who=Who.YOUR_ADMINISTRATOR,
            steps=(
                (
                    "Register a second factor for the service account, for example an authenticator app or a security "
                    "key."
                ),
                (
                    "Make sure that a Conditional Access policy or security defaults ask this account for it, from "
                    "every place."
                ),
                _OPEN_AGAIN_LATER,
            ),
            start_again=True,
        ),
        Problem.ROLE_MISSING: ProblemWords(
            status=403,
            heading="The account lacks a role",
            what=(
                "The sign-in worked, but Partner Center does not let this account act for your customers. Nothing was"
                " changed by this attempt."
            ),
            who=Who.YOUR_ADMINISTRATOR,
            steps=(
                "In Partner Center, open User management and make the service account an Admin agent.",
                (
                    "In the Microsoft Entra admin center, give it the role Global Administrator. If you use Privileged "
                    "Identity Management, activate it."
                ),
                "Wait a few minutes, because Microsoft needs time to spread the change.",
                _OPEN_AGAIN_LATER,
            ),
            start_again=True,
        ),
        Problem.PARTNER_CENTER_REFUSED: ProblemWords(
            status=403,
            heading="Partner Center did not accept the request",
            what=(
                "The sign-in worked, but Partner Center does not serve this tenant with our application. Nothing was "
                "changed by this attempt."
            ),
            who=Who.US,
            steps=(
                "Send us the reference on this page. We look into it and tell you when to go on.",
                (
                    "Until then, check that your company can sign in to Partner Center and has an active Cloud "
                    "Solution Provider agreement."
                ),
            ),
            start_again=False,
        ),
        Problem.BLOCKED_BY_POLICY: ProblemWords(
            status=403,
            heading="A rule of your tenant stopped the sign-in",
            what=(
                "Microsoft refused it because of a policy, a risk, or a block on the account or application. Nothing "
                "was connected."
            ),
            who=Who.YOUR_ADMINISTRATOR,
            steps=(
                (
                    "In the Microsoft Entra admin center, open Sign-in logs and choose the failed sign-in of the "
                    "service account. Its details name the rule."
                ),
                (
                    "Remove the cause for the service account, or sign in from a place and device that the rule "
                    "allows. Keep multifactor authentication required."
                ),
                _OPEN_AGAIN_LATER,
            ),
            start_again=True,
        ),
        Problem.TRY_AGAIN: ProblemWords(
            status=503,
            heading="Microsoft is not available at the moment",
            what=(
                "A Microsoft service did not answer as it should, so we could not finish. Nothing was changed by this "
                "attempt, and nothing is wrong on your side."
            ),
            who=Who.MICROSOFT,
            steps=("Wait about ten minutes.", _OPEN_AGAIN, _TELL_US),
            start_again=True,
        ),
        Problem.CONTAINED: ProblemWords(
            status=503,
            heading="We have paused all connections",
            what=(
                "We stopped every use of our access for now, as a precaution, and your link waits meanwhile. Nothing "
                "was changed in your tenant, and nothing of this attempt was kept. What you connected before is kept, "
                "and is not used either."
            ),
            who=Who.US,
            steps=(
                "You need not do anything now. Your link stays the same, and works again when we go on.",
                _OPEN_AGAIN_LATER,
                "If you want to know why, write to us.",
            ),
            start_again=False,
        ),
        Problem.STORAGE_UNAVAILABLE: ProblemWords(
            status=503,
            heading="One moment: our storage is not ready",
            what="We noticed it before we used your sign-in, so nothing was lost. We already know about it.",
            who=Who.US,
            steps=(
                ("Wait one minute, then reload this page. If your browser asks whether to send the form again, agree."),
                "If more than ten minutes have passed, open the link in your invitation again instead.",
            ),
            start_again=True,
        ),
        Problem.INTERRUPTED: ProblemWords(
            status=503,
            heading="We were interrupted",
            what=(
                "Your sign-in arrived, but something failed on our side while we checked it. We cannot say yet whether "
                "you are connected. Trying once more is harmless."
            ),
            who=Who.YOU,
            steps=(
                "Wait one minute, then open the link in your invitation again and continue to Microsoft.",
                "If it says that the link is not open, you are connected and nothing is left to do.",
                _TELL_US,
            ),
            start_again=True,
        ),
        Problem.OUR_FAULT: ProblemWords(
            status=500,
            heading="Something is wrong on our side",
            what=(
                "The sign-in could not be finished because of our configuration. You did nothing wrong, and we keep "
                "nothing from this attempt."
            ),
            who=Who.US,
            steps=(
                "You do not need to change anything in your tenant.",
                "Send us the reference on this page. We tell you when to open the link again.",
            ),
            start_again=False,
        ),
        Problem.ANSWER_REFUSED: ProblemWords(
            status=400,
            heading="The answer did not prove who signed in",
            what=(
                "What came back from the sign-in is not what Microsoft documents, so we did not use it. Nothing was "
                "changed, and we keep nothing from this attempt."
            ),
            who=Who.US,
            steps=(
                "You do not need to change anything in your tenant.",
                "Open the link in your invitation once more.",
                "If this page comes back, send us the reference on it. We find out what Microsoft sent.",
            ),
            start_again=True,
        ),
        Problem.CLOCK: ProblemWords(
            status=500,
            heading="Our clock and Microsoft’s do not agree",
            what=(
                "Microsoft’s answer did not carry the right time, so we refused it. We keep nothing from this attempt."
            ),
            who=Who.US,
            steps=(
                "You do not need to change anything in your tenant.",
                "Send us the reference on this page. We correct our clock and tell you when to open the link again.",
            ),
            start_again=False,
        ),
        Problem.MALFORMED: ProblemWords(
            status=400,
            heading="We could not read this request",
            what="It did not look like an answer from Microsoft’s sign-in page, so we did nothing with it.",
            who=Who.YOU,
            steps=(
                "If you came here by the Back button or a bookmark, that is the reason.",
                _OPEN_AGAIN,
                "If it happens again, another browser or no browser extensions may help. Otherwise write to us.",
            ),
            start_again=True,
        ),
    }
)

# Answers on the authorize channel. Source: Microsoft Entra authentication error codes; a number that is not here
# leaves the decision to its ``error``.
_BY_CODE: Mapping[int, Problem] = {
    code: problem
    for problem, codes in {
        Problem.DECLINED: (65001, 65004),
        Problem.ADMIN_APPROVAL_NEEDED: (90093, 90094, 90095),
        Problem.WRONG_TENANT: (16000, 16003, 50020, 50034, 51004, 90072),
        Problem.PERSONAL_OR_GUEST_ACCOUNT: (50014, 50085, 50177, 500208),
        Problem.MFA_MISSING: (50072, 50074, 50076, 50078, 50079, 50158, 50161, 53004, 53010),
        Problem.PARTNER_CENTER_REFUSED: (500011, 650052),
        Problem.BLOCKED_BY_POLICY: (
            *(50002, 50053, 50057, 50097, 50105, 50131, 50135, 50155, 53000, 53001, 53002, 53003, 53011),
            *(500021, 500022, 500212, 530003, 530032, 530034, 530035, 700003, 7000112),
        ),
        Problem.TRY_AGAIN: (50000, 50033, 50087, 50088, 90006, 90012, 90024, 90033, 90055, 90090, 90091, 650051),
        Problem.START_AGAIN: (
            *(50055, 50058, 50089, 50125, 50126, 50132, 50133, 50140, 50144, 50168, 50197, 50199),
            *(54005, 70008, 900561),
        ),
    }.items()
    for code in codes
}
_BY_ERROR: Mapping[str, Problem] = {
    "access_denied": Problem.DECLINED,
    "consent_required": Problem.DECLINED,
    "interaction_required": Problem.START_AGAIN,
    "login_required": Problem.START_AGAIN,
    "server_error": Problem.TRY_AGAIN,
    "temporarily_unavailable": Problem.TRY_AGAIN,
    "invalid_client": Problem.OUR_FAULT,
    "invalid_request": Problem.OUR_FAULT,
    "invalid_resource": Problem.OUR_FAULT,
    "invalid_scope": Problem.OUR_FAULT,
    "unauthorized_client": Problem.OUR_FAULT,
    "unsupported_response_mode": Problem.OUR_FAULT,
    "unsupported_response_type": Problem.OUR_FAULT,
}


def problem_for_callback_error(error: str, codes: Sequence[int], subcode: str) -> Problem:
    """Choose the page for an error that the browser brought back from the authorize endpoint.

    All three come from outside and only choose among fixed texts (S-23). The first known number decides, because it
    says more than ``error``; a cancelled page says so in ``subcode``; anything unknown is a sign-in to start again.

    Args:
        codes: AADSTS numbers, in the order in which they were found.
    """
    if subcode == "cancel":
        return Problem.DECLINED
    for code in codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
    return _BY_ERROR.get(error, Problem.START_AGAIN)
