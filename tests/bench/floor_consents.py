"""The floor of applying and of reading: the same calls for each customer in raw asyncio over aiohttp.

``python -m tests.bench.floor_consents FILE CUSTOMERS WHAT IN_FLIGHT RATE``. To *apply* is: the refresh token out of Key
Vault, a token of the customer's tenant (which is refused, since nobody consented yet), the POST, the refresh token
again, a token again, and the read by one ``$batch``. To *verify* is the last three of them. Each partner's token for
Partner Center is asked for once. POSTs leave evenly, ``RATE`` of them a second; 0 lets each leave at once. It keeps
nothing, checks nothing and writes no database.
"""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from portal.microsoft.clouds import GRAPH_APPLICATION_ID, local_clouds
from tests.bench.floor import ASSERTION_TYPE, Signer, _Loopback
from tests.bench.partners_at_microsoft import ConnectedPartner, PartnersAtMicrosoft, peak_memory

_NOT_CONSENTED = 65001
type Customer = tuple[int, str]
"""Number of the partner, tenant id of the customer."""


class _Caller:
    """Makes the calls; one for the whole measurement."""

    def __init__(self, place: PartnersAtMicrosoft, session: aiohttp.ClientSession, rate: float) -> None:
        self._place = place
        self._session = session
        self._cloud = local_clouds(place.port)["global"]
        self._signer = Signer(place.certificate)
        self._partners = {one.number: one for one in place.partners}
        self._interval = 1 / rate if rate else 0.0
        self._next = 0.0
        self._of_partners: dict[int, asyncio.Task[str]] = {}
        self._vault_headers: dict[str, str] = {}

    async def sign_in_to_the_vault(self) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._place.vault_client,
            "client_secret": self._place.vault_secret,
            "scope": f"https://{self._cloud.vault_suffix.removeprefix('.').rpartition(':')[0]}/.default",
        }
        _, body = await self._post(self._endpoint(self._place.vault_tenant), data=form)
        self._vault_headers = {"Authorization": f"Bearer {body['access_token']}"}

    async def apply(self, customer: Customer) -> None:
        partner, tenant = self._partners[customer[0]], customer[1]
        status, body = await self._redeem(partner, tenant, self._cloud.graph + "/.default")
        if status != 400 or body.get("error_codes") != [_NOT_CONSENTED]:
            raise RuntimeError(f"{status} {body.get('error_codes')} before the POST")
        token = await self._of_partner(partner)
        await self._turn()
        status, _ = await self._post(
            f"{self._cloud.partner_center}/v1/customers/{tenant}/applicationconsents",
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/json",
                "MS-RequestId": str(uuid.uuid4()),
                "MS-CorrelationId": str(uuid.uuid4()),
            },
            json={
                "applicationId": self._place.application_id,
                "displayName": "Example Control Panel",
                "applicationGrants": [
                    {
                        "enterpriseApplicationId": GRAPH_APPLICATION_ID,
                        "scope": "User.Read.All,Directory.Read.All",
                    }
                ],
            },
        )
        if status != 201:
            raise RuntimeError(f"{status} of the POST")
        await self.verify(customer)

    async def verify(self, customer: Customer) -> None:
        status, body = await self._redeem(self._partners[customer[0]], customer[1], self._cloud.graph + "/.default")
        if status != 200:
            raise RuntimeError(f"{status} {body.get('error_codes')}")
        ours = self._place.application_id
        urls = (
            f"/servicePrincipals?$filter=appId%20eq%20'{ours}'&$select=id,appId,accountEnabled",
            f"/servicePrincipals(appId='{ours}')/oauth2PermissionGrants",
            f"/servicePrincipals(appId='{GRAPH_APPLICATION_ID}')?$select=id,appId",
        )
        status, answer = await self._post(
            f"{self._cloud.graph}/v1.0/$batch",
            headers={"Authorization": f"Bearer {body['access_token']}", "Accept": "application/json"},
            json={"requests": [{"id": str(n), "method": "GET", "url": url} for n, url in enumerate(urls)]},
        )
        parts = {part["id"]: part for part in answer["responses"]} if status == 200 else {}
        if status != 200 or not parts["1"]["body"]["value"]:
            raise RuntimeError(f"{status} of the read")

    async def _redeem(self, partner: ConnectedPartner, tenant: str, scope: str) -> tuple[int, dict[str, Any]]:
        address = f"{self._place.vault_url}/secrets/{partner.secret_name}/{partner.secret_version}?api-version=7.4"
        async with self._session.get(address, headers=self._vault_headers) as answer:
            secret = (await answer.json())["value"]
        endpoint = self._endpoint(tenant)
        form = {
            "grant_type": "refresh_token",
            "client_id": self._place.application_id,
            "refresh_token": secret,
            "scope": f"{scope} openid profile offline_access",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self._signer.assertion(self._place.application_id, endpoint),
        }
        return await self._post(endpoint, data=form)

    async def _of_partner(self, partner: ConnectedPartner) -> str:
        if partner.number not in self._of_partners:
            self._of_partners[partner.number] = asyncio.create_task(self._partner_token(partner))
        return await self._of_partners[partner.number]

    async def _partner_token(self, partner: ConnectedPartner) -> str:
        scope = f"{self._cloud.partner_center}/user_impersonation"
        status, body = await self._redeem(partner, partner.tenant_id, scope)
        if status != 200:
            raise RuntimeError(f"{status} {body.get('error_codes')} of a partner")
        token: str = body["access_token"]
        return token

    async def _turn(self) -> None:
        now = time.monotonic()
        turn = max(self._next, now)
        self._next = turn + self._interval
        if turn > now:
            await asyncio.sleep(turn - now)

    def _endpoint(self, tenant: str) -> str:
        return f"{self._cloud.authority}/{tenant}/oauth2/v2.0/token"

    async def _post(self, url: str, **content: Any) -> tuple[int, dict[str, Any]]:
        async with self._session.post(url, **content) as answer:
            body: dict[str, Any] = await answer.json()
            return answer.status, body


async def call_all(
    place: PartnersAtMicrosoft, customers: Sequence[Customer], what: str, in_flight: int, rate: float
) -> float:
    """Return the seconds that it took."""
    context = ssl.create_default_context(cafile=place.ca_file)
    connector = aiohttp.TCPConnector(limit=0, ssl=context, resolver=_Loopback())
    async with aiohttp.ClientSession(connector=connector) as session:
        caller = _Caller(place, session, rate)
        call = caller.apply if what == "apply" else caller.verify

        async def worker(left: Iterator[Customer]) -> None:
            for customer in left:
                await call(customer)

        began = time.perf_counter()
        await caller.sign_in_to_the_vault()
        left = iter(customers)
        await asyncio.gather(*(worker(left) for _ in range(in_flight)))
        return time.perf_counter() - began


def facts(file: str, customers: str, what: str, in_flight: str, rate: str) -> dict[str, Any]:
    """Return what it took."""
    place = PartnersAtMicrosoft.load(Path(file))
    chosen: list[Customer] = [(partner, tenant) for partner, tenant in json.loads(Path(customers).read_text())]
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds = asyncio.run(call_all(place, chosen, what, int(in_flight), float(rate)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "memory": peak_memory()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(facts(*sys.argv[1:])) + "\n")
