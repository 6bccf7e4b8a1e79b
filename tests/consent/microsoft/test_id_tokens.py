"""Bent ID tokens (S-14), given to the validator alone. The table is written from the requirement: one field wrong at a
time, each with its own word.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import responses
from cryptography.hazmat.primitives import hashes

from consent.microsoft import entra, id_tokens
from consent.microsoft.entra import MetadataCache
from consent.microsoft.id_tokens import MAX_TOKEN_BYTES, Flaw, IdTokenRefused, IdTokenValidator, SigningKeys
from portal.microsoft.clouds import CHINA, GLOBAL
from portal.microsoft.errors import NotFound, RemoteError, ServerFault
from portal.microsoft.identifiers import CONSUMERS_TENANT
from portal.microsoft.secret import Secret
from tests.support.id_tokens import (
    ACCOUNT,
    APPLICATION,
    DEEP,
    HEAD,
    ISSUER,
    KEY,
    KEYS_URL,
    KID,
    NONCE,
    NOW,
    OTHER,
    STRANGERS_KEY,
    TENANT,
    b64,
    claims,
    hs256,
    jwk,
    pss,
    public_der,
    public_pem,
    signed,
    swapped_body,
    token,
    unsigned,
)


class Clock(SimpleNamespace):
    """Both clocks of the module under test, standing still unless moved."""

    def __init__(self) -> None:
        super().__init__(wall=float(NOW), process=1000.0)

    def time(self) -> float:
        return float(self.wall)

    def monotonic(self) -> float:
        return float(self.process)

    def move(self, seconds: float) -> None:
        self.wall += seconds
        self.process += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(id_tokens, "time", made)
    monkeypatch.setattr(entra, "time", made)
    return made


@pytest.fixture
def entra_host() -> Iterator[responses.RequestsMock]:
    """Serve discovery and one signing key; any other address is a failed connection."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        for cloud in (GLOBAL, CHINA):
            base = f"{cloud.authority}/organizations"
            mock.get(
                f"{base}/v2.0/.well-known/openid-configuration",
                json={
                    "issuer": f"{cloud.authority}/{{tenantid}}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "jwks_uri": f"{base}/discovery/v2.0/keys",
                },
            )
        mock.get(KEYS_URL, json={"keys": [jwk(KEY, KID)]})
        yield mock


@pytest.fixture
def validator(clock: Clock, entra_host: responses.RequestsMock) -> IdTokenValidator:
    session = requests.Session()
    return IdTokenValidator(keys=SigningKeys(session), metadata=MetadataCache(session))


def validate(validator: IdTokenValidator, text: str | None, **changes: Any) -> Any:
    wanted: dict[str, Any] = {
        "cloud": GLOBAL,
        "tenant_id": TENANT,
        "application_id": APPLICATION,
        "nonce": Secret(NONCE),
    }
    return validator.validate(None if text is None else Secret(text), **wanted | changes)


def key_fetches(mock: responses.RequestsMock) -> int:
    return len([call for call in mock.calls if "discovery" in str(call.request.url)])


