"""The way of Microsoft's samples: one partner after the other, and everything made anew for each.

``python -m tests.bench.samples FILE PARTNERS``. A vault client and a credential for each call, an MSAL application
with the discovery of its authority for each tenant, one connection for each request. What the real samples do beyond
that is not counted: MSAL's instance discovery (a call to a fixed public address), and a token cache in a file.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msal
import requests
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

from portal.microsoft.clouds import local_clouds
from tests.bench.partners_at_microsoft import PartnersAtMicrosoft, peak_memory

_resolve = socket.getaddrinfo


def _loopback(host: Any, *args: Any, **kwargs: Any) -> Any:
    return _resolve("127.0.0.1" if str(host).endswith(".localhost") else host, *args, **kwargs)


def main(file: str, number: str) -> int:
    place = PartnersAtMicrosoft.load(Path(file))
    cloud = local_clouds(place.port)["global"]
    os.environ["REQUESTS_CA_BUNDLE"] = place.ca_file
    socket.getaddrinfo = _loopback
    began = time.perf_counter()
    for partner in place.partners[: int(number)]:
        identity = ClientSecretCredential(
            place.vault_tenant,
            place.vault_client,
            place.vault_secret,
            authority=cloud.authority,
            disable_instance_discovery=True,
        )
        with SecretClient(place.vault_url, identity, verify_challenge_resource=False) as vault:
            token = vault.get_secret(partner.secret_name).value
        application = msal.ConfidentialClientApplication(
            place.application_id,
            authority=f"{cloud.authority}/{partner.tenant_id}",
            client_credential={"private_key": place.certificate, "public_certificate": place.certificate},
            instance_discovery=False,
        )
        answer = application.acquire_token_by_refresh_token(token, [f"{cloud.partner_center}/user_impersonation"])
        profile = requests.get(
            f"{cloud.partner_center}/v1/profiles/organization",
            headers={"Authorization": f"Bearer {answer['access_token']}", "ValidateMfa": "true"},
            timeout=30,
        )
        if profile.json()["tenantId"] != partner.tenant_id:
            raise RuntimeError("another tenant's profile")
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts = {
        "seconds": time.perf_counter() - began,
        "cpu": used.ru_utime + used.ru_stime,
        "memory": peak_memory(),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
