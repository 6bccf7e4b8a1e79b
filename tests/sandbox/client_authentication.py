"""How an application proves itself at the token endpoint: a client secret, an assertion signed by its certificate, or
the token of a managed identity that it trusts.

Source: Microsoft identity platform, "Application authentication certificate credentials" and "Configure an application
to trust a managed identity".
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.refusals import Refused
from tests.sandbox.tokens import b64, signing_key, unb64, verified_claims
from tests.sandbox.world import Application, World

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONGEST_SECONDS = 86_400


def authenticate(
    world: World, cloud: NationalCloud, tenant_text: str, application: Application, form: Mapping[str, str]
) -> str:
    """Return the ``appidacr`` that this request earns: 1 for a secret, 2 for an assertion.

    Raises:
        Refused: 7000218 nothing sent, 7000215 wrong secret, 7000222 expired secret, 700027 certificate or signature,
            700024 time, 50013 form or audience of the assertion; 700211, 700212, 700213 issuer, audience, subject and
            700229 kind of a managed identity's token.
    """
    if form.get("client_assertion"):
        if form.get("client_assertion_type") != _ASSERTION_TYPE:
            raise Refused(900144, "The request body must contain the parameter 'client_assertion_type'.")
        _check_assertion(world, cloud, tenant_text, application, form["client_assertion"])
        return "2"
    secret = form.get("client_secret", "")
    if not secret:
        raise Refused(7000218, "The request body must contain client_assertion or client_secret.")
    for known, until in application.secrets.items():
        if hmac.compare_digest(known.encode(), secret.encode()):
            if until <= world.now():
                raise Refused(7000222, "The provided client secret keys are expired.")
            return "1"
    raise Refused(7000215, "Invalid client secret provided.")


def _check_assertion(
    world: World, cloud: NationalCloud, tenant_text: str, application: Application, assertion: str
) -> None:
    head, body, signature, header, claims = _parse(assertion)
    if header.get("kid") == signing_key(cloud.key).kid:
        _check_federated(world, cloud, application, assertion)
        return
    certificate = _certificate_of(application, header)
    public = certificate.public_key()
    if not isinstance(public, rsa.RSAPublicKey):
        raise Refused(700027, "The certificate has no RSA key.")
    now = datetime.fromtimestamp(world.now(), UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Refused(700027, "The certificate is outside its validity period.")
    signed = f"{head}.{body}".encode()
    try:
        if header.get("alg") == "PS256":
            salted = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)
            public.verify(signature, signed, salted, hashes.SHA256())
        elif header.get("alg") == "RS256":
            public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            raise Refused(50013, "The algorithm is not supported.")
    except InvalidSignature:
        raise Refused(700027, "Client assertion failed signature validation.") from None
    base = f"{cloud.authority}/{tenant_text}"
    if claims.get("aud") not in {f"{base}/oauth2/v2.0/token", f"{base}/v2.0", f"{base}/oauth2/token"}:
        raise Refused(50013, "The assertion's audience is wrong.")
    if claims.get("iss") != application.app_id or claims.get("sub") != application.app_id or not claims.get("jti"):
        raise Refused(700027, "The assertion's issuer, subject or identifier is not right.")
    _check_times(claims, world)


def _check_federated(world: World, cloud: NationalCloud, application: Application, assertion: str) -> None:
    claims = verified_claims(cloud.key, assertion)
    if claims is None:
        raise Refused(50013, "The assertion's signature is not valid.")
    for place, (name, code) in enumerate([("iss", 700211), ("sub", 700213), ("aud", 700212)]):
        if claims.get(name) not in {trusted[place] for trusted in application.federated}:
            raise Refused(code, f"No matching federated identity record found for the assertion's {name}.")
    if claims.get("idtyp") != "app":
        raise Refused(700229, "Only app tokens can be used as federated credentials.")
    _check_times(claims, world)


def _parse(assertion: str) -> tuple[str, str, bytes, dict[str, Any], dict[str, Any]]:
    try:
        head, body, signature = assertion.split(".")
        header, claims, raw = json.loads(unb64(head)), json.loads(unb64(body)), unb64(signature)
    except ValueError:
        raise Refused(50027, "The assertion is malformed.") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise Refused(50027, "The assertion is malformed.")
    return head, body, raw, header, claims


def _check_times(claims: Mapping[str, Any], world: World) -> None:
    now, leeway = world.now(), float(world.switches["assertion_leeway"])
    starts, expires = claims.get("nbf", 0), claims.get("exp", 0)
    if not isinstance(starts, int | float) or not isinstance(expires, int | float):
        raise Refused(50027, "The assertion is malformed.")
    if not starts - leeway <= now < expires + leeway or expires > now + _LONGEST_SECONDS:
        raise Refused(700024, "Client assertion is not within its valid time range.")


def _certificate_of(application: Application, header: Mapping[str, Any]) -> x509.Certificate:
    # MSAL pads its thumbprints with "=", which JWT does not know; Microsoft takes both.
    sent = {name: str(header[name]).rstrip("=") for name in ("x5t#S256", "x5t") if name in header}
    for der in application.certificates:
        strong, weak = b64(hashlib.sha256(der).digest()), b64(hashlib.sha1(der).digest())  # noqa: S324  # x5t is SHA-1
        if sent.get("x5t#S256") == strong or sent.get("x5t") == weak:
            return x509.load_der_x509_certificate(der)
    raise Refused(700027, "The certificate with this thumbprint is not registered.")