BENT: dict[str, tuple[Flaw, Callable[[], str | None]]] = {
    # --- whose tenant
    "issuer of another tenant": (Flaw.ISSUER, lambda: token(claims(iss=f"{GLOBAL.authority}/{OTHER}/v2.0"))),
    "issuer and tid of another tenant": (
        Flaw.TENANT,
        lambda: token(claims(iss=f"{GLOBAL.authority}/{OTHER}/v2.0", tid=OTHER)),
    ),
    "tid of another tenant under our issuer": (Flaw.TENANT, lambda: token(claims(tid=OTHER))),
    "personal accounts": (
        Flaw.TENANT,
        lambda: token(claims(iss=f"{GLOBAL.authority}/{CONSUMERS_TENANT}/v2.0", tid=str(CONSUMERS_TENANT))),
    ),
    "version 1 issuer": (Flaw.ISSUER, lambda: token(claims(iss=f"https://sts.windows.net/{TENANT}/"))),
    "issuer of another cloud": (Flaw.ISSUER, lambda: token(claims(iss=f"{CHINA.authority}/{TENANT}/v2.0"))),
    "issuer with a slash at the end": (Flaw.ISSUER, lambda: token(claims(iss=ISSUER + "/"))),
    "issuer in capitals": (Flaw.ISSUER, lambda: token(claims(iss=ISSUER.upper()))),
    "issuer without TLS": (Flaw.ISSUER, lambda: token(claims(iss=ISSUER.replace("https", "http")))),
    "issuer of the template": (Flaw.ISSUER, lambda: token(claims(iss=f"{GLOBAL.authority}/{{tenantid}}/v2.0"))),
    "issuer as a list": (Flaw.ISSUER, lambda: token(claims(iss=[ISSUER]))),
    "issuer missing": (Flaw.ISSUER, lambda: token(claims(iss=...))),
    "tid missing": (Flaw.MALFORMED, lambda: token(claims(tid=...))),
    "tid null": (Flaw.MALFORMED, lambda: token(claims(tid=None))),
    "tid as a list": (Flaw.MALFORMED, lambda: token(claims(tid=[TENANT]))),
    "tid in braces": (Flaw.MALFORMED, lambda: token(claims(tid=f"{{{TENANT}}}"))),
    "tid nil": (Flaw.MALFORMED, lambda: token(claims(tid="00000000-0000-0000-0000-000000000000"))),
    "issuer of another tenant in capitals": (
        Flaw.ISSUER,
        lambda: token(claims(iss=f"{GLOBAL.authority}/{OTHER.upper()}/v2.0", tid=TENANT.upper())),
    ),
    "tid with a blank": (Flaw.MALFORMED, lambda: token(claims(tid=f"{TENANT} "))),
    # --- for whom
    "audience of another application": (Flaw.AUDIENCE, lambda: token(claims(aud=str(uuid.uuid4())))),
    "audience as a list of ours": (Flaw.AUDIENCE, lambda: token(claims(aud=[APPLICATION]))),
    "audience as a list with ours": (Flaw.AUDIENCE, lambda: token(claims(aud=[APPLICATION, str(uuid.uuid4())]))),
    "audience as an address": (Flaw.AUDIENCE, lambda: token(claims(aud=f"api://{APPLICATION}"))),
    "audience missing": (Flaw.AUDIENCE, lambda: token(claims(aud=...))),
    # --- how it is signed
    "alg none": (Flaw.ALGORITHM, lambda: unsigned("none")),
    "alg NONE": (Flaw.ALGORITHM, lambda: unsigned("NONE")),
    "alg missing": (Flaw.ALGORITHM, lambda: token(alg=...)),
    "alg as a list": (Flaw.ALGORITHM, lambda: token(alg=["RS256"])),
    "alg in small letters": (Flaw.ALGORITHM, lambda: token(alg="rs256")),
    "alg RS256 without a signature": (Flaw.SIGNATURE, lambda: unsigned("RS256")),
    "HS256 under the public key in PEM": (Flaw.ALGORITHM, lambda: hs256(claims(), public_pem())),
    "HS256 under the public key in DER": (Flaw.ALGORITHM, lambda: hs256(claims(), public_der())),
    "RS512, well signed": (
        Flaw.ALGORITHM,
        lambda: signed(
            json.dumps({"alg": "RS512", "kid": KID}).encode(), json.dumps(claims()).encode(), KEY, hashes.SHA512()
        ),
    ),
    "PS256, well signed": (Flaw.ALGORITHM, pss),
    "a signature of SHA-512 called RS256": (
        Flaw.SIGNATURE,
        lambda: signed(HEAD, json.dumps(claims()).encode(), KEY, hashes.SHA512()),
    ),
    "a stranger's signature under our kid": (Flaw.SIGNATURE, lambda: token(key=STRANGERS_KEY)),
    "a body of another token": (Flaw.SIGNATURE, swapped_body),
    "a signature cut short": (Flaw.SIGNATURE, lambda: token()[:-10]),
    "unknown kid": (Flaw.KEY, lambda: token(kid="key-of-nobody")),
    "kid missing": (Flaw.KEY, lambda: token(kid=...)),
    "kid empty": (Flaw.KEY, lambda: token(kid="")),
    "kid a number": (Flaw.MALFORMED, lambda: token(kid=1)),
    "kid a path": (Flaw.KEY, lambda: token(kid="../../../dev/null")),
    "jku of a stranger": (
        Flaw.MALFORMED,
        lambda: token(key=STRANGERS_KEY, jku="https://evil.example/keys", kid="theirs"),
    ),
    "x5u of a stranger": (Flaw.MALFORMED, lambda: token(key=STRANGERS_KEY, x5u="https://evil.example/cert.pem")),
    "jwk in the header": (Flaw.MALFORMED, lambda: token(key=STRANGERS_KEY, jwk=jwk(STRANGERS_KEY, KID))),
    "x5c in the header": (Flaw.MALFORMED, lambda: token(key=STRANGERS_KEY, x5c=["MIIB"])),
    "crit": (Flaw.MALFORMED, lambda: token(crit=["exp"])),
    "b64 false": (Flaw.MALFORMED, lambda: token(b64=False)),
    "an access token's typ": (Flaw.MALFORMED, lambda: token(typ="at+jwt")),
    # --- when
    "expired": (Flaw.TIME, lambda: token(claims(exp=NOW - 301))),
    "expired exactly at the end of the leeway": (Flaw.TIME, lambda: token(claims(exp=NOW - 300))),
    "not valid yet": (Flaw.TIME, lambda: token(claims(nbf=NOW + 301))),
    "issued in the future": (Flaw.TIME, lambda: token(claims(iat=NOW + 301))),
    "exp missing": (Flaw.MALFORMED, lambda: token(claims(exp=...))),
    "nbf missing": (Flaw.MALFORMED, lambda: token(claims(nbf=...))),
    "iat missing": (Flaw.MALFORMED, lambda: token(claims(iat=...))),
    "exp null": (Flaw.MALFORMED, lambda: token(claims(exp=None))),
    "exp a fraction": (Flaw.MALFORMED, lambda: token(claims(exp=NOW + 3600.5))),
    "exp infinite": (Flaw.MALFORMED, lambda: token(claims(exp=float("inf")))),
    "exp not a number": (Flaw.MALFORMED, lambda: token(claims(exp=float("nan")))),
    "exp a text": (Flaw.MALFORMED, lambda: token(claims(exp=str(NOW + 3600)))),
    "exp a boolean": (Flaw.MALFORMED, lambda: token(claims(exp=True))),
    "nbf a boolean": (Flaw.MALFORMED, lambda: token(claims(nbf=False))),
    "iat a text": (Flaw.MALFORMED, lambda: token(claims(iat=str(NOW)))),
    "iat a list": (Flaw.MALFORMED, lambda: token(claims(iat=[NOW]))),
    "nbf larger than any clock": (Flaw.TIME, lambda: token(claims(nbf=10**300))),
    # --- what kind
    "version 1.0": (Flaw.VERSION, lambda: token(claims(ver="1.0"))),
    "version missing": (Flaw.VERSION, lambda: token(claims(ver=...))),
    "version as a number": (Flaw.VERSION, lambda: token(claims(ver=2.0))),
    # --- for which attempt
    "nonce of another flow": (Flaw.NONCE, lambda: token(claims(nonce=NONCE[::-1]))),
    "nonce missing": (Flaw.NONCE, lambda: token(claims(nonce=...))),
    "nonce null": (Flaw.NONCE, lambda: token(claims(nonce=None))),
    "nonce empty": (Flaw.NONCE, lambda: token(claims(nonce=""))),
    "nonce cut short": (Flaw.NONCE, lambda: token(claims(nonce=NONCE[:-1]))),
    "nonce with more": (Flaw.NONCE, lambda: token(claims(nonce=NONCE + "A"))),
    "nonce in other letters": (Flaw.NONCE, lambda: token(claims(nonce=NONCE.lower()))),
    "nonce as a list": (Flaw.NONCE, lambda: token(claims(nonce=[NONCE]))),
    "nonce not ASCII": (Flaw.NONCE, lambda: token(claims(nonce="ñ" * 43))),
    "nonce with a lone surrogate": (Flaw.NONCE, lambda: token(claims(nonce="\ud800"))),
    # --- who
    "oid missing": (Flaw.SUBJECT, lambda: token(claims(oid=...))),
    "oid not a GUID": (Flaw.SUBJECT, lambda: token(claims(oid="admin@northwind.example.com"))),
    "oid nil": (Flaw.SUBJECT, lambda: token(claims(oid="00000000-0000-0000-0000-000000000000"))),
    "oid as a list": (Flaw.SUBJECT, lambda: token(claims(oid=[ACCOUNT]))),
    "a guest from a personal account": (
        Flaw.FOREIGN_ACCOUNT,
        lambda: token(claims(idp=f"https://sts.windows.net/{CONSUMERS_TENANT}/")),
    ),
    "a guest from another tenant": (
        Flaw.FOREIGN_ACCOUNT,
        lambda: token(claims(idp=f"https://sts.windows.net/{OTHER}/")),
    ),
    "a guest of live.com": (Flaw.FOREIGN_ACCOUNT, lambda: token(claims(idp="live.com"))),
    "a guest by mail": (Flaw.FOREIGN_ACCOUNT, lambda: token(claims(idp="mail"))),
    "idp empty": (Flaw.FOREIGN_ACCOUNT, lambda: token(claims(idp=""))),
    # --- no token at all
    "missing": (Flaw.MISSING, lambda: None),
    "empty": (Flaw.MISSING, lambda: ""),
    "a word": (Flaw.MALFORMED, lambda: "eyJhbGciOiJSUzI1NiJ9"),
    "two parts": (Flaw.MALFORMED, lambda: token().rpartition(".")[0]),
    "four parts": (Flaw.MALFORMED, lambda: token() + ".AAAA"),
    "five parts, encrypted": (Flaw.MALFORMED, lambda: ".".join(["eyJhbGciOiJSU0EtT0FFUCJ9"] * 5)),
    "three empty parts": (Flaw.MALFORMED, lambda: ".."),
    "one megabyte": (Flaw.MALFORMED, lambda: token(claims(filler="x" * 1_000_000))),
    "one byte too long": (Flaw.MALFORMED, lambda: token().ljust(MAX_TOKEN_BYTES + 1, "A")),
    "not ASCII": (Flaw.MALFORMED, lambda: token().replace("e", "е", 1)),  # a Cyrillic letter
    "a line break after it": (Flaw.MALFORMED, lambda: token() + "\n"),
    "a header that is no JSON": (Flaw.MALFORMED, lambda: signed(b"{", json.dumps(claims()).encode())),
    "a header that is a list": (Flaw.MALFORMED, lambda: signed(b"[]", json.dumps(claims()).encode())),
    "a header nested without end": (Flaw.MALFORMED, lambda: signed(DEEP, json.dumps(claims()).encode())),
    "a body that is no JSON": (Flaw.MALFORMED, lambda: signed(HEAD, b"{")),
    "a body that is a list": (Flaw.MALFORMED, lambda: signed(HEAD, json.dumps([claims()]).encode())),
    "a body nested without end": (Flaw.MALFORMED, lambda: signed(HEAD, DEEP)),
    "a number of 5,000 digits": (Flaw.MALFORMED, lambda: signed(HEAD, b'{"exp":' + b"9" * 5000 + b"}")),
    "a body that is not UTF-8": (Flaw.MALFORMED, lambda: signed(HEAD, b'{"tid": "\xff\xfe"}')),
    "a member written twice": (
        Flaw.MALFORMED,
        lambda: signed(HEAD, json.dumps(claims(tid=OTHER)).encode()[:-1] + f', "tid": "{TENANT}"}}'.encode()),
    ),
}


