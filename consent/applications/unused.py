"""Credentials that were made here and never put to use: staff are told of them, and in the end they are retired.

Each is an enabled secret or key in the vault that nobody needs, and may be known at Microsoft as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from consent import alarms
from consent.alarms import Cause
from consent.applications.rotation import RotationRefused, retire
from consent.models import ApplicationCredential
from consent.vault.base import OUR_KEY_NAME, OUR_NAME, Vault, VaultKeys
from portal.audit.trail import Actor
from portal.microsoft.errors import RemoteError, WrongSetup

log = logging.getLogger(__name__)

TOLD_AFTER = timedelta(days=60)
RETIRED_AFTER = timedelta(days=90)


def retire_unused(*, vault: Vault, keys: Callable[[], VaultKeys], actor: Actor) -> int:
    """Report what is unused for 60 days, retire what is unused for 90; return how many were retired.

    What somebody else keeps in the vault, and managed identities, stay: nothing of theirs is ours to switch off. A
    vault that refuses ends nothing: the row is retired, and ``consent.tokens.reconcile`` switches off what is left.

    Args:
        keys: opens the vault's keys; called for a credential that is one of them.
    """
    now, retired = timezone.now(), 0
    waiting = ApplicationCredential.objects.unused().filter(created_at__lt=now - TOLD_AFTER)
    for credential in waiting.select_related("registration").order_by("pk"):
        if not (OUR_NAME.fullmatch(credential.secret_name) or OUR_KEY_NAME.fullmatch(credential.secret_name)):
            continue
        end = credential.created_at + RETIRED_AFTER
        if end > now:
            alarms.report(Cause.CREDENTIAL_UNUSED, credential, end=f"{end:%Y-%m-%d}")
            continue
        try:
            retire(credential, vault=vault, keys=keys, actor=actor)
        except RotationRefused:
            continue  # promoted or retired by somebody at this moment
        except (RemoteError, WrongSetup) as error:
            log.warning("an unused credential was retired, and the vault did not switch it off: %s", error)
        alarms.settle([Cause.CREDENTIAL_UNUSED], [credential.pk])
        retired += 1
    return retired
