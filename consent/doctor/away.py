"""Steps at Microsoft: clock, hosts, sign-in documents, credential, a partner's token, Partner Center, Graph."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.db.models import F
from django.utils import timezone

from consent import clients
from consent.applications.evidence import Blame, meaning_of
from consent.doctor.case import Canary, Case, said_no
from consent.doctor.steps import Finding, failed, not_seen, notice, well
from consent.microsoft.entra import MetadataCache
from consent.microsoft.id_tokens import LEEWAY_SECONDS, SigningKeys
from consent.models import ApplicationCredential, ApplicationRegistration, PartnerConsent
from consent.tokens.custody import TokenUnavailable
from consent.tokens.service import Audience
from consent.tokens.versions import IdentityMismatch
from consent.uses.book import By, Purpose
from consent.vault.base import PROBE_NAME
from portal.microsoft.clouds import NationalCloud
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import AccessDenied, AuthenticationFailed, RemoteError
from portal.microsoft.http import budget_left, no_answer, time_budget
from portal.microsoft.identifiers import new_correlation_id, parse_tenant_id
from portal.text import number_of

_CLOSE_SECONDS = 60.0  # a clock that is kept by the network differs by less than one
_REACH_SECONDS = 10.0
_MOST_AT_ONCE = 8
_CANARIES = 3  # partners that are asked before we say that no token works
_ENDS_SOON_DAYS = 14
_NETWORK_INFO = "x-ms-keyvault-network-info"
State = PartnerConsent.State


# --- time and hosts -----------------------------------------------------------------------------------------------


def look_at_time(case: Case) -> Iterator[Finding]:
    """Compare our clock with the Date header of each sign-in host."""
    for cloud in case.clouds:
        host = urlsplit(cloud.authority).netloc
        try:
            answer = _get(case, f"{cloud.authority}/organizations/v2.0/.well-known/openid-configuration")
            theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
        except (RemoteError, ValueError):
            yield not_seen(f"{host} told no time.", "The steps below say whether it answers.")
            continue
        ahead = time.time() - theirs.timestamp()
        by = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {host}"
        if abs(ahead) > LEEWAY_SECONDS:
            yield failed(
                f"The clock of this server is {by}; more than {LEEWAY_SECONDS} s and sign-ins are refused.",
                "Let the server keep its time by NTP.",
            )
        elif abs(ahead) > _CLOSE_SECONDS:
            yield notice(f"The clock of this server is {by}.", "Let the server keep its time by NTP.")
        else:
            yield well(f"The clock agrees with {host} within a minute.")


def look_at_hosts(case: Case) -> Iterator[Finding]:
    """Reach each host of the clouds in use, and the vault, by TLS. Any answer will do; nothing is asked."""
    wanted: dict[str, str] = {}  # host: what it is for; the first says it
    for cloud in case.clouds:
        for origin, purpose in ((cloud.authority, ""), (cloud.graph, ""), (cloud.partner_center, "")):
            wanted.setdefault(urlsplit(origin).netloc, purpose)
        for origin in filter(None, (cloud.partner_api, cloud.azure_management)):
            wanted.setdefault(urlsplit(origin).netloc, "Only access tokens of other programs lead there.")
    if settings.VAULT_URL.startswith("https://"):
        wanted[urlsplit(settings.VAULT_URL).netloc] = ""
    seconds = min(budget_left(), _REACH_SECONDS)

    def reach(host: str) -> RemoteError | None:
        with time_budget(seconds):  # the budget of this thread, not of the one that waits
            try:
                _get(case, f"https://{host}/")
            except RemoteError as error:
                return error
        return None

    with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
        answers = dict(zip(wanted, pool.map(reach, wanted), strict=True))
    for host, error in answers.items():
        if error is None:
            yield well(f"{host} answers by TLS.")
        elif wanted[host]:
            yield notice(f"{diagnose(error).cause} {wanted[host]}", diagnose(error).remedy)
        else:
            yield said_no(error, "")


def look_at_address(case: Case) -> Iterator[Finding]:
    """Say from which address we call, as the Key Vault sees it, and compare it with what partners are told."""
    told = [ip_network(one) for one in settings.OUTGOING_ADDRESSES]
    if not settings.VAULT_URL.startswith("https://"):
        yield not_seen("Only a Key Vault tells from which address we call, and this portal has none.")
        return
    answer = _get(case, f"{settings.VAULT_URL.rstrip('/')}/secrets/{PROBE_NAME}?api-version=7.4")
    fields = dict(part.partition("=")[::2] for part in answer.headers.get(_NETWORK_INFO, "").split(";"))
    try:
        seen = ip_address(fields.get("addr", ""))
    except ValueError:
        yield not_seen("The Key Vault did not tell from which address we call.")
        return
    if not (seen.is_global or any(seen in network for network in told)):
        yield not_seen(
            f"The Key Vault sees us at {seen}, which is no public address: the way to Microsoft's other services is "
            "another one.",
            "Look at the network's way out, and compare it with OUTGOING_ADDRESSES.",
        )
    elif not told:
        yield notice(f"We seem to call from {seen}. Partners are told no address.", "Set OUTGOING_ADDRESSES.")
    elif any(seen in network for network in told):
        yield well(f"We seem to call from {seen}, as partners are told.")
    else:
        yield failed(
            f"We seem to call from {seen}, and partners are told {', '.join(settings.OUTGOING_ADDRESSES)}.",
            "Correct OUTGOING_ADDRESSES or the network, and tell the partners: their policies may refuse us.",
        )


def _get(case: Case, address: str) -> requests.Response:
    """Return whatever answers at this address. Raises RemoteError when nothing does."""
    try:
        return case.session.get(address)
    except requests.exceptions.ContentDecodingError:
        return requests.Response()  # too much of an answer is one
    except requests.exceptions.RequestException:
        raise no_answer("host", "reach", correlation_id=case.correlation_id) from None


def look_at_sign_in(case: Case) -> Iterator[Finding]:
    """Read the discovery document and the signing keys of each cloud anew, past what this process keeps."""
    metadata, keys = MetadataCache(case.session), SigningKeys(case.session)
    for cloud in case.clouds:
        try:
            metadata.of(cloud)
            home = next((one.home_tenant_id for one in case.registrations if one.cloud == cloud.key), "")
            if home:
                keys.prefetch(cloud, parse_tenant_id(home))
        except RemoteError as error:
            yield said_no(error, f"Sign-in service of {cloud.name}")
            continue
        read = "Discovery document and signing keys" if home else "The discovery document"
        yield well(f"{read} of {cloud.name} can be read, from that cloud's own hosts.")


# --- our credential -----------------------------------------------------------------------------------------------


def look_at_credential(case: Case) -> Iterator[Finding]:
    """Read each active registration's credential and prove it at Microsoft, or by its own signature."""
    if not case.registrations:
        yield not_seen("No application registration is active.", "Open Applications, add one and activate it.")
    for registration in case.registrations:
        credential = registration.credential
        assert credential is not None  # noqa: S101  # a constraint of the database: active ones have one
        over = _ended(registration, credential)
        if over is not None:
            yield over
            if over.result is over.result.FAILED:
                continue
        yield _proven(case, registration, credential, clients.cloud(registration.cloud))


