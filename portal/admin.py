from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from portal.audit.models import AuditEvent
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin


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


# Django registers these two with "delete selected" and a delete page; here nobody removes a person who acted (S-54).
admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class StaffAdmin(UserAdmin, PortalModelAdmin[User]):  # type: ignore[type-arg]  # not subscriptable at run time
    icon = "person"
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class RoleAdmin(GroupAdmin, PortalModelAdmin[Group]):
    icon = "groups"
