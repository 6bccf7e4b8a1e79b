from django.contrib import admin

from portal.audit.models import AuditEvent
from portal.site.admin import ReadOnlyAdmin


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin[AuditEvent]):
    """Read only, like the table itself."""

    icon = "history"
    list_display = ["sequence", "at", "actor_kind", "actor", "action", "outcome", "subject", "correlation_id"]
    list_filter = ["outcome", "actor_kind", "action"]
    search_fields = ["=correlation_id", "=actor", "=action"]
    fields = [
        "sequence",
        "at",
        "actor_kind",
        "actor",
        "address",
        "action",
        "outcome",
        "subject",
        "details",
        "correlation_id",
    ]
