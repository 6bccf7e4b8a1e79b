"""The only place that wires settings, vault, tokens and clients together."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from consent import alarms
from consent.alarms import Cause
from consent.containment.gate import Gate
from consent.customers.consents import CustomerClients
from consent.microsoft.accounts import AccountClient
from consent.microsoft.application_consents import ApplicationConsentClient
from consent.microsoft.application_objects import ApplicationObjectClient, ApplicationSwitchClient
from consent.microsoft.credentials import ClientCredential, read_credential, signed_in_the_vault
from consent.microsoft.directory import DirectoryClient
from consent.microsoft.entra import EntraClient, MetadataCache
from consent.microsoft.id_tokens import IdTokenValidator, SigningKeys
from consent.models import ApplicationCredential, ApplicationRegistration, PartnerConsent
from consent.moving_in.sources import OtherVault
from consent.sign_in.proof import PATIENT, ConsentTools
from consent.tokens import pairing
from consent.tokens.custody import TokenUnavailable
from consent.tokens.health import renew_after
from consent.tokens.renewal import rotation
from consent.tokens.saving import Renewals
from consent.tokens.service import Audience, TokenService
from consent.uses.book import Book, By
from consent.vault.base import (
    Eraser,
    Inventory,
    KeyInventory,
    Pruner,
    SecretName,
    SecretVersion,
    Vault,
    VaultConfigurationError,
    VaultKeys,
    WholeVault,
)
from consent.vault.local import LocalVault
from consent.vault.pace import Pace
from consent.vault.private_files import read_private_file
from portal.audit.trail import Actor
from portal.microsoft.api import RetryPolicy
from portal.microsoft.clouds import NationalCloud, get_cloud
from portal.microsoft.errors import RemoteError, Unreachable, WrongSetup
from portal.microsoft.http import GuardedSession, turn_of
from portal.microsoft.identifiers import CorrelationId, new_correlation_id, parse_application_id, parse_tenant_id
from portal.microsoft.secret import Secret
from portal.rights import SERVER, require
from tenants.gdap import GdapClient
from tenants.models import CustomerTenant
from tenants.partner_center import PartnerCenterClient

log = logging.getLogger(__name__)


def cloud(key: str) -> NationalCloud:
    """Return the cloud of this deployment: Microsoft's hosts, or the sandbox's with test endpoints."""
    return get_cloud(key, settings.CLOUDS)


def clouds() -> Iterable[NationalCloud]:
    """Return all clouds of this deployment."""
    return settings.CLOUDS.values()


@cache
def session() -> requests.Session:
    """Return the one guarded session of this process.

    Raises:
        ImproperlyConfigured: the CA file is missing, which with test endpoints means that no sandbox ever ran.
    """
    hosts = {urlsplit(settings.VAULT_URL).netloc, *(host for each in clouds() for host in each.hosts())} - {""}
    return _guarded(hosts)


def _guarded(hosts: Collection[str]) -> requests.Session:
    ca_file = settings.OUTGOING_CA_FILE
    if ca_file and not Path(ca_file).is_file():
        variable = "TEST_CA_FILE" if settings.TEST_ENDPOINTS else "OUTGOING_CA_FILE"
        hint = "; start the sandbox first (make sandbox)" if settings.TEST_ENDPOINTS else ""
        raise ImproperlyConfigured(f"{variable} names {ca_file}, which is no file{hint}")
    proxy = settings.OUTGOING_PROXY
    return GuardedSession(
        is_allowed=hosts.__contains__,
        ca_file=ca_file or None,
        proxies={"https": proxy} if proxy else None,
        loopback=bool(settings.TEST_ENDPOINTS),
    )


@cache
def vault() -> Vault:
    """Return the vault that VAULT_URL names, with the portal's own identity: Get and Set.

    The first call of a process compares its id with the one in the database. A vault that does not answer then is
    compared before its next use.

    Raises:
        VaultConfigurationError: it cannot be opened, or is not the vault of this database; says which path or variable
            and what to do.
    """
    own = _own_vault()
    try:
        own.compare()
    except RemoteError as error:  # which its next use meets again
        log.warning("not seen whether this is the vault of this database: %s", error)
    return own


@cache
def _own_vault() -> pairing.OwnVault:
    """Return the same vault, compared before its first use only."""
    return pairing.OwnVault(_azure_vault("") if _is_azure() else _embedded_vault(), settings.VAULT_URL)


def vault_as_it_is() -> WholeVault:
    """Return the vault that VAULT_URL names without comparing it with the database and without making anything.

    For the doctor, which looks also before the first start. Raises as vault().
    """
    return _azure_vault("") if _is_azure() else _open_embedded(create=False)


def take_new_vault(actor: Actor) -> None:
    """Take the vault that VAULT_URL names for this database's own, because the former one is lost for good.

    Raises:
        VaultConfigurationError: it cannot be opened.
        RemoteError: it does not answer; nothing was changed.
    """
    require(actor, SERVER)
    reset()
    pairing.pair_anew(_azure_vault("") if _is_azure() else _open_embedded(create=True), actor=actor)


@cache
def inventory() -> Inventory:
    """Return the same vault with the identity that may List; only for the reconcile command. Raises as vault()."""
    return _azure_vault(settings.VAULT_RECONCILE_IDENTITY) if _is_azure() else _compared_embedded_vault()


def pruner() -> Pruner | None:
    """Return the same vault where it can remove single versions, as the embedded one can. Raises as vault()."""
    return None if _is_azure() else _compared_embedded_vault()


def key_inventory() -> KeyInventory | None:
    """Return the same vault's keys with the identity that may List; None where the vault has no keys."""
    if not _is_azure():
        return None
    listed: KeyInventory = _azure_keys(settings.VAULT_RECONCILE_IDENTITY)
    return listed


