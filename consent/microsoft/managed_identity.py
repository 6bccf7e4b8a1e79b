"""The application's own credential where it trusts a managed identity: that identity's token."""

from __future__ import annotations

from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ManagedIdentityCredential

from portal.microsoft.diagnosis.entra import NO_MANAGED_IDENTITY
from portal.microsoft.errors import AuthenticationFailed
from portal.microsoft.http import CONNECT_SECONDS, READ_SECONDS
from portal.microsoft.identifiers import ApplicationId
from portal.microsoft.secret import Secret


class FederatedCredential:
    """The token of a user-assigned managed identity, which serves as the application's assertion.

    Nothing is stored and nothing has to be rotated. The SDK keeps the token in memory until shortly before its end.

    Args:
        client_id: of the managed identity, not of the application.
        audience: the cloud's ``federation_audience``.

    Source: Microsoft Entra, "Configure an application to trust a managed identity".
    """

    def __init__(self, client_id: str, audience: str) -> None:
        self._scope = f"{audience}/.default"
        self._identity = managed_identity(client_id)

    def for_msal(self, application_id: ApplicationId, token_endpoint: str) -> str | dict[str, object]:
        assertion = _token(self._identity, self._scope)
        return {"client_assertion": assertion.reveal}


def identity_token(client_id: str, resource: str) -> Secret:
    """Return a token of a user-assigned identity of this host for one service.

    Raises:
        AuthenticationFailed: this host does not have the identity.
    """
    return _token(managed_identity(client_id), f"{resource}/.default")


def _token(identity: ManagedIdentityCredential, scope: str) -> Secret:
    try:
        return Secret(identity.get_token(scope).token)
    except AzureError:
        # Its text may repeat an answer of the host's endpoint, so it stays behind.
        raise AuthenticationFailed(
            "entra",
            "get the managed identity's token",
            code="no_managed_identity",
            detail=NO_MANAGED_IDENTITY.words.cause,
        ) from None


def managed_identity(client_id: str | None) -> ManagedIdentityCredential:
    """Return the identity that Azure gives to this host; None means the system-assigned one. Nothing is called yet."""
    # Its address is local to the host and plain http, which the guarded session refuses for good reasons.
    local = RequestsTransport(connection_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, use_env_settings=False)
    return ManagedIdentityCredential(client_id=client_id, transport=local, retry_total=1)
