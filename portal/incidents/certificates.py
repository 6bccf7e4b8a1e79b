"""Incidents about certificates of hosts that this process refused."""

from __future__ import annotations

import logging

from django.db import DatabaseError

from portal.incidents.models import Incident
from portal.incidents.service import report, settle
from portal.microsoft.certificates import certificates
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import Unreachable

log = logging.getLogger(__name__)

CERTIFICATE_REFUSED = "certificate_refused"


def watch_certificates() -> None:
    """Report each host whose certificate this process refused since the last call, and settle those that are well.

    Call it at the end of a piece of work, outside a transaction. It never fails: what the work itself says comes first.
    One query when no certificate was refused, none when no host was asked.
    """
    refused, accepted = certificates.take()
    try:
        for host, why in refused.items():
            diagnosis = diagnose(Unreachable("", "", code=why, host=host))
            report(
                CERTIFICATE_REFUSED,
                about=f"host:{host}"[:100],
                name=host,
                owner=Owner.US,
                words=f"{diagnosis.cause} {diagnosis.remedy} Nothing was sent there; no partner's state was changed.",
            )
        if accepted:
            for about in Incident.objects.open().filter(cause=CERTIFICATE_REFUSED).values_list("about", flat=True):
                if about.removeprefix("host:") in accepted:
                    settle(CERTIFICATE_REFUSED, about=about)
    except DatabaseError as error:
        log.warning("what was seen of certificates was not recorded: %s", type(error).__name__)