@cache
def eraser() -> Eraser:
    """Return the same vault with the identity that may Delete and Purge; only to erase. Raises as vault()."""
    return _azure_vault(settings.VAULT_ERASE_IDENTITY) if _is_azure() else _compared_embedded_vault()


def vault_signs() -> bool:
    """Tell whether the vault is of a kind that signs with keys of its own."""
    return _is_azure()


@cache
def vault_keys() -> VaultKeys:
    """Return the keys of the same vault, with the portal's own identity: Get, Create, Sign and Update on keys.

    Raises:
        VaultConfigurationError: the embedded vault has none, or the Key Vault cannot be opened.
    """
    if not _is_azure():
        raise VaultConfigurationError(
            "The embedded vault does not sign. Keys that stay in the vault need an Azure Key Vault (VAULT_URL); let "
            "the portal make a key pair instead"
        )
    opened: VaultKeys = _azure_keys("")
    return opened


def _azure_keys(identity: str) -> Any:
    azure = import_module("consent.vault.azure_keys")  # by name, as below
    return azure.open_azure_keys(
        settings.VAULT_URL, _azure_identity(identity, session()), session=session(), pace=_pace()
    )


def _is_azure() -> bool:
    return settings.VAULT_URL.startswith("https://")


@cache
def _embedded_vault() -> LocalVault:
    """Open the embedded vault. Where the database names nothing that it must hold, this is the first start."""
    return _open_embedded(create=not pairing.names_entries())


def _compared_embedded_vault() -> LocalVault:
    vault()
    return _embedded_vault()


def _open_embedded(*, create: bool) -> LocalVault:
    return LocalVault.open(Path(settings.VAULT_URL), Path(settings.VAULT_KEY_FILE), create=create)


def other_vault(url: str) -> OtherVault:
    """Open a Key Vault that is not the portal's, to read tokens that a vendor brings along; with the portal's identity.

    Raises:
        VaultConfigurationError: the address is no Key Vault of the cloud, or is the portal's own; or the identity that
            the settings name cannot be used.
    """
    suffix = cloud(settings.VAULT_CLOUD).vault_suffix
    address = url.rstrip("/")
    if not re.fullmatch(rf"https://[0-9A-Za-z-]+{re.escape(suffix)}", address):
        raise VaultConfigurationError(f"The vault's address must look like https://name{suffix}")
    if address.lower() == settings.VAULT_URL.rstrip("/").lower():  # names of hosts know no case
        raise VaultConfigurationError("This is the portal's own vault, whose tokens are known already")
    calls = _guarded({urlsplit(address).netloc, *cloud(settings.VAULT_CLOUD).hosts()})
    opened: OtherVault = _open_azure(address, "", calls, Pace())
    return opened


def _azure_vault(identity: str) -> WholeVault:
    """Open the Key Vault. ``identity`` is empty for the portal's own, or ``client id`` or ``client id,file``."""
    opened: WholeVault = _open_azure(settings.VAULT_URL, identity, session(), _pace())
    return opened


