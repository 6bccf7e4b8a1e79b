"""Entra's numbers about accounts, tokens, consents and policies: what people in a tenant put right.

Source: Microsoft Entra "Authentication and authorization error codes" (reference-error-codes).
"""

from __future__ import annotations

from collections.abc import Mapping

from portal.microsoft.diagnosis.rows import AGAIN, MFA_AGAIN, FailureClass, Owner, Row, Words, merged, rows
from portal.microsoft.errors import MfaRequired

# What the same answers mean when a customer's tenant gives them. None of them says that the partner's token is dead:
# only the partner's own tenant says that.
CHECK_TOKEN = Words(
    Owner.US,
    "The customer's tenant did not accept the partner's sign-in.",
    "Check the partner's token, because this answer alone says nothing about it.",
)
CUSTOMER_POLICY = Words(
    Owner.CUSTOMER,
    "A sign-in policy of the customer's tenant refused the partner's account.",
    "Ask the customer to exclude service providers from this Conditional Access policy.",
)
CUSTOMER_SIGN_IN = Words(
    Owner.CUSTOMER,
    "The customer's tenant wants the partner's account to sign in there.",
    "Ask the customer to read its sign-in log and to exclude service providers from the policy that it names.",
)
CUSTOMER_ACCOUNT = Words(
    Owner.PARTNER,
    "The partner's account has no access to this customer.",
    "Put the service account into the security group of the GDAP relationship, as a member and not as a guest.",
)
CUSTOMER_CONSENT = Words(
    Owner.US, "The application has no consent in this customer.", "Push the consent to this customer."
)
CUSTOMER_RESOURCE = Words(
    Owner.CUSTOMER,
    "The customer's tenant does not have the service that was asked for.",
    "Drop this resource from the wanted grants, or let the customer license the service.",
)

