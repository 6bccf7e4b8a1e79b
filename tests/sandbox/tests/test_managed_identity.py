"""The identity endpoint of a host in Azure, by the real SDK, and its tokens as the application's credential."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
import requests
from azure.identity import CredentialUnavailableError, ManagedIdentityCredential

from tests.sandbox.managed_identity import PATH, issuer, trust
from tests.sandbox.tests.wire import Reply, Vendor, claims_of
from tests.sandbox.tokens import sign
from tests.sandbox.world import ManagedIdentity

CLIENT = "5f0a1c1e-6d3f-4b53-8f9e-7c1f0f4f2b11"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture
def identity(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> ManagedIdentity:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{vendor.sandbox.browser_port}")
    return trust(vendor.sandbox.world, vendor.cloud, vendor.application, CLIENT)


def by_sdk(vendor: Vendor, client_id: str = CLIENT) -> str:
    credential = ManagedIdentityCredential(client_id=client_id, retry_total=0)
    return str(credential.get_token(f"{vendor.cloud.federation_audience}/.default").token)


def redeem(vendor: Vendor, refresh: str, assertion: str) -> Reply:
    return vendor.refresh(refresh, client_secret=None, client_assertion=assertion, client_assertion_type=ASSERTION_TYPE)


def test_the_sdk_gets_a_token_that_proves_the_application(vendor: Vendor, identity: ManagedIdentity) -> None:
    refresh, token = vendor.refresh_token(), by_sdk(vendor)
    claims = claims_of(token)
    assert (claims["sub"], claims["aud"]) == (identity.principal_id, "api://AzureADTokenExchange")
    reply = redeem(vendor, refresh, token)
    assert reply.status == 200
    assert claims_of(reply.json()["access_token"])["appidacr"] == "2"


def test_an_identity_that_the_host_does_not_have_gives_no_token(vendor: Vendor, identity: ManagedIdentity) -> None:
    with pytest.raises(CredentialUnavailableError):
        by_sdk(vendor, str(uuid.uuid4()))


def test_a_request_without_the_metadata_header_is_refused(vendor: Vendor, identity: ManagedIdentity) -> None:
    address = f"http://127.0.0.1:{vendor.sandbox.browser_port}{PATH}"
    query = {"resource": vendor.cloud.federation_audience, "client_id": CLIENT}
    assert requests.get(address, params=query, timeout=5).status_code == 400
    assert requests.get(address, params=query, timeout=5, headers={"Metadata": "true"}).status_code == 200


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://elsewhere.example/v2.0"}, 700211),
        ({"aud": "api://AzureADTokenExchangeUSGov"}, 700212),
        ({"sub": "somebody-else"}, 700213),
        ({"idtyp": "user"}, 700229),
        ({"exp": 1}, 700024),
    ],
)
def test_a_token_that_fits_no_federated_credential_is_refused_with_its_own_code(
    vendor: Vendor, identity: ManagedIdentity, changes: dict[str, object], code: int
) -> None:
    refresh = vendor.refresh_token()
    reply = redeem(vendor, refresh, sign(vendor.cloud.key, claims_of(by_sdk(vendor)) | changes))
    assert (reply.status, reply.json()["error"], reply.json()["error_codes"]) == (401, "invalid_client", [code])


def test_a_signature_of_somebody_else_is_refused(vendor: Vendor, identity: ManagedIdentity) -> None:
    refresh, token = vendor.refresh_token(), by_sdk(vendor)
    assert redeem(vendor, refresh, token[:-8] + "AAAAAAAA").json()["error_codes"] == [50013]


def test_an_identity_of_another_tenant_is_not_the_trusted_one(vendor: Vendor, identity: ManagedIdentity) -> None:
    elsewhere = replace(identity, tenant_id=str(uuid.uuid4()))
    vendor.sandbox.world.identities[CLIENT] = elsewhere
    refresh = vendor.refresh_token()
    assert claims_of(by_sdk(vendor))["iss"] == issuer(vendor.cloud, elsewhere)
    assert redeem(vendor, refresh, by_sdk(vendor)).json()["error_codes"] == [700211]