def _open_azure(url: str, identity: str, calls: requests.Session, pace: Pace) -> Any:
    azure = import_module("consent.vault.azure")  # by name: Azure's libraries take long, and others need none
    return azure.open_azure_vault(url, _azure_identity(identity, calls), session=calls, pace=pace)


def _azure_identity(identity: str, calls: requests.Session) -> Callable[[], Any]:
    """Return what makes an identity: empty for the portal's own, or ``client id`` or ``client id,file``."""
    client_id, _, credential_file = (part.strip() for part in identity.partition(","))
    return partial(
        import_module("consent.vault.azure").vault_credential,
        settings.VAULT_IDENTITY,
        authority=cloud(settings.VAULT_CLOUD).authority,
        tenant_id=settings.VAULT_TENANT_ID,
        client_id=client_id or settings.VAULT_CLIENT_ID,
        credential_file=credential_file if client_id else settings.VAULT_CREDENTIAL_FILE,
        session=calls,
    )


@cache
def _pace() -> Pace:
    return Pace(calls=10 * settings.VAULT_RATE)


@cache
def _metadata() -> MetadataCache:
    return MetadataCache(session())


@cache
def _signing_keys() -> SigningKeys:
    return SigningKeys(session())


@cache
def _validator() -> IdTokenValidator:
    return IdTokenValidator(keys=_signing_keys(), metadata=_metadata())


def shared_by_all() -> Sequence[Callable[[], object]]:
    """Return jobs that fetch what every token needs: the vault's id, credentials, discovery documents, signing keys.

    For ``portal.runs``: the jobs run no query, may run at the same time, and raise VaultConfigurationError,
    RemoteError, or anything else when a row is not as it should be.
    """
    tokens()  # what it is made of is made here, or each thread would make its own
    active = ApplicationRegistration.objects.filter(state=ApplicationRegistration.State.ACTIVE)
    registrations = active.select_related("credential")
    each_needs = (_fetch_credential, _fetch_metadata, _fetch_signing_keys)
    return [_own_vault().compare, *(partial(fetch, each) for each in registrations for fetch in each_needs)]


def _fetch_credential(registration: ApplicationRegistration) -> None:
    if registration.credential is not None:
        client_credential(registration.credential, cloud(registration.cloud))


def _fetch_metadata(registration: ApplicationRegistration) -> None:
    _metadata().of(cloud(registration.cloud))


def _fetch_signing_keys(registration: ApplicationRegistration) -> None:
    _signing_keys().prefetch(cloud(registration.cloud), parse_tenant_id(registration.home_tenant_id))


_turns: dict[tuple[str, str, str, bool], threading.Lock] = {}


@cache
def _credential(kind: str, name: str, version: str, sends_chain: bool) -> ClientCredential:
    """Read the application's credential from the vault; another version is another key of this cache."""
    return read_credential(
        kind, _own_vault().read(SecretName(name), SecretVersion(version)).value, sends_chain=sends_chain
    )


@cache
def _signed_in_the_vault(name: str, version: str, public_pem: str, sends_chain: bool) -> ClientCredential:
    open_key = partial(vault_keys().signer, SecretName(name), SecretVersion(version))
    return signed_in_the_vault(public_pem, open_key, sends_chain=sends_chain)


@cache
def _managed_identity(client_id: str, audience: str) -> ClientCredential:
    module = import_module("consent.microsoft.managed_identity")  # by name, for the same reason
    credential: ClientCredential = module.FederatedCredential(client_id, audience)
    return credential


def client_credential(credential: ApplicationCredential, own_cloud: NationalCloud) -> ClientCredential:
    """Return what the row points to, ready for use; parsed once in a process."""
    if credential.kind == ApplicationCredential.Kind.FEDERATED:
        return _managed_identity(credential.key_id, own_cloud.federation_audience)
    if credential.kind == ApplicationCredential.Kind.VAULT_KEY:
        return _signed_in_the_vault(
            credential.secret_name, credential.secret_version, credential.public_certificate, credential.sends_chain
        )
    wanted = credential.kind, credential.secret_name, credential.secret_version, credential.sends_chain
    try:
        with turn_of(_turns.setdefault(wanted, threading.Lock())):  # one of many threads reads it, the others find it
            return _credential(*wanted)
    except TimeoutError:
        raise Unreachable("vault", "read the application's credential") from None