_TOKEN_ENDED: Mapping[int, tuple[str, str]] = {
    50132: ("A password change ended the service account's session.", AGAIN),
    50133: ("The session was revoked after a password change.", AGAIN),
    50173: ("The service account's sessions were revoked.", AGAIN),
    70000: ("Microsoft does not recognise the stored token.", AGAIN),
    70008: ("The stored token has expired.", AGAIN),
    70043: (
        "A sign-in frequency policy ended the token.",
        "Let the partner exclude the service account from sign-in frequency, then send a new consent link.",
    ),
    700082: (
        "The token was unused for 90 days.",
        "Send the partner a new consent link, and find out why the keep-alive did not run.",
    ),
}
_ACCOUNT_GONE: Mapping[int, tuple[str, str]] = {
    50034: (
        "The service account does not exist any more.",
        "Send the partner a new consent link, to be opened with a live account.",
    ),
}
_SPA_TOKEN: Mapping[int, tuple[str, str]] = {
    700084: (
        "The token ended after a day, because the redirect URI is of the single-page kind.",
        "Move the redirect URI to the Web platform in the registration, then send a new consent link.",
    ),
}
_ACCOUNT_STATE: Mapping[int, tuple[str, str]] = {
    50053: (
        "The service account is locked, or its address is blocked.",
        "Let the partner unlock the account and review its sign-in log.",
    ),
    50055: (
        "The service account's password has expired.",
        "Let the partner change the password, then send a new consent link.",
    ),
    50056: (
        "The service account has no valid password.",
        "Let the partner repair the account, then send a new consent link.",
    ),
    50057: ("The service account is disabled.", "Let the partner enable it, or consent with another account."),
    50085: ("The account signs in through a social provider.", "Let the partner consent with a work account."),
    50135: (
        "Microsoft asks for a new password because the account is at risk.",
        "Let the partner change the password and clear the risk, then send a new consent link.",
    ),
    50144: (
        "The password has expired in the partner's own directory.",
        "Let the partner reset the password, then send a new consent link.",
    ),
}
_CONSENT: Mapping[int, tuple[str, str]] = {
    65004: ("The person declined the consent.", "Let the partner open the link again and press Accept."),
    90094: ("An administrator must consent.", "Let a Global Administrator of the partner open the link."),
    90095: (
        "The consent waits for an administrator's approval.",
        "Let the partner approve the request, or let a Global Administrator open the link.",
    ),
}
_MAY_NOT_CONSENT: Mapping[int, tuple[str, str]] = {
    90093: (
        "The account may not consent for its organisation.",
        "Let a Global Administrator of the partner open the link.",
    ),
}
_NOT_CONSENTED: Mapping[int, tuple[str, str]] = {
    65001: ("The application has no consent in this tenant.", AGAIN),
    90099: ("The application is not authorised in this tenant.", AGAIN),
    700016: (
        "The application is not present in this tenant.",
        "Check that the partner is recorded in the right cloud, then send a new consent link.",
    ),
    7000229: ("The application has no service principal in this tenant.", AGAIN),
}
_MFA: Mapping[int, tuple[str, str]] = {
    50072: (
        "The service account must register for MFA.",
        "Let the partner register MFA for the account, then send a new consent link.",
    ),
    50074: ("The sign-in was not proven by strong authentication.", MFA_AGAIN),
    50076: ("A policy asks for MFA, and the token carries none.", MFA_AGAIN),
    50078: (
        "The MFA proof has expired by policy.",
        "Let the partner exempt the account from short MFA sessions, then send a new consent link.",
    ),
    50079: (
        "The service account has no MFA method yet.",
        "Let the partner register MFA for the account, then send a new consent link.",
    ),
    50158: (
        "An outside MFA provider was not satisfied.",
        "Send the partner a new consent link, and let the service account complete the outside MFA.",
    ),
    50161: (
        "The outside MFA provider did not confirm enough.",
        "Let the partner repair its outside MFA provider, then send a new consent link.",
    ),
    53004: (
        "MFA registration was refused because of risk.",
        "Let the partner register MFA from a trusted place, then send a new consent link.",
    ),
    53010: (
        "MFA methods cannot be registered from that place.",
        "Let the partner register MFA from a place that its policy allows.",
    ),
}
_POLICY: Mapping[int, tuple[str, str]] = {
    50097: (
        "A policy asks for a device that proves itself.",
        "Let the partner exclude the service account from device rules.",
    ),
    50105: (
        "The account is not assigned to the application.",
        "Let the partner assign it in the enterprise application, or switch the assignment off.",
    ),
    50131: (
        "Conditional Access refused the device or the risk.",
        "Let the partner's administrator read the sign-in log and adapt the policy.",
    ),
    50155: ("The device could not prove itself.", "Let the partner exclude the service account from device rules."),
    50178: (
        "A session control of the tenant cannot be applied to partner accounts.",
        "Let the tenant's administrator exclude service providers from the session policy.",
    ),
    53000: (
        "The device does not comply with the tenant's rules.",
        "Let the partner exclude the service account from device rules.",
    ),
    53001: (
        "The device is not joined to the domain.",
        "Let the partner exclude the service account from device rules.",
    ),
    53002: (
        "The application is not on the tenant's list of approved ones.",
        "Let the partner exclude the service account from this rule.",
    ),
    53003: (
        "Conditional Access blocked the sign-in.",
        "Let the partner allow this application, account or address in the policy.",
    ),
    530003: ("A policy asks for a managed device.", "Let the partner exclude the service account from device rules."),
    530032: (
        "A security policy of the tenant blocked the sign-in.",
        "Let the tenant's administrator review its security policies.",
    ),
    530035: (
        "Security defaults blocked the sign-in.",
        "Let the service account sign in with modern authentication and MFA by a new consent link.",
    ),
    700003: (
        "The device is not known to the tenant.",
        "Let the partner exclude the service account from device rules.",
    ),
}
_HOME_RISK: Mapping[int, tuple[str, str]] = {
    53011: ("The account is blocked for risk in its own tenant.", "Let the partner clear the risk of the account."),
    500212: (
        "The partner's tenant blocks access to other tenants.",
        "Let the partner allow outbound access to this tenant.",
    ),
    530034: (
        "The delegated administrator is blocked for risk in its own tenant.",
        "Let the partner clear the risk of the service account.",
    ),
}
_INBOUND: Mapping[int, tuple[str, str]] = {
    500213: (
        "The customer's tenant blocks access from outside.",
        "Ask the customer to allow service providers inbound.",
    ),
}
_FOREIGN_ACCOUNT: Mapping[int, tuple[str, str]] = {
    50014: (
        "The account is a guest whose invitation was not redeemed.",
        "Let the partner use a member account of its own tenant.",
    ),
    50020: ("The account is not known in this tenant.", "Let the partner use a member account of its own tenant."),
    50177: (
        "The tenant asks for a check that accounts from elsewhere cannot pass.",
        "Let the partner use a member account of its own tenant.",
    ),
    51004: ("The account is not in this directory.", "Let the partner use a member account of its own tenant."),
    90072: (
        "The account is not in this tenant and cannot meet its MFA.",
        "Let the partner use a member account of its own tenant.",
    ),
}
# Somebody sits at the browser: nothing is wrong with a stored token, the sign-in has to be done once more.
_SIGN_IN: Mapping[int, tuple[str, str]] = {
    16000: (
        "The browser is signed in with an account of another tenant.",
        "Sign out, open the link again and take the service account.",
    ),
    16003: ("The browser's account is not in this tenant.", "Open the link again with an account of this tenant."),
    50002: (
        "The network of the sign-in allows only certain tenants.",
        "Open the link from a network without tenant restrictions.",
    ),
    50058: ("No account was signed in.", "Open the link again and sign in."),
    50089: ("The sign-in took too long.", "Open the link again."),
    50125: ("A password or registration page came in between.", "Finish it at Microsoft, then open the link again."),
    50126: ("The user name or the password was wrong.", "Open the link again and sign in with the right one."),
    50140: (
        "The page that asks to stay signed in came in between.",
        "Open the link again if the sign-in stopped there.",
    ),
    50168: ("The browser could not sign in on its own.", "Open the link again."),
    50197: ("The browser holds two accounts that do not agree.", "Sign out of both, then open the link again."),
    50199: ("The application waits for the person's confirmation.", "Open the link again and confirm."),
    54005: ("The sign-in answer was used before.", "Open the link again."),
    70019: ("The time to enter the code was over.", "Open the link again."),
    500021: (
        "The network of the sign-in does not allow this tenant.",
        "Open the link from a network without tenant restrictions.",
    ),
    500022: (
        "The network of the sign-in does not allow this tenant's partner access.",
        "Open the link from a network without tenant restrictions.",
    ),
    500208: ("This kind of account cannot sign in here.", "Open the link again with a work account."),
    501481: ("The sign-in belongs to another attempt.", "Open the link again."),
    700020: ("Microsoft wants a person to sign in.", AGAIN),
    **dict.fromkeys(
        range(120000, 120022),
        (
            "A password change at Microsoft was not finished.",
            "Finish the password change at Microsoft, then open the link again.",
        ),
    ),
}
_BACK_BUTTON: Mapping[int, tuple[str, str]] = {
    900561: ("The browser's Back button repeated an old step.", "Open the link again."),
}
_DISABLED_HERE: Mapping[int, tuple[str, str]] = {
    7000112: (
        "The application is disabled in this tenant.",
        "Let the partner enable the enterprise application in its tenant.",
    ),
}
_RESOURCE_MISSING: Mapping[int, tuple[str, str]] = {
    500011: (
        "The service that was asked for does not exist in this tenant.",
        "Let the partner create the service principal of this resource in its tenant.",
    ),
    650052: (
        "The tenant has not subscribed to the service that was asked for.",
        "Let the partner create the service principal of this resource, or drop the resource.",
    ),
}

