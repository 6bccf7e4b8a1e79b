"""What a partner's page knows of a partner, as the page reads it."""

from __future__ import annotations

from consent.hub.facts import PartnerFacts
from consent.states import with_state
from tenants.models import PartnerTenant


def facts_of(partner: PartnerTenant) -> PartnerFacts:
    """Return the facts of a partner as it stands in the database now."""
    return PartnerFacts(with_state(PartnerTenant.objects.filter(pk=partner.pk)).get())


def read_all(facts: PartnerFacts) -> None:
    """Read each part, as a page would that shows them all."""
    for name, part in vars(PartnerFacts).items():
        if hasattr(part, "__get__") and not name.startswith("_"):
            getattr(facts, name)
