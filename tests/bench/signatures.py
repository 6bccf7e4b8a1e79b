"""What signing in the vault costs: calls of Key Vault for a number of redemptions, and their time.

``python -m tests.bench.signatures [--redemptions 1000] [--tenants 1,20,1000] [--threads 8] [--latency 0.03]``. Real
MSAL, real SDK, one process. The same redemptions are measured with a key in the process's memory. An assertion is made
out to one tenant's token endpoint, so the number of tenants decides; it serves for four minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from consent.microsoft.certificates import pem_of, self_signed
from consent.microsoft.credentials import ClientCredential, read_credential, signed_in_the_vault
from consent.microsoft.entra import EntraClient
from consent.vault.azure import vault_credential
from consent.vault.azure_keys import open_azure_keys
from consent.vault.pace import Pace
from portal.microsoft.clouds import local_clouds
from portal.microsoft.http import GuardedSession
from portal.microsoft.identifiers import ApplicationId, TenantId, new_correlation_id
from portal.microsoft.secret import Secret
from tests.bench.partners_at_microsoft import Gate, PartnersAtMicrosoft, partners_at_microsoft

_NO_LIMIT = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redemptions", type=int, default=1000)
    parser.add_argument("--tenants", default="1,20,1000", help="several with commas")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds of each call")
    options = parser.parse_args()
    tenants = [int(text) for text in options.tenants.split(",")]
    with tempfile.TemporaryDirectory() as folder, partners_at_microsoft(Path(folder), max(tenants)) as (place, gate):
        gate.switch(latency=options.latency)
        for number in tenants:
            for kind, credential in _credentials(place, gate, Path(folder)):
                _measure(place, gate, kind, credential, number, options.redemptions, options.threads)
    return 0


def _session(place: PartnersAtMicrosoft) -> GuardedSession:
    return GuardedSession(is_allowed=lambda host: True, ca_file=place.ca_file, loopback=True)


def _credentials(place: PartnersAtMicrosoft, gate: Gate, folder: Path) -> list[tuple[str, ClientCredential]]:
    """Return the two kinds as a process has them that has just started."""
    session, cloud = _session(place), local_clouds(place.port)["global"]
    file = folder / "vault-credential"
    file.touch(mode=0o600)
    file.write_text(place.vault_secret)
    identity = partial(
        vault_credential,
        "client-secret",
        session=session,
        authority=cloud.authority,
        tenant_id=place.vault_tenant,
        client_id=place.vault_client,
        credential_file=file,
    )
    keys = open_azure_keys(place.vault_url, identity, session=session, pace=Pace(calls=_NO_LIMIT))
    gate.let_keys_be_used(place.vault_client)
    made = keys.create(tags={})
    certificate = self_signed(keys.signer(made.name, made.version, made.public), "bench", days=1)
    gate.know(certificate.public_bytes(serialization.Encoding.DER))
    signer = partial(keys.signer, made.name, made.version)
    return [
        ("in the vault", signed_in_the_vault(pem_of([certificate]), signer, sends_chain=False)),
        ("in memory", read_credential("certificate", Secret(place.certificate))),
    ]


def _measure(
    place: PartnersAtMicrosoft,
    gate: Gate,
    kind: str,
    credential: ClientCredential,
    tenants: int,
    redemptions: int,
    threads: int,
) -> None:
    client = EntraClient(
        cloud=local_clouds(place.port)["global"],
        application_id=ApplicationId(place.application_id),
        credential=credential,
        session=_session(place),
        correlation_id=new_correlation_id(),
    )

    def redeem(number: int) -> None:
        partner = place.partners[number % tenants]
        client.redeem_refresh_token(
            tenant_id=TenantId(partner.tenant_id),
            refresh_token=Secret(partner.refresh_token),
            scope=local_clouds(place.port)["global"].partner_center_scope,
        )

    gate.counters()
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(redeem, range(redemptions)))
    seconds = time.perf_counter() - began
    counted = gate.counters()
    signed, redeemed = counted.get("vault sign_key 200", 0), counted.get("entra token 200", 0)
    print(  # noqa: T201  # what it is for
        f"{kind:13} {redemptions:6} redemptions of {tenants:5} tenants: {signed:5} signatures of the vault, "
        f"{redeemed} answers of the sign-in service, {seconds:.1f} s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
