"""What a credential's page says first: its state as a sentence, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from consent.admin.panels import expiry_tone
from consent.models import ApplicationCredential
from portal.runs.models import Executor
from portal.site.display import Tone, distance

Kind, State = ApplicationCredential.Kind, ApplicationCredential.State
_SECRETS = "Entra admin center, App registrations, the application, Certificates & secrets"
_UPLOAD = (
    "Download the public certificate.",
    f"{_SECRETS}, Certificates, Upload certificate. Compare the thumbprint that is shown there with the one below.",
)
AT_MICROSOFT: dict[str, Sequence[str]] = {
    Kind.CERTIFICATE: _UPLOAD,
    Kind.VAULT_KEY: _UPLOAD,
    Kind.SECRET: (f"{_SECRETS}, Client secrets: the secret with this id must stand there.",),
    Kind.FEDERATED: (
        f"{_SECRETS}, Federated credentials, Add credential, scenario Managed identity.",
        "Choose the user-assigned identity with this client id, of the registration's home tenant and cloud.",
        "Assign the identity to every host on which the portal runs.",
    ),
}
_GONE = {
    Kind.CERTIFICATE: f"{_SECRETS}, Certificates: delete the one with the thumbprint below, if it still stands there.",
    Kind.SECRET: f"{_SECRETS}, Client secrets: delete the one with the id below, if it still stands there.",
    Kind.FEDERATED: f"{_SECRETS}, Federated credentials: delete the one of this identity, if it still stands there.",
}
_USES = {
    Kind.SECRET: "Each process reads it from the vault once, and sends it with each redemption.",
    Kind.CERTIFICATE: "Each process reads the key from the vault once, and signs in its own memory.",
    Kind.VAULT_KEY: "The key stays in the vault. Each process asks for one signature for each tenant in four minutes.",
    Kind.FEDERATED: "Nothing is stored. Each process gets a token of its host's managed identity.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What stands first on the page; ``downloads`` are texts and addresses of ours."""

    what: str
    tone: Tone
    steps: Sequence[str]
    downloads: Sequence[tuple[str, str]] = ()


def next_of(credential: Any, downloads: Sequence[tuple[str, str]]) -> Next:
    """Return it for a credential with its annotated state."""
    state, kind, now = State(credential.state), Kind(credential.kind), timezone.now()
    if state == State.RETIRED:
        steps = [_GONE[Kind.CERTIFICATE if kind == Kind.VAULT_KEY else kind]] if credential.key_id else []
        return Next(what="It is given up for good.", tone=Tone.QUIET, steps=steps)
    if state == State.REQUESTED:
        steps = [
            "Download the request and let your certificate authority sign it.",
            "Upload the signed certificate here, with the button above.",
        ]
        return Next(what="It waits for its signed certificate.", tone=Tone.WARN, steps=steps, downloads=downloads)
    if credential.expires_at is not None and credential.expires_at <= now:
        what = f"It ended {distance(credential.expires_at - now)}."
        if state == State.CURRENT:
            steps = ["No token can be redeemed with it. Add another credential and promote it."]
            return Next(what=what, tone=Tone.BAD, steps=steps)
        return Next(what=what, tone=Tone.QUIET, steps=["Retire it."])
    if state == State.CURRENT:
        return _current(credential)
    if state == State.PREVIOUS:
        steps = [
            "If the one in use is refused, promote this one again. When that one has worked for some days, retire it."
        ]
        return Next(what="It was in use before and is kept for roll back.", tone=Tone.QUIET, steps=steps)
    promote = "Wait some minutes until it has spread, then promote it here. A refusal changes nothing."
    steps = [*AT_MICROSOFT[kind], promote]
    what, tone = "It is not in use yet. Make it known at Microsoft, then promote it.", Tone.BUSY
    if state == State.REFUSED:
        what, tone = f"Microsoft refused it ({credential.refused_code}). The one in use stayed.", Tone.BAD
        steps = [*AT_MICROSOFT[kind], promote, "If it stays refused, retire it and add another one."]
    return Next(what=what, tone=tone, steps=steps, downloads=downloads)


def _current(credential: ApplicationCredential) -> Next:
    tone = expiry_tone(credential)
    left = "" if credential.expires_at is None else f" and ends {distance(credential.expires_at - timezone.now())}"
    if tone in {Tone.WARN, Tone.BAD}:
        steps = ["Add another credential, make it known at Microsoft and promote it. There is no gap in between."]
        return Next(what=f"It is in use{left}.", tone=tone, steps=steps)
    if credential.proven_at is None:
        steps = ["Connect a partner, then promote it once more: that proves it."]
        return Next(what=f"It is in use{left}, and was never proven.", tone=Tone.WARN, steps=steps)
    if credential.kind == Kind.SECRET:
        steps = [
            "A person who reads a client secret can use it anywhere. Replace it by a managed identity or a certificate."
        ]
        return Next(what=f"It is in use{left}.", tone=Tone.WARN, steps=steps)
    return Next(what=f"It is in use{left}.", tone=Tone.GOOD, steps=["Nothing has to be done now."])


def used_by(credential: Any) -> Sequence[str]:
    """Say which processes use it. Runs one query for the one in use."""
    if State(credential.state) != State.CURRENT:
        return ["No process. Only a promotion tries it, with the token of one partner."]
    lines = [
        "Every process of this deployment: web, workers and commands.",
        "Each looks before each redemption which credential is current, so a change reaches all of them.",
        _USES[Kind(credential.kind)],
    ]
    working = [str(one) for one in Executor.objects.living()[:10]]
    return [*lines, f"At work on a run now: {', '.join(working)}."] if working else lines