def _ended(registration: ApplicationRegistration, credential: ApplicationCredential) -> Finding | None:
    if credential.expires_at is None:
        return None
    left = credential.expires_at - timezone.now()
    if left.total_seconds() <= 0:
        return failed(
            f"{registration}: its credential ended on {credential.expires_at:%d %B %Y}.",
            "Add a new credential to the registration at Microsoft and here, and promote it.",
        )
    if left.days < _ENDS_SOON_DAYS:
        return notice(
            f"{registration}: its credential ends in {number_of(left.days, 'day')}.", "Add the next one and promote it."
        )
    return None


def _proven(
    case: Case, registration: ApplicationRegistration, credential: ApplicationCredential, cloud: NationalCloud
) -> Finding:
    try:
        ours = clients.client_credential(credential, cloud)
    except ValueError as error:
        return failed(f"{registration}: the vault's entry is no credential. {error}.", "Add the credential anew.")
    except RemoteError as error:
        return said_no(error, f"{registration}: its credential")
    home = parse_tenant_id(registration.home_tenant_id)
    try:
        # The signature test: with a wrong key or identity nothing can even be made.
        ours.for_msal(registration.client_id, f"{cloud.authority}/{home}/oauth2/v2.0/token")
        clients.entra(registration, case.correlation_id).application_token(tenant_id=home, resource=cloud.graph)
    except RemoteError as error:
        refusal = meaning_of(error.code)
        if refusal.blame in (Blame.APPLICATION, Blame.CREDENTIAL):  # one meaning of a code here and in the set-up
            return failed(f"{registration}: {refusal.what} ({error.code})", refusal.remedy)
        if isinstance(error, AuthenticationFailed) or error.retryable:
            return said_no(error, str(registration))
        return not_seen(
            f"{registration}: the credential can be read and signs, but Microsoft gave the application no token for "
            f"itself ({error.code}).",
            "The next step shows whether it is accepted, by a partner's token.",
        )
    return well(f"{registration}: Microsoft accepts the {credential.get_kind_display().lower()}.")


# --- other identities ---------------------------------------------------------------------------------------------


def look_at_identities(case: Case) -> Iterator[Finding]:
    """Try the identities beside the portal's own, each by a read; what only erases is not tried."""
    if not settings.VAULT_URL.startswith("https://"):
        yield well("The embedded vault is compared and cleaned without identities of their own.")
    else:
        if settings.VAULT_RECONCILE_IDENTITY:
            next(iter(clients.inventory().names()), None)
            yield well("VAULT_RECONCILE_IDENTITY may list the vault, as the daily comparison does.")
            yield from _look_at_list_of_keys()
        else:
            yield not_seen("VAULT_RECONCILE_IDENTITY names no identity, so listing the vault was not tried.")
        yield not_seen("VAULT_ERASE_IDENTITY was not tried: only erasing shows whether it may.")
    if not settings.READERS:
        yield not_seen("No identity reads registrations at Microsoft (READER_CLIENT_ID).")
        return
    for registration in case.registrations:
        if not clients.reads_registration(registration):
            yield not_seen(
                f"No identity reads {registration} at Microsoft: none is of its home tenant.",
                f"Each home tenant needs its own: name one of {registration.home_tenant_id} in MORE_READERS.",
            )
            continue
        try:
            clients.read_registration(registration)
        except RemoteError as error:
            yield said_no(error, f"Reader of {registration} (READER_CLIENT_ID, MORE_READERS)")
        else:
            yield well(f"The reader reads {registration} at Microsoft.")