@pytest.mark.req("S-14")
@pytest.mark.req("S-12")
@pytest.mark.parametrize(("flaw", "bent"), BENT.values(), ids=BENT)
def test_a_bent_id_token_is_refused_with_its_own_word(
    validator: IdTokenValidator, entra_host: responses.RequestsMock, flaw: Flaw, bent: Callable[[], str | None]
) -> None:
    text = bent()

    with pytest.raises(IdTokenRefused) as refused:
        validate(validator, text)

    assert refused.value.flaw is flaw
    assert not text or text not in repr(refused.value) + str(refused.value)
    # Keys come from the expected tenant's own key set on the configured host, whatever the token says.
    assert {str(call.request.url) for call in entra_host.calls} <= {
        KEYS_URL,
        f"{GLOBAL.authority}/organizations/v2.0/.well-known/openid-configuration",
    }


@pytest.mark.req("S-14")
@pytest.mark.parametrize(
    ("bent", "header"),
    [
        (claims(), {}),
        (claims(), {"typ": ...}),
        (claims(), {"x5t": "thumbprint"}),
        (claims(idp=f"https://sts.windows.net/{TENANT}/"), {}),
        (claims(exp=NOW - 299), {}),
        (claims(nbf=NOW + 300), {}),
        (claims(iat=NOW + 300), {}),
        (claims(preferred_username="someone@evil.example", email="ceo@partner.example", upn="x"), {}),
        (claims(tid=TENANT.upper()), {}),
        (claims(tid=TENANT.upper(), iss=f"{GLOBAL.authority}/{TENANT.upper()}/v2.0"), {}),
        (claims(idp=f"https://sts.windows.net/{TENANT.upper()}/"), {}),
        (claims(aud=APPLICATION.upper()), {}),
        (claims(oid=ACCOUNT.upper()), {}),
    ],
    ids=[
        *("as is", "no typ", "x5t", "idp of its own tenant", "exp edge", "nbf edge", "iat edge", "any names"),
        *(
            "tid in capitals",
            "tid and issuer in capitals",
            "idp in capitals",
            "audience in capitals",
            "oid in capitals",
        ),
    ],
)
def test_a_good_token_proves_tenant_and_account(
    validator: IdTokenValidator, bent: dict[str, Any], header: dict[str, Any]
) -> None:
    identity = validate(validator, token(bent, **header))

    assert (identity.tenant_id, identity.object_id) == (TENANT, ACCOUNT)


