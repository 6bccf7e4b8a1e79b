"""An admin of its own over Django's tables, so that the bases are tested without the apps above them."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.urls import include, path

from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin, ReadOnlyInline
from portal.site.display import Tone, badge, guid, moment
from portal.site.sites import PortalAdminSite

site = PortalAdminSite()


class EntryInline(ReadOnlyInline[LogEntry, User]):
    model = LogEntry
    fields = ["action_time", "object_repr"]


@admin.register(User, site=site)
class UserPage(UserAdmin, PortalModelAdmin[User]):  # type: ignore[type-arg]  # not subscriptable at run time
    inlines = [EntryInline]


@admin.register(Group, site=site)
class GroupPage(GroupAdmin, PortalModelAdmin[Group]):
    export_fields = ["name"]
    link_lookups = ["user__id__exact"]
    actions = ["rename"]

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return True

    @admin.action(description="Rename the selected %(verbose_name_plural)s")
    def rename(self, request: HttpRequest, queryset: QuerySet[Group]) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="rename",
            title="Rename",
            explanation="Each name gets an exclamation mark.",
            button="Rename",
        ):
            return answer
        for group in queryset:
            group.name += "!"
            group.save()
        return None


@admin.register(LogEntry, site=site)
class EntryPage(PortalModelAdmin[LogEntry]):
    list_display = ["object_repr", "user", "shown_flag", "shown_id", "shown_time"]
    list_filter = ["action_flag", "action_time", "user"]
    search_fields = ["object_repr", "=object_id"]
    date_hierarchy = "action_time"
    export_fields = ["object_repr", "user__username", "action_time"]
    fields = ["user", "content_type", "object_id", "object_repr", "action_flag", "action_time"]
    readonly_fields = ["action_time"]

    @admin.display(ordering="action_flag", description="Flag")
    def shown_flag(self, entry: LogEntry) -> str:
        return badge(entry.get_action_flag_display(), Tone.GOOD)

    @admin.display(ordering="object_id", description="Object id")
    def shown_id(self, entry: LogEntry) -> str:
        return guid(entry.object_id, label="object id")

    @admin.display(ordering="action_time", description="Time")
    def shown_time(self, entry: LogEntry) -> str:
        return moment(entry.action_time)


class MirroredPage(ReadOnlyAdmin[Group]):
    """Not registered: only its permissions are asked."""


urlpatterns = [path("admin/", include("portal.staff.urls")), path("admin/", site.urls)]
