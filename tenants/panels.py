"""How ready customers look."""

from __future__ import annotations

from portal.site.display import Tone
from tenants.models import CustomerTenant

READINESS_TONES = {
    CustomerTenant.Readiness.READY: Tone.GOOD,
    CustomerTenant.Readiness.UNVERIFIED: Tone.GOOD,
    CustomerTenant.Readiness.NOT_READY: Tone.WARN,
    CustomerTenant.Readiness.UNKNOWN: Tone.QUIET,
}
