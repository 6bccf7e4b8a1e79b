from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest

from portal.audit.models import AuditEvent
from portal.site.admin import PortalChangeList, PortalModelAdmin, ReadOnlyAdmin
from portal.site.display import EMPTY, links
from portal.site.subjects import facts, facts_of, lines, parse_about


class AboutFilter(admin.SimpleListFilter):
    """Events about one thing; its page leads here, and nothing is offered where no thing is chosen."""

    title = "about"
    parameter_name = "about"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get(self.parameter_name, "")
        about = parse_about(chosen)
        return [] if about is None else [(chosen, " ".join(text for text, _ in facts(dict([about]))))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        about = parse_about(self.value())
        return queryset if about is None else queryset.filter(**{f"subject__{about[0]}": about[1]})


class AuditChangeList(PortalChangeList):
    """A page of events with the names of what they are about, which are looked up for all of them at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        for event, about in zip(self.result_list, facts_of([one.subject for one in self.result_list]), strict=True):
            event.lines = about


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin[AuditEvent]):
    """Read only, like the table itself."""

    empty_text = "What staff, partners and the portal itself do is written here."
    list_display = ["sequence", "at", "actor_kind", "actor", "action", "outcome", "about", "correlation_id"]
    list_filter = [AboutFilter, "outcome", "actor_kind", "action"]
    export_fields = [
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
    search_fields = ["=correlation_id", "=actor", "=action"]
    fields = [
        "sequence",
        "at",
        "actor_kind",
        "actor",
        "address",
        "action",
        "outcome",
        "about",
        "more",
        "correlation_id",
    ]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AuditChangeList

    @admin.display(description="About")
    def about(self, event: Any) -> str:
        lines = event.lines if hasattr(event, "lines") else facts(event.subject)
        return links(lines) if lines else EMPTY

    @admin.display(description="Details")
    def more(self, event: AuditEvent) -> str:
        return links(lines(event.details)) if event.details else EMPTY


# Django registers these two with "delete selected" and a delete page; here a person who acted is never removed (S-54).
admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class StaffAdmin(UserAdmin, PortalModelAdmin[User]):  # type: ignore[type-arg]  # not subscriptable at run time
    readonly_fields = ["last_login", "date_joined"]
    export_fields = ["username", "first_name", "last_name", "email", "is_active", "is_superuser", "last_login"]
    filter_horizontal = ["user_permissions"]
    ticked = ["groups"]


@admin.register(Group)
class RoleAdmin(GroupAdmin, PortalModelAdmin[Group]):
    empty_text = "A group gives its permissions to each of its members."
    export_fields = ["name"]