@pytest.mark.req("S-14")
@pytest.mark.parametrize("offset", [-299, 0, 3899])
def test_the_leeway_is_300_seconds_on_both_sides(validator: IdTokenValidator, clock: Clock, offset: int) -> None:
    clock.move(offset)
    assert validate(validator, token()).tenant_id == TENANT

    clock.move(-2 if offset < 0 else 3901 - offset)
    with pytest.raises(IdTokenRefused) as refused:
        validate(validator, token())
    assert refused.value.flaw is Flaw.TIME


@pytest.mark.parametrize(
    ("tid", "named"), [(OTHER, OTHER), (str(CONSUMERS_TENANT), None), ("evil", None), ("<script>", None)]
)
def test_a_wrong_tenant_is_named_for_the_audit_trail_only_as_a_guid(
    validator: IdTokenValidator, tid: str, named: str | None
) -> None:
    with pytest.raises(IdTokenRefused) as refused:
        validate(validator, token(claims(tid=tid, iss=f"{GLOBAL.authority}/{tid}/v2.0")))
    assert refused.value.actual_tenant == named


@pytest.mark.req("S-14")
def test_an_unsigned_claim_of_another_tenant_is_not_believed_far_enough_to_be_named(
    validator: IdTokenValidator,
) -> None:
    with pytest.raises(IdTokenRefused) as refused:
        validate(validator, token(claims(tid=OTHER), key=STRANGERS_KEY))
    assert (refused.value.flaw, refused.value.actual_tenant) == (Flaw.SIGNATURE, None)