def entra(registration: ApplicationRegistration, correlation_id: CorrelationId) -> EntraClient:
    """Return the sign-in client of this registration for one unit of work, with the credential that is current.

    Note: this reads ``registration.credential``; where it is not loaded, that is a query.

    Raises:
        TokenUnavailable: the registration has no credential yet.
    """
    if registration.credential is None:
        raise TokenUnavailable(f"{registration} has no credential in use yet; promote one.")
    return _entra_with(registration, registration.credential, correlation_id)


def _entra_with(
    registration: ApplicationRegistration, credential: ApplicationCredential, correlation_id: CorrelationId
) -> EntraClient:
    own_cloud = cloud(registration.cloud)
    return EntraClient(
        cloud=own_cloud,
        application_id=registration.client_id,
        credential=client_credential(credential, own_cloud),
        session=session(),
        correlation_id=correlation_id,
    )


def ask_for_application_token(credential: ApplicationCredential) -> None:
    """Ask for a token of the application for Partner Center in its home tenant, with this credential, and drop it.

    Raises:
        RemoteError: it was not given; ``consent.applications.evidence`` knows what that means.
        WrongSetup: what the vault keeps is no credential; nothing was asked.
    """
    registration = credential.registration
    try:
        client = _entra_with(registration, credential, new_correlation_id())
    except ValueError as error:
        raise WrongSetup(
            f"The vault's entry of {credential} is no credential. {error}. Add the credential anew, and promote it."
        ) from None
    home = parse_tenant_id(registration.home_tenant_id)
    client.application_token(tenant_id=home, resource=cloud(registration.cloud).partner_center)


def reads_registration(registration: ApplicationRegistration) -> bool:
    """Tell whether this deployment has an identity that may read the registration at Microsoft."""
    return registration.home_tenant_id in settings.READERS


def read_registration(registration: ApplicationRegistration) -> Mapping[str, Any]:
    """Read the registration's application object with the reader's identity, never with the application's own.

    Raises:
        WrongSetup: the reader's credential file cannot be used.
        RemoteError: Microsoft did not answer, or the reader may not read it.
    """
    own_cloud, correlation_id = cloud(registration.cloud), new_correlation_id()
    client = ApplicationObjectClient(
        base_url=own_cloud.graph,
        session=session(),
        token_source=partial(_reader_token, own_cloud, registration.home_tenant_id, correlation_id),
        correlation_id=correlation_id,
    )
    return client.read(registration.client_id)


def switch_registration(registration: ApplicationRegistration, *, disabled: bool) -> bool:
    """Deactivate the registration at Microsoft or activate it, with the reader's identity; return whether it is off.

    Raises as ``read_registration``; AccessDenied where the reader may only read.
    """
    own_cloud, correlation_id = cloud(registration.cloud), new_correlation_id()
    client = ApplicationSwitchClient(
        base_url=own_cloud.graph,
        session=session(),
        token_source=partial(_reader_token, own_cloud, registration.home_tenant_id, correlation_id),
        correlation_id=correlation_id,
    )
    return client.switch(registration.client_id, disabled=disabled)


def _reader_token(own_cloud: NationalCloud, tenant_id: str, correlation_id: CorrelationId) -> Secret:
    client_id, file = settings.READERS[tenant_id]
    if not file:
        module = import_module("consent.microsoft.managed_identity")  # by name, for the same reason
        found: Secret = module.identity_token(client_id, own_cloud.graph)
        return found
    try:
        content = Secret(read_private_file(Path(file), "The reader's file").decode())
        credential = read_credential(ApplicationCredential.Kind.CERTIFICATE, content)
    except (VaultConfigurationError, ValueError) as error:
        raise WrongSetup(f"Reader of the tenant {tenant_id} (READER_CREDENTIAL_FILE, MORE_READERS): {error}") from None
    reader = EntraClient(
        cloud=own_cloud,
        application_id=parse_application_id(client_id),
        credential=credential,
        session=session(),
        correlation_id=correlation_id,
    )
    return reader.application_token(tenant_id=parse_tenant_id(tenant_id), resource=own_cloud.graph).access_token


@cache
def uses() -> Book:
    """Return the ledger of uses of this process."""
    return Book()


@cache
def gate() -> Gate:
    """Return what this process knows of emergency stops."""
    return Gate()