_CONSENT_CLASS = FailureClass.NEEDS_CONSENT
_INTERACTION = FailureClass.NEEDS_INTERACTION

ACCOUNTS: Mapping[int, Row] = merged(
    rows(_CONSENT_CLASS, Owner.PARTNER, _TOKEN_ENDED, in_customer=CHECK_TOKEN, fatal=True),
    rows(_CONSENT_CLASS, Owner.PARTNER, _ACCOUNT_GONE, in_customer=CUSTOMER_ACCOUNT, fatal=True),
    rows(_CONSENT_CLASS, Owner.US, _SPA_TOKEN, in_customer=CHECK_TOKEN, fatal=True),
    rows(_CONSENT_CLASS, Owner.PARTNER, _ACCOUNT_STATE, in_customer=CHECK_TOKEN),
    rows(_CONSENT_CLASS, Owner.PARTNER, _CONSENT, in_customer=CUSTOMER_CONSENT),
    rows(
        _CONSENT_CLASS,
        Owner.PARTNER,
        _MAY_NOT_CONSENT,
        in_customer=CUSTOMER_CONSENT,
        also_with=frozenset({"invalid_client"}),
    ),
    rows(
        _CONSENT_CLASS,
        Owner.PARTNER,
        _NOT_CONSENTED,
        in_customer=CUSTOMER_CONSENT,
        not_consented=True,
        also_with=frozenset({"invalid_client", "unauthorized_client"}),
    ),
    rows(_INTERACTION, Owner.PARTNER, _MFA, in_customer=CUSTOMER_POLICY, error=MfaRequired),
    rows(_INTERACTION, Owner.PARTNER, _POLICY, in_customer=CUSTOMER_POLICY),
    rows(_INTERACTION, Owner.PARTNER, _HOME_RISK),
    rows(_INTERACTION, Owner.CUSTOMER, _INBOUND),
    rows(_INTERACTION, Owner.PARTNER, _FOREIGN_ACCOUNT, in_customer=CUSTOMER_ACCOUNT),
    rows(_INTERACTION, Owner.PARTNER, _SIGN_IN, in_customer=CHECK_TOKEN),
    rows(
        _INTERACTION,
        Owner.PARTNER,
        _DISABLED_HERE,
        in_customer=Words(
            Owner.CUSTOMER,
            "The application is disabled in the customer's tenant.",
            "Ask the customer to enable the enterprise application.",
        ),
        also_with=frozenset({"unauthorized_client"}),
    ),
    rows(_INTERACTION, Owner.PARTNER, _BACK_BUTTON, also_with=frozenset({"invalid_request"})),
    rows(FailureClass.NOT_FOUND, Owner.PARTNER, _RESOURCE_MISSING, in_customer=CUSTOMER_RESOURCE),
)

DAMAGED_TOKEN = rows(
    _CONSENT_CLASS,
    Owner.PARTNER,
    {("invalid_grant", 9002313): ("The stored token is damaged.", AGAIN)},
    in_customer=CHECK_TOKEN,
)
"""The one number that says another thing under ``invalid_grant`` than elsewhere."""
