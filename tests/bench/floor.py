"""The floor: the same three calls for each partner in raw asyncio over aiohttp, with nothing around them.

``python -m tests.bench.floor FILE IN_FLIGHT PARTNERS`` reads each refresh token from Key Vault, redeems it with a
signed assertion and asks for the organization profile. It keeps nothing, checks nothing and writes no database.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from portal.microsoft.clouds import local_clouds
from tests.bench.partners_at_microsoft import ConnectedPartner, PartnersAtMicrosoft, peak_memory

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class _Loopback(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        return None


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """Signs assertions with a key that is parsed once."""

    def __init__(self, certificate: str) -> None:
        key = serialization.load_pem_private_key(certificate.encode(), password=None)
        if not isinstance(key, RSAPrivateKey):
            raise TypeError("an RSA key is expected")
        self._key = key
        public = x509.load_pem_x509_certificates(certificate.encode())[0]
        self._header = {"alg": "PS256", "typ": "JWT", "x5t#S256": _b64(public.fingerprint(hashes.SHA256()))}

    def assertion(self, client_id: str, audience: str) -> str:
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": client_id,
            "sub": client_id,
            "jti": str(uuid.uuid4()),
            "nbf": now,
            "iat": now,
            "exp": now + 600,
        }
        text = f"{_b64(json.dumps(self._header).encode())}.{_b64(json.dumps(claims).encode())}"
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
        return f"{text}.{_b64(self._key.sign(text.encode(), pss, hashes.SHA256()))}"


async def check_all(place: PartnersAtMicrosoft, in_flight: int, number: int) -> float:
    """Return the seconds that it took."""
    cloud = local_clouds(place.port)["global"]
    signer = Signer(place.certificate)
    context = ssl.create_default_context(cafile=place.ca_file)
    connector = aiohttp.TCPConnector(limit=0, ssl=context, resolver=_Loopback())
    async with aiohttp.ClientSession(connector=connector) as session:
        vault_form = {
            "grant_type": "client_credentials",
            "client_id": place.vault_client,
            "client_secret": place.vault_secret,
            "scope": f"https://{cloud.vault_suffix.removeprefix('.').rpartition(':')[0]}/.default",
        }

        async def post(url: str, form: dict[str, str]) -> dict[str, Any]:
            async with session.post(url, data=form) as answer:
                body: dict[str, Any] = await answer.json()
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status} {body.get('error_codes')}")
                return body

        async def get(url: str, headers: dict[str, str]) -> dict[str, Any]:
            async with session.get(url, headers=headers) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status} of {url}")
                body: dict[str, Any] = await answer.json()
                return body

        async def check(partner: ConnectedPartner, vault_headers: dict[str, str]) -> None:
            address = f"{place.vault_url}/secrets/{partner.secret_name}/{partner.secret_version}?api-version=7.4"
            secret = await get(address, vault_headers)
            endpoint = f"{cloud.authority}/{partner.tenant_id}/oauth2/v2.0/token"
            form = {
                "grant_type": "refresh_token",
                "client_id": place.application_id,
                "refresh_token": secret["value"],
                "scope": f"{cloud.partner_center}/user_impersonation openid profile offline_access",
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": signer.assertion(place.application_id, endpoint),
            }
            token = (await post(endpoint, form))["access_token"]
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "ValidateMfa": "true"}
            profile = await get(f"{cloud.partner_center}/v1/profiles/organization", headers)
            if profile["tenantId"] != partner.tenant_id:
                raise RuntimeError("another tenant's profile")

        async def worker(partners: Iterator[ConnectedPartner], vault_headers: dict[str, str]) -> None:
            for partner in partners:
                await check(partner, vault_headers)

        began = time.perf_counter()
        token = await post(f"{cloud.authority}/{place.vault_tenant}/oauth2/v2.0/token", vault_form)
        partners = iter(place.partners[:number])
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        await asyncio.gather(*(worker(partners, headers) for _ in range(in_flight)))
        return time.perf_counter() - began


def facts(file: str, in_flight: str, number: str) -> dict[str, Any]:
    """Return what it took."""
    place = PartnersAtMicrosoft.load(Path(file))
    seconds = asyncio.run(check_all(place, int(in_flight), int(number)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "memory": peak_memory()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(facts(*sys.argv[1:])) + "\n")