def tokens_with(credential: ApplicationCredential) -> TokenService:
    """Return the door to tokens with this credential instead of the current one, to prove it.

    It has caches of its own, saves nothing that Entra does not force it to save (a service that rotates strictly has
    spent the stored token), and reports no refusal: a candidate's refusal is no incident.
    """
    return TokenService(
        vault=vault(),
        entra=lambda registration, correlation_id: _entra_with(registration, credential, correlation_id),
        validator=_validator(),
        clouds=cloud,
        rotation=rotation(timedelta.max if settings.TOKEN_SAVE_AFTER_HOURS else timedelta()),
        gate=gate(),
        uses=uses(),
    )


@cache
def tokens() -> TokenService:
    """Return the token service of this process."""
    return TokenService(
        vault=_own_vault(),
        entra=entra,
        validator=_validator(),
        clouds=cloud,
        rotation=rotation(min(timedelta(hours=settings.TOKEN_SAVE_AFTER_HOURS), renew_after())),
        gate=gate(),
        uses=uses(),
        credential_refused=lambda registration, error: alarms.report(
            Cause.CREDENTIAL_REFUSED, registration, error=error
        ),
    )


def renewals() -> Renewals:
    """Return the custody of many partners' tokens."""
    return Renewals(_own_vault())


def partner_center(
    own_cloud: NationalCloud,
    token_source: Callable[[], Secret],
    correlation_id: CorrelationId,
    *,
    retry: RetryPolicy | None = None,
) -> PartnerCenterClient:
    """Return a Partner Center client of this cloud."""
    return PartnerCenterClient(
        base_url=own_cloud.partner_center,
        session=session(),
        token_source=token_source,
        correlation_id=correlation_id,
        retry=retry,
    )


def gdap(own_cloud: NationalCloud, token_source: Callable[[], Secret], correlation_id: CorrelationId) -> GdapClient:
    """Return a Graph client for the relationships of a partner."""
    return GdapClient(
        base_url=own_cloud.graph, session=session(), token_source=token_source, correlation_id=correlation_id
    )


def account(
    own_cloud: NationalCloud, token_source: Callable[[], Secret], correlation_id: CorrelationId
) -> AccountClient:
    """Return a Graph client for the account that signed in."""
    return AccountClient(
        base_url=own_cloud.graph,
        session=session(),
        token_source=token_source,
        correlation_id=correlation_id,
        retry=RetryPolicy(tries=1),  # within a page, and only for display
    )


def consent_tools() -> ConsentTools:
    """Return what a consent flow needs."""
    return ConsentTools(
        vault=vault(),
        tokens=tokens(),
        validator=_validator(),
        entra=entra,
        partner_center=partial(partner_center, retry=PATIENT),
        account=account,
        clouds=cloud,
    )


def customer_clients(
    consent: PartnerConsent, customer: CustomerTenant, correlation_id: CorrelationId, *, by: By
) -> CustomerClients:
    """Return the clients for one customer of this partner."""
    own_cloud = cloud(consent.partner.cloud)
    service = tokens()
    source = partial(service.source, consent, by=by, correlation_id=correlation_id)
    partner_token, graph_token = source(Audience.PARTNER_CENTER), source(Audience.GRAPH)
    return CustomerClients(
        partner_center=partner_center(own_cloud, partner_token, correlation_id),
        gdap=gdap(own_cloud, graph_token, correlation_id),
        account=account(own_cloud, graph_token, correlation_id),
        consents=ApplicationConsentClient(
            base_url=own_cloud.partner_center,
            session=session(),
            token_source=partner_token,
            correlation_id=correlation_id,
        ),
        directory=DirectoryClient(
            base_url=own_cloud.graph,
            session=session(),
            token_source=source(Audience.GRAPH, customer=customer),
            correlation_id=correlation_id,
        ),
        prove_partner=partner_token,
        forget_customer_tokens=lambda: service.forget(consent.pk, customer.tenant),
        correlation_id=correlation_id,
    )


def reset() -> None:
    """Forget everything that was built from settings; for tests."""
    if gate.cache_info().currsize:
        gate().close()
    forget_all()


def forget_all() -> None:
    """Forget everything that was built from settings, and end nothing of it: after a fork it is another process's."""
    for factory in (
        session,
        vault,
        _own_vault,
        inventory,
        eraser,
        _embedded_vault,
        _pace,
        _metadata,
        _signing_keys,
        _validator,
        vault_keys,
        _credential,
        _signed_in_the_vault,
        _managed_identity,
        tokens,
        gate,
        uses,
    ):
        factory.cache_clear()
    _turns.clear()


os.register_at_fork(after_in_child=forget_all)  # connections, and the locks around them, belong to one process
