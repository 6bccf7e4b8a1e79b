"""Entra's numbers about our credential, our requests and the service itself: what no partner can put right.

Source: Microsoft Entra "Authentication and authorization error codes" (reference-error-codes).
"""

from __future__ import annotations

from collections.abc import Mapping

from portal.microsoft.diagnosis.rows import LATER, REPORT, FailureClass, Owner, Row, merged, rows

_CREDENTIAL: Mapping[int, tuple[str, str]] = {
    50012: (
        "Microsoft rejected the certificate of our application.",
        "Check that this certificate is uploaded to the registration and still valid.",
    ),
    50013: (
        "Microsoft rejected the assertion of our application.",
        "Synchronise this server's clock and check the certificate.",
    ),
    50027: ("Microsoft could not read the assertion of our application.", "Check the certificate that signs it."),
    70001: (
        "The application is disabled or unknown.",
        "Check the application id, and that the registration is enabled.",
    ),
    70002: (
        "Microsoft refused our application's own credential.",
        "Check the secret or certificate of the registration and store a valid one.",
    ),
    70021: (
        "No federated credential fits this token.",
        "Correct issuer, subject and audience of the federated credential in the registration.",
    ),
    65002: (
        "The application id is one of Microsoft's own.",
        "Enter the application id of our own registration.",
    ),
    500133: ("A token was outside its valid time.", "Synchronise this server's clock."),
    700011: (
        "The application was not found in that directory.",
        "Check the application id, the tenant and the cloud of the registration.",
    ),
    700024: ("Our assertion was outside its valid time.", "Synchronise this server's clock."),
    700025: (
        "The registration treats our application as a public one.",
        "Set the platform of the redirect URI to Web in the registration.",
    ),
    700027: (
        "Microsoft does not know the certificate of our application.",
        "Upload it to the registration, and wait some minutes until it has spread.",
    ),
    700030: (
        "The certificate's subject is not authorised for our application.",
        "Use a certificate that is registered for the application.",
    ),
    700211: ("The federated credential names another issuer.", "Correct the issuer of the federated credential."),
    700212: ("The federated credential names another audience.", "Correct the audience of the federated credential."),
    700213: ("The federated credential names another subject.", "Correct the subject of the federated credential."),
    700229: (
        "A token of a person was used as federated credential.",
        "Use the managed identity's own token as federated credential.",
    ),
    7000114: (
        "The application may not act on behalf of others.",
        "Check the grant type, because this flow does not need such calls.",
    ),
    7000215: ("The client secret is wrong.", "Store the value of the secret, not its id."),
    7000218: ("No credential was sent for our application.", "Store a secret or certificate for the registration."),
    7000222: (
        "The client secret of our application has expired.",
        "Create a new secret and store it, the partners' tokens stay valid.",
    ),
}
_REGISTRATION: Mapping[int, tuple[str, str]] = {
    50011: (
        "The redirect URI is not registered.",
        "Add the exact redirect URI of this portal to the registration.",
    ),
    50194: (
        "The registration is for one tenant only.",
        "Set the registration to accounts in any organisational directory.",
    ),
    65005: (
        "The registration asks for permissions that do not exist.",
        "Repair the list of required permissions in the registration.",
    ),
    70004: ("The redirect URI is not valid.", "Add the exact redirect URI of this portal to the registration."),
    90008: ("The registration lacks the permission to sign people in.", "Add User.Read to the registration."),
    500112: (
        "The redirect URI changed between sign-in and token request.",
        "Check PUBLIC_BASE_URL, which must not change while people sign in.",
    ),
    500113: ("No redirect URI is registered.", "Add the redirect URI of this portal to the registration."),
    650054: (
        "The registration asks for a service that was removed.",
        "Remove this service's permissions from the registration.",
    ),
    650056: (
        "The registration lists no permission for this service, or no one consented to it.",
        "Add the permission to the registration, then let the partners consent again.",
    ),
    650057: (
        "The registration does not list this service.",
        "Add a permission of this service to the registration, then consent again.",
    ),
    900971: ("The sign-in request named no redirect URI.", "Check PUBLIC_BASE_URL and the registration."),
}
_PLACE: Mapping[int, tuple[str, str]] = {
    50001: (
        "Microsoft knows no such service in this cloud.",
        "Check that registration and partner are recorded in the right cloud.",
    ),
    50049: ("Microsoft does not know the sign-in host.", "Check the cloud of the registration."),
    50059: ("The request named no tenant.", "Check the tenant id of the partner."),
    50128: ("No tenant has this domain.", "Check the tenant id and the domain of the partner."),
    90019: ("Microsoft could not tell which tenant is meant.", "Check the tenant id of the partner."),
    90038: ("The tenant belongs to another national cloud.", "Correct the cloud of the partner."),
    700005: ("A sign-in answer was redeemed at another tenant.", REPORT),
    900021: ("The tenant id is neither a GUID nor a domain.", "Correct the tenant id of the partner."),
    900023: ("The tenant id is not usable.", "Correct the tenant id of the partner."),
    900382: ("The application cannot be used across clouds.", "Use the registration of the partner's own cloud."),
    900432: ("The application cannot be used in this cloud.", "Use the registration of the partner's own cloud."),
    1000104: (
        "The service belongs to another cloud than the account.",
        "Use the registration of the partner's own cloud.",
    ),
    9001023: ("The request was sent to a shared address instead of the tenant's.", REPORT),
}
_REQUEST: Mapping[int, tuple[str, str]] = {
    28000: ("The request named more than one service.", REPORT),
    28002: ("Microsoft does not accept the scope of the request.", REPORT),
    28003: ("The request named no scope.", REPORT),
    50147: ("The proof key of the sign-in has the wrong size.", REPORT),
    70003: ("Microsoft does not support the kind of grant.", REPORT),
    70005: ("Microsoft does not support the kind of response.", REPORT),
    70007: ("Microsoft does not support the way of answering.", REPORT),
    70011: ("Microsoft does not accept the scope.", "Check the permissions and the cloud of the registration."),
    90004: ("The request was not well formed.", REPORT),
    90014: ("The request lacked a field.", REPORT),
    90015: ("The address of the request was too long.", REPORT),
    90023: ("Microsoft called the request invalid.", REPORT),
    90056: ("The request reached the wrong address or used the wrong method.", REPORT),
    501491: ("The proof key of the sign-in is not valid.", REPORT),
    700022: ("The scope names more than one service.", REPORT),
    700023: ("The scope names no service.", REPORT),
    700054: ("The registration does not allow this kind of response.", REPORT),
    900144: ("The request's body lacked a field.", REPORT),
    901002: ("The request used a field of the older protocol.", REPORT),
    9002313: ("Microsoft could not read the request.", REPORT),
}
_TENANT_GONE: Mapping[int, tuple[str, str]] = {
    90002: (
        "Microsoft knows no such tenant in this cloud.",
        "Check the tenant id and the cloud, and whether the tenant was deleted.",
    ),
    5000224: ("The tenant was deleted or blocked.", "Check that the tenant still exists, and archive it if not."),
}
_THROTTLED: Mapping[int, tuple[str, str]] = {
    50196: ("The same request came too often.", "Nothing to do, because the portal slows down and tries again."),
    90024: ("Too many requests for this tenant at once.", LATER),
    90055: ("Microsoft throttles this tenant.", LATER),
}
_BUSY: Mapping[int, tuple[str, str]] = {
    50033: ("The directory was not available for a moment.", LATER),
    50087: ("Strong authentication was not available for a moment.", LATER),
    90006: ("A service behind the sign-in was not available.", LATER),
    90012: ("The sign-in service took too long.", LATER),
    90033: ("The directory service is not available.", LATER),
    90090: ("The directory could not answer the sign-in service.", LATER),
    90091: ("The sign-in service could not reach the directory.", LATER),
    650051: (
        "The application's service principal is not ready yet.",
        "Wait some minutes, then look at the enterprise application in the tenant.",
    ),
    **dict.fromkeys(
        range(80001, 80015),
        (
            "The sign-in agent in the partner's own network did not answer.",
            "Wait, and if it lasts let the partner's IT check its pass-through authentication agent.",
        ),
    ),
}
_TELEPHONE: Mapping[int, tuple[str, str]] = {
    50088: (
        "Too many telephone calls or messages for MFA.",
        "Wait some minutes or take another method, then open the link again.",
    ),
}
_MICROSOFT: Mapping[int, tuple[str, str]] = {
    50000: ("Microsoft could not issue a token.", "Open a Microsoft support request if it lasts longer than an hour."),
    90036: ("The directory has a lasting fault.", "Open a Microsoft support request with the request id."),
    90092: (
        "The directory could not record the consent.",
        "Let an administrator try again, and open a Microsoft support request if it fails again.",
    ),
}

OURS: Mapping[int, Row] = merged(
    rows(FailureClass.OUR_CREDENTIAL, Owner.US, _CREDENTIAL),
    rows(FailureClass.PROTOCOL_ERROR, Owner.US, _REGISTRATION),
    rows(FailureClass.PROTOCOL_ERROR, Owner.US, _PLACE),
    rows(FailureClass.PROTOCOL_ERROR, Owner.US, _REQUEST),
    rows(FailureClass.NOT_FOUND, Owner.US, _TENANT_GONE),
    rows(FailureClass.THROTTLED, Owner.NOBODY, _THROTTLED),
    rows(FailureClass.TEMPORARY, Owner.NOBODY, _BUSY),
    rows(FailureClass.TEMPORARY, Owner.PARTNER, _TELEPHONE),
    rows(FailureClass.TEMPORARY, Owner.MICROSOFT, _MICROSOFT),
)
