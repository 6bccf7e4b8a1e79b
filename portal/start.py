"""A process that takes work notes with which settings it was started (S-55)."""

from __future__ import annotations

import hmac
import json
import logging
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError

from portal.audit.models import AuditEvent
from portal.audit.trail import SYSTEM, is_genuine, record
from portal.microsoft.secret import Secret
from portal.starting import Start

log = logging.getLogger(__name__)

IN_FORCE = "settings.in_force"  # the action of the entry


def digests() -> dict[str, str]:
    """Return each setting of the deployment by name with a short keyed digest, from which no value can be guessed."""
    of_deployment: Any = settings  # the type knows the settings alone, and not what they can be asked
    key = hmac.digest(settings.INTEGRITY_KEY.encode(), b"settings in force", "sha256")
    return {
        name: hmac.digest(key, _text(getattr(settings, name), key).encode(), "sha256").hex()[:12]
        for name in sorted(dir(settings))
        if name.isupper() and of_deployment.is_overridden(name)
    }


def _text(value: Any, key: bytes) -> str:
    return json.dumps(value, sort_keys=True, default=partial(_plain, key))


def _plain(key: bytes, value: Any) -> Any:
    if isinstance(value, Secret):
        return value.fingerprint(key)
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Path):
        return str(value)
    return getattr(value, "__qualname__", type(value).__name__)  # a function; its own text names an address in memory


def note_settings() -> None:
    """Write one entry: which settings are others than at the start before, and their digests if there are any."""
    now = digests()
    try:
        before: dict[str, str] = next(
            (
                event.details["digests"]
                for event in AuditEvent.objects.filter(action=IN_FORCE, details__digests__isnull=False)[:1]
                if is_genuine(event)
            ),
            {},
        )
        changed = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
        details = {
            "program": Path(sys.argv[0]).name,
            "host": socket.gethostname(),
            "process": os.getpid(),
            **({"changed": changed, "digests": now} if changed else {}),
        }
        record(IN_FORCE, actor=SYSTEM, subject={}, details=details)
    except DatabaseError as error:
        log.warning("the settings in force are not in the audit trail (%s)", type(error).__name__)


START = Start(checks=(note_settings,))