# --- renewals ------------------------------------------------------------------------------------------------------


@pytest.mark.req("S-51")
@pytest.mark.req("R-42")
def test_a_renewal_forgives_the_clock_and_nothing_else(validator: IdTokenValidator, clock: Clock) -> None:
    clock.move(100_000)
    renewal = {"nonce": None, "check_times": False}
    assert validate(validator, token(claims(nonce=...)), **renewal).object_id == ACCOUNT
    for flaw, text in (
        (Flaw.TENANT, token(claims(tid=OTHER))),
        (Flaw.AUDIENCE, token(claims(aud=OTHER))),
        (Flaw.SIGNATURE, token(key=STRANGERS_KEY)),
        (Flaw.FOREIGN_ACCOUNT, token(claims(idp="live.com"))),
        (Flaw.MISSING, None),
    ):
        with pytest.raises(IdTokenRefused) as refused:
            validate(validator, text, **renewal)
        assert refused.value.flaw is flaw


def test_in_a_customers_tenant_the_partners_account_is_a_foreign_one(validator: IdTokenValidator) -> None:
    foreign = token(claims(idp=f"https://sts.windows.net/{OTHER}/"))
    assert validate(validator, foreign, customer_tenant=True).tenant_id == TENANT


# --- keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-49")
def test_a_flood_of_unknown_keys_costs_one_fetch_a_minute(
    validator: IdTokenValidator, entra_host: responses.RequestsMock, clock: Clock
) -> None:
    validate(validator, token())
    for number in range(100):
        clock.move(0.5)
        with pytest.raises(IdTokenRefused):
            validate(validator, token(kid=f"unknown-{number}"))
    assert key_fetches(entra_host) == 1  # 50 seconds: the first, good token's fetch still counts

    for number in range(200):
        clock.move(0.5)
        with pytest.raises(IdTokenRefused):
            validate(validator, token(kid=f"unknown-{number}"))
    assert key_fetches(entra_host) == 3  # 150 seconds