def _look_at_list_of_keys() -> Iterator[Finding]:
    """Try to list the vault's keys, where a credential of ours is one of them."""
    keys = clients.key_inventory()
    if keys is None or not ApplicationCredential.objects.filter(kind=ApplicationCredential.Kind.VAULT_KEY).exists():
        return
    try:
        next(iter(keys.names()), None)
    except AccessDenied:
        yield not_seen(
            "VAULT_RECONCILE_IDENTITY may not list keys: one that no credential names is not found.",
            "Give it the right List on keys.",
        )
    else:
        yield well("VAULT_RECONCILE_IDENTITY may list the keys of the vault.")


# --- a partner's token --------------------------------------------------------------------------------------------


def look_at_canary(case: Case) -> Iterator[Finding]:
    """Redeem one partner's token for each active registration, by the usual service, and save nothing."""
    if not case.registrations:
        yield not_seen("No application registration is active.")
        return
    if not settings.TOKEN_SAVE_AFTER_HOURS:
        yield not_seen(
            "TOKEN_SAVE_AFTER_HOURS is 0: each redemption spends the stored token, so none was made.",
            "Check a partner's token on its page.",
        )
        return
    for registration in case.registrations:
        yield _canary_of(case, registration)


def _canary_of(case: Case, registration: ApplicationRegistration) -> Finding:
    connected = (
        PartnerConsent.objects.in_use()
        .filter(registration=registration, state__in=[State.CONNECTED, State.MFA_MISSING])
        .order_by(F("last_success_at").desc(nulls_last=True), "pk")
    )
    answer = not_seen(f"{registration}: no partner is connected.", "Invite one: its token is the only full proof.")
    credential = registration.credential
    assert credential is not None  # noqa: S101  # as above
    tokens = clients.tokens_with(credential)
    for consent in connected.with_all_for_calls()[:_CANARIES]:
        by = By(actor=case.actor, purpose=Purpose.DOCTOR)
        canary = Canary(consent=consent, tokens=tokens, by=by, correlation_id=new_correlation_id())
        try:
            tokens.access_token(
                consent, Audience.PARTNER_CENTER, by=by, correlation_id=canary.correlation_id, fresh=True
            )
        except RemoteError as error:
            answer = said_no(error, f"{registration}, token of {consent.partner.name}")
            if isinstance(error, AuthenticationFailed):
                break  # ours: the next partner's token meets the same
        except (TokenUnavailable, IdentityMismatch) as error:
            answer = failed(f"{registration}, token of {consent.partner.name}: {error}.", "Look at the partner's page.")
        else:
            case.canaries.append(canary)
            return well(f"{registration}: the token of {consent.partner.name} was redeemed; no version was saved.")
    return answer


def look_at_partner_center(case: Case) -> Iterator[Finding]:
    """Read the canary's own profile, with the verdict on MFA."""
    if not case.canaries:
        yield not_seen("No partner's token to ask with.")
    for canary in case.canaries:
        partner = canary.consent.partner
        source = canary.source(Audience.PARTNER_CENTER)
        try:
            profile = clients.partner_center(
                clients.cloud(partner.cloud), source, canary.correlation_id
            ).organization_profile()
        except RemoteError as error:
            yield said_no(error, f"Partner Center, for {partner.name}")
            continue
        if profile.tenant_id != partner.tenant:
            yield failed(
                f"Partner Center answered {partner.name}'s token with the profile of another tenant.",
                "Disable the partner and look at the audit trail.",
            )
        elif profile.mfa_compliant:
            yield well(f"Partner Center answers for {partner.name} and confirms MFA.")
        elif profile.mfa_compliant is None:
            yield notice(
                f"Partner Center answers for {partner.name}, and gave no verdict on MFA.",
                "If it lasts, look whether a proxy drops the header isMfaCompliant.",
            )
        else:
            yield failed(
                f"Partner Center answers for {partner.name}, and does not confirm MFA.",
                "The partner must act. Send a new link; the partner signs in with MFA.",
            )


def look_at_graph(case: Case) -> Iterator[Finding]:
    """Read the canary's own account from Microsoft Graph."""
    if not case.canaries:
        yield not_seen("No partner's token to ask with.")
    for canary in case.canaries:
        partner = canary.consent.partner
        source = canary.source(Audience.GRAPH)
        try:
            clients.account(clients.cloud(partner.cloud), source, canary.correlation_id).standing()
        except RemoteError as error:
            yield said_no(error, f"Microsoft Graph, for {partner.name}")
        else:
            yield well(f"Microsoft Graph lets us read the service account of {partner.name}.")
