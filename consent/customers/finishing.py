"""Write that items are done: what their last reads showed, and that nothing of them is lacking any more.

``applying`` changes nothing more when a read shows that an item is done, so the run writes many of them together, in
the transaction of their results. Until then each of them stands as sent: a process that goes on after a crash looks
again, and finds it done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from django.utils import timezone

from consent.customers.applying import GRANTS_LOST, Applied, about
from consent.customers.observations import write as write_readings
from consent.models import ConsentPlanItem, CustomerConsent
from portal.audit.trail import Actor
from portal.incidents.service import settle_all


def finish(done: Sequence[Applied], *, actor: Actor) -> list[Applied]:
    """Write these items, whose ``reading`` was not written yet; few statements for any number. In a transaction.

    Returns:
        The same in their order, with the rows of their consents as they are now and the observations.
    """
    if not done:
        return []
    observed = write_readings([one.reading for one in done if one.reading is not None], actor=actor)
    settle_all(GRANTS_LOST, about=[about(one.item) for one in done])
    now = timezone.now()
    alike: dict[str, list[int]] = {}
    for one in done:
        one.item.finished_at = now
        alike.setdefault(one.item.message, []).append(one.item.pk)
    for message, keys in alike.items():
        items = ConsentPlanItem.objects.filter(pk__in=keys)
        items.update(result=ConsentPlanItem.Result.DONE, message=message, owner="", finished_at=now)
    rows = {key: seen.consent for key, seen in observed.items()}
    # A later read of the same tenant was written before: then the row says what that one showed.
    later = {one.reading.consent_id for one in done if one.reading is not None} - rows.keys()
    rows |= {row.pk: row for row in CustomerConsent.objects.filter(pk__in=later)} if later else {}
    return [
        replace(one, consent=rows.get(one.reading.consent_id), seen=observed.get(one.reading.consent_id), reading=None)
        if one.reading is not None
        else one
        for one in done
    ]
