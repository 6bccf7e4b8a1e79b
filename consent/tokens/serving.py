"""Whether a partner's token can serve the partner's customers, as its row says. The words are those of next_steps."""

from __future__ import annotations

from datetime import datetime

from consent.models import PartnerConsent
from consent.tokens.next_steps import NEW_LINK, Step, next_step
from portal.microsoft.diagnosis import Owner

State = PartnerConsent.State
NEVER = Step(Owner.PARTNER, f"The partner never connected this application. {NEW_LINK}")


def why_not(consent: PartnerConsent | None, now: datetime) -> Step | None:
    """Return why nothing can be done with this token and who must act; None while the last check found it well.

    Whether the partner is disabled or being offboarded is asked with the customer (``customers.check_customer``).

    Note: this reads partner and registration of the consent; load them.
    """
    if consent is None or consent.generation == 0:
        return NEVER
    if consent.state == State.CONNECTED and not consent.last_problem:
        return None
    step = next_step(consent, now)
    if step.owner is None:  # without a better token nothing works
        step = Step(Owner.PARTNER, NEW_LINK)
    label = "" if consent.state == State.CONNECTED else f"{consent.get_state_display()}. "
    return Step(step.owner, f"The partner's token cannot serve its customers. {label}{step.text}")