@pytest.mark.req("R-49")
def test_a_new_key_is_found_within_a_minute_and_known_keys_are_kept_a_day(
    validator: IdTokenValidator, entra_host: responses.RequestsMock, clock: Clock
) -> None:
    validate(validator, token())
    clock.move(23 * 3600)
    validate(validator, token(claims(exp=NOW + 90_000)))
    assert key_fetches(entra_host) == 1

    entra_host.replace("GET", KEYS_URL, json={"keys": [jwk(STRANGERS_KEY, "key-of-tomorrow")]})
    validate(validator, token(claims(exp=NOW + 90_000), key=STRANGERS_KEY, kid="key-of-tomorrow"))
    assert key_fetches(entra_host) == 2
    # The old key is not in the set any more; after its day it is not believed either.
    clock.move(3600)
    with pytest.raises(IdTokenRefused) as refused:
        validate(validator, token(claims(exp=NOW + 90_000)))
    assert refused.value.flaw is Flaw.KEY


@pytest.mark.req("S-14")
@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "kid": KID, "k": b64(b"s" * 32)},
        {"kty": "EC", "kid": KID, "crv": "P-256", "x": "AA", "y": "AA"},
        jwk(KEY, KID, use="enc"),
        jwk(KEY, ""),
        jwk(KEY, KID) | {"kid": 7},
        jwk(KEY, KID) | {"n": "!!"},
        jwk(KEY, KID) | {"n": 12},
        jwk(KEY, KID) | {"e": None},
        # Microsoft marks keys that sign for one tenant only, such as the personal accounts' one.
        jwk(KEY, KID, issuer=f"{GLOBAL.authority}/{CONSUMERS_TENANT}/v2.0"),
        jwk(KEY, KID, issuer=f"{GLOBAL.authority}/{OTHER}/v2.0"),
        jwk(KEY, KID, issuer=7),
        jwk(KEY, KID, issuer="microsoft"),
        "key",
        None,
        [],
    ],
    ids=[
        "symmetric",
        "elliptic",
        "for encryption",
        "empty kid",
        "kid a number",
        "n not base64",
        "n a number",
        "e null",
        "of personal accounts",
        "of another tenant",
        "issuer a number",
        "issuer a word",
        "a word",
        "null",
        "a list",
    ],
)
def test_an_entry_that_is_no_signing_key_of_this_tenant_is_passed_over(
    validator: IdTokenValidator, entra_host: responses.RequestsMock, entry: object
) -> None:
    entra_host.replace("GET", KEYS_URL, json={"keys": [entry, jwk(STRANGERS_KEY, "another key")]})
    with pytest.raises(IdTokenRefused) as refused:
        validate(validator, token())
    assert refused.value.flaw is Flaw.KEY


