"""The application's certificate: assertions as MSAL makes them, and every way to get them wrong."""

from __future__ import annotations

import base64
import datetime
import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

import jwt
import msal
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import Reply, Vendor, Wire, claims_of

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Credential:
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def thumbprint(self, algorithm: str) -> str:
        return base64.urlsafe_b64encode(hashlib.new(algorithm, self.der).digest()).rstrip(b"=").decode()


def make_credential() -> Credential:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    return Credential(key, certificate)


@pytest.fixture(scope="module")
def credential() -> Credential:
    return make_credential()


@pytest.fixture
def refresh(vendor: Vendor, credential: Credential) -> str:
    """A refresh token, and the certificate registered beside the secret."""
    vendor.application.certificates.append(credential.der)
    return vendor.refresh_token()


def assertion(vendor: Vendor, credential: Credential, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    tenant = vendor.tenant_of("service@northwind.example.com")[0].tenant_id
    now = int(vendor.sandbox.world.now())
    claims = {
        "aud": f"{vendor.cloud.authority}/{tenant}/oauth2/v2.0/token",
        "iss": vendor.application.app_id,
        "sub": vendor.application.app_id,
        "jti": str(uuid.uuid4()),
        "nbf": now,
        "iat": now,
        "exp": now + 600,
    }
    kept = {name: value for name, value in (claims | changes).items() if value is not None}
    full_header = header or {"x5t#S256": credential.thumbprint("sha256")}
    return jwt.encode(kept, credential.key, full_header.pop("alg", "PS256"), full_header)


def redeem(vendor: Vendor, refresh: str, text: str) -> Reply:
    return vendor.refresh(refresh, client_secret=None, client_assertion=text, client_assertion_type=ASSERTION_TYPE)


def code_of(reply: Reply) -> int:
    return int(reply.json()["error_codes"][-1])


def test_ps256_with_the_sha256_thumbprint_and_rs256_with_the_sha1_one_are_good(
    vendor: Vendor, credential: Credential, refresh: str
) -> None:
    strong = assertion(vendor, credential)
    weak = assertion(vendor, credential, header={"alg": "RS256", "x5t": credential.thumbprint("sha1")})

    for text in (strong, weak):
        reply = redeem(vendor, refresh, text)
        assert reply.status == 200
        assert claims_of(reply.json()["access_token"])["appidacr"] == "2"
    assert redeem(vendor, refresh, strong).status == 200  # an assertion serves until it expires


@pytest.mark.parametrize("thumbprint", [True, False])
def test_msal_gets_its_tokens_with_the_certificate(
    vendor: Vendor, wire: Wire, credential: Credential, refresh: str, thumbprint: bool
) -> None:
    class Session:
        def get(self, url: str, **rest: Any) -> Any:
            return Answer(wire.get(url))

        def post(self, url: str, data: dict[str, str], headers: dict[str, str], **rest: Any) -> Any:
            return Answer(wire.post(url, form=data, headers=headers))

    class Answer:
        def __init__(self, reply: Reply) -> None:
            self.status_code, self.text, self.headers = reply.status, reply.text, dict(reply.headers)

        def raise_for_status(self) -> None:
            assert self.status_code == 200

    pem = credential.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = credential.certificate.public_bytes(serialization.Encoding.PEM).decode()
    sha1 = hashlib.sha1(credential.der).hexdigest()  # noqa: S324  # MSAL wants it
    application = msal.ConfidentialClientApplication(
        vendor.application.app_id,
        authority=f"{vendor.cloud.authority}/northwind.example.com",
        client_credential={"private_key": pem}
        | ({"thumbprint": sha1} if thumbprint else {"public_certificate": public}),
        instance_discovery=False,
        http_client=Session(),
    )

    answer = application.acquire_token_by_refresh_token(refresh, [vendor.partner_center])

    assert answer.get("error") is None
    assert claims_of(answer["access_token"])["appidacr"] == "2"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": "https://login.microsoftonline.com/common/oauth2/v2.0/token"}, 50013),
        ({"aud": None}, 50013),
        ({"iss": "somebody else"}, 700027),
        ({"sub": "somebody else"}, 700027),
        ({"jti": None}, 700027),
        ({"exp": 1}, 700024),
        ({"exp": None}, 700024),
        ({"exp": 99_999_999_999}, 700024),
        ({"nbf": 99_999_999_998}, 700024),
    ],
)
def test_wrong_claims_are_refused(
    vendor: Vendor, credential: Credential, refresh: str, changes: dict[str, Any], code: int
) -> None:
    reply = redeem(vendor, refresh, assertion(vendor, credential, **changes))

    assert (reply.status, code_of(reply)) == (400 if code == 50013 else 401, code)


def test_an_assertion_for_another_tenants_endpoint_is_refused(
    vendor: Vendor, credential: Credential, refresh: str
) -> None:
    text = assertion(vendor, credential)
    reply = vendor.refresh(
        refresh,
        "southridge.example.com",
        client_secret=None,
        client_assertion=text,
        client_assertion_type=ASSERTION_TYPE,
    )

    assert code_of(reply) == 50013


def test_another_key_an_unknown_certificate_and_a_weak_algorithm_are_refused(
    vendor: Vendor, credential: Credential, refresh: str
) -> None:
    stranger = make_credential()
    forged = assertion(vendor, Credential(stranger.key, credential.certificate))
    weak = {"alg": "RS256", "x5t": credential.thumbprint("sha1")}
    forged_weak = assertion(vendor, Credential(stranger.key, credential.certificate), header=weak)
    unknown = assertion(vendor, stranger)
    nameless = assertion(vendor, credential, header={"kid": "x"})
    other = assertion(vendor, credential, header={"alg": "RS512", "x5t": credential.thumbprint("sha1")})

    assert [code_of(redeem(vendor, refresh, text)) for text in (forged, forged_weak, unknown, nameless, other)] == [
        700027,
        700027,
        700027,
        700027,
        50013,
    ]


@pytest.mark.parametrize("text", ["x", "a.b.c", "e30.e30", "bnVsbA.bnVsbA.AAAA", "W10.e30.AAAA"])
def test_rubbish_is_refused_as_malformed(vendor: Vendor, refresh: str, text: str) -> None:
    assert code_of(redeem(vendor, refresh, text)) == 50027


def test_the_type_of_the_assertion_must_be_named(vendor: Vendor, credential: Credential, refresh: str) -> None:
    text = assertion(vendor, credential)

    assert code_of(vendor.refresh(refresh, client_secret=None, client_assertion=text)) == 900144


def test_an_expired_certificate_is_refused(
    vendor: Vendor, credential: Credential, refresh: str, sandbox: Sandbox
) -> None:
    sandbox.world.advance(31 * 86_400)

    assert code_of(redeem(vendor, refresh, assertion(vendor, credential))) == 700027