@pytest.mark.req("S-14")
def test_a_key_that_names_this_tenant_is_this_tenants(
    validator: IdTokenValidator, entra_host: responses.RequestsMock
) -> None:
    entra_host.replace("GET", KEYS_URL, json={"keys": [jwk(KEY, KID, issuer=ISSUER)]})
    assert validate(validator, token()).tenant_id == TENANT


@pytest.mark.parametrize(
    "document", [{}, {"keys": {}}, {"keys": None}, {"keys": "RSA"}, {"keys": 1}, {"keys": []}, {"keys": [1]}], ids=str
)
def test_a_key_set_without_a_key_is_microsofts_fault_and_says_nothing_about_the_token(
    validator: IdTokenValidator, entra_host: responses.RequestsMock, document: dict[str, Any]
) -> None:
    entra_host.replace("GET", KEYS_URL, json=document)
    with pytest.raises(ServerFault) as caught:
        validate(validator, token())
    assert (caught.value.code, caught.value.retryable) == ("no_signing_keys", True)


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503])
def test_keys_that_cannot_be_read_are_a_fault_of_the_service_and_not_of_the_token(
    validator: IdTokenValidator, entra_host: responses.RequestsMock, status: int
) -> None:
    entra_host.replace("GET", KEYS_URL, status=status, json={"keys": [jwk(KEY, KID)]})
    with pytest.raises(RemoteError) as caught:
        validate(validator, token())
    assert not isinstance(caught.value, NotFound), "a key set that is away says nothing about a tenant"
    assert caught.value.retryable is (status != 302)
    assert caught.value.code == f"HTTP{status}"
    entra_host.replace("GET", KEYS_URL, json={"keys": [jwk(KEY, KID)]})
    assert validate(validator, token()).tenant_id == TENANT


@pytest.mark.req("S-19")
def test_a_key_of_one_cloud_does_not_open_another(
    validator: IdTokenValidator, entra_host: responses.RequestsMock
) -> None:
    validate(validator, token())
    entra_host.get(f"{CHINA.authority}/{TENANT}/discovery/v2.0/keys", json={"keys": [jwk(STRANGERS_KEY, "of China")]})
    with pytest.raises(IdTokenRefused) as refused:
        validate(validator, token(claims(iss=f"{CHINA.authority}/{TENANT}/v2.0")), cloud=CHINA)
    assert refused.value.flaw is Flaw.KEY


def test_the_table_has_the_promised_length() -> None:
    assert len(BENT) >= 100
