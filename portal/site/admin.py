"""Base of every admin page: nothing is deleted by the way, nothing undeclared can be asked, lists stay cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin import ShowFacets, helpers, widgets
from django.contrib.admin.options import IS_POPUP_VAR, ActionLocation
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.db.models import Model, QuerySet
from django.forms import CheckboxSelectMultiple, Media, TypedChoiceField
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.text import capfirst

from portal.audit.trail import record
from portal.microsoft.clouds import CLOUD_CHOICES, GERMANY_IS_CLOSED, UnknownCloud, get_cloud
from portal.rights import limits_of, require
from portal.site.base import InlineBase, actor_of
from portal.site.change_list import PortalChangeList
from portal.site.confirming import Confirming
from portal.site.display import tick
from portal.site.export import EXPORTS
from portal.site.exporting import Exporting
from portal.site.extension_points import dangerous
from portal.site.keeping import Keeping
from portal.site.list_filters import NAMED
from portal.site.page_actions import PageAction
from portal.site.proof import demand
from portal.site.searching import Searching
from portal.site.sight import visible
from portal.site.subjects import subject_of

_SEE_TRAIL = "audit.view_auditevent"
_SCRIPTS = ("core", "actions")  # what works without jQuery; the rest is in site/admin.js
_DATE_LOOKUPS = ("gte", "gt", "lte", "lt", "year", "month", "day")


class CloudChoice(TypedChoiceField):
    """The choice of a national cloud: says why one cannot be chosen, and not only that."""

    def validate(self, value: Any) -> None:
        if value:
            try:
                get_cloud(value)
            except UnknownCloud as reason:
                raise ValidationError(str(reason), code="unknown_cloud") from None
        super().validate(value)


class PortalModelAdmin[M: Model](Searching[M], Keeping[M], Exporting[M], Confirming[M]):
    """Base of all admin classes.

    Attributes:
        link_lookups: query parameters that our own links to this list use and that are no filter,
            for example ``partner__id__exact``.
        audit_word: what a row is called in the audit trail; ``partner`` writes ``partner.created`` and
            ``partner.changed``. Every class whose form saves by itself has one.
        audit_without_values: columns of which the trail says only that they changed: free text and what is personal,
            which the trail would keep for ever (S-68, S-70).
        actions_detail: names of methods with ``page_action``: the buttons of a row's page.
        empty_text: what an empty list says: what belongs there, how to begin.
        ticked: relations to few rows, such as tags, which are ticked and not picked from a list.
        keeps_form: what its form sends holds no secret, and is kept while a fresh proof is asked for.
        change_form_outer_before_template: what stands above the fields of a row's page.
    """

    link_lookups: Sequence[str] = ()
    audit_word = ""
    audit_without_values: Sequence[str] = ()

    list_per_page = 50
    list_max_show_all = 50
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    actions_detail: Sequence[str] = ()
    ticked: Sequence[str] = ()
    keeps_form = True
    empty_text = ""
    change_form_outer_before_template = ""

    # --- a team sees its partners (S-48) ---

    def get_queryset(self, request: HttpRequest) -> QuerySet[M]:
        """Return the rows that this person may see: of them the list, the pages, the actions and the files are made."""
        return self.visible_rows(request, super().get_queryset(request))

    def visible_rows[Rows: QuerySet[Any]](self, request: HttpRequest, rows: Rows) -> Rows:
        """Return those of these rows, of any model, that this person may see."""
        return visible(rows, limits_of(request.user))

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return super().formfield_for_foreignkey(db_field, request, **self._offered(db_field, request, kwargs))

    def _offered(self, db_field: Any, request: HttpRequest, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Let a form offer only what the person may see."""
        if (limits := limits_of(request.user)) is not None:
            rows = kwargs.get("queryset")
            rows = db_field.remote_field.model._default_manager.all() if rows is None else rows
            kwargs["queryset"] = visible(rows, limits)
        return kwargs

    # --- nothing is deleted by the way (S-54) ---

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    def get_actions(self, request: HttpRequest, action_location: ActionLocation = ActionLocation.CHANGE_LIST) -> Any:
        actions = super().get_actions(request, action_location=action_location)
        actions.pop("delete_selected", None)
        wanted = self.export_fields and action_location == ActionLocation.CHANGE_LIST
        if wanted and IS_POPUP_VAR not in request.GET and self.has_export_permission(request):
            for name in sorted(EXPORTS):
                if (action := self.get_action(name, action_location)) is not None:
                    actions[name] = action
        return actions

    # --- buttons on the page of one row ---

    def buttons(self, request: HttpRequest, row: M) -> list[PageAction]:
        """Return the buttons of ``actions_detail`` that this person may press."""
        declared = [getattr(self, name).button for name in self.actions_detail]
        return [button for button in declared if button.allowed(self, request)]

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        own = [
            path(
                f"<path:object_id>/{view.button.route}/",
                self.admin_site.admin_view(view),
                name=f"{name}_{view.button.name}",
            )
            for view in (getattr(self, name) for name in self.actions_detail)
        ]
        kept = [
            path("filters/keep/", self.admin_site.admin_view(self.keep_filter), name=f"{name}_keep_filter"),
            path("filters/remove/", self.admin_site.admin_view(self.remove_filter), name=f"{name}_remove_filter"),
            path("columns/", self.admin_site.admin_view(self.choose_columns), name=f"{name}_choose_columns"),
        ]
        return [*kept, *own, *super().get_urls()]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: M | None = None,
    ) -> HttpResponse:
        if obj is not None:
            name = f"admin:{self.opts.app_label}_{self.opts.model_name}"
            context["buttons"] = [
                (button, reverse(f"{name}_{button.name}", args=[quote(obj.pk)]))
                for button in self.buttons(request, obj)
            ]
        return super().render_change_form(request, context, add, change, form_url, obj)

    # --- what was edited can be put back from the trail (S-55) ---

    def audit_subject(self, obj: M) -> dict[str, str | int]:
        """Return the ids under which the trail knows this row."""
        return {self.audit_word: obj.pk}

    def save_model(self, request: HttpRequest, obj: M, form: Any, change: bool) -> None:
        right = f"{self.opts.app_label}.{'change' if change else 'add'}_{self.opts.model_name}"
        require(actor_of(request), right)
        super().save_model(request, obj, form, change)
        if self.audit_word and (form.changed_data or not change):
            record(
                f"{self.audit_word}.{'changed' if change else 'created'}",
                actor=actor_of(request),
                subject=self.audit_subject(obj),
                details=self._edited(form, change),
            )

    def _edited(self, form: Any, change: bool) -> dict[str, Any]:
        """Return what a form changes, as values before and after; of a new row all that was typed."""
        names = sorted(form.changed_data if change else form.cleaned_data)
        silent = [name for name in names if name in self.audit_without_values and name in form.changed_data]
        kept = [name for name in names if name not in self.audit_without_values]
        details: dict[str, Any] = {"after": {name: _audited(form.cleaned_data[name]) for name in kept}}
        if change:
            details["before"] = {name: _audited(form.initial.get(name)) for name in kept}
        return details | ({"also_changed": silent} if silent else {})

    # --- nothing undeclared can be asked (S-35) ---

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Allow the parameters that the declared filters produce, and no other.

        Django allows any lookup on any local column, which reads a hidden column letter by letter.
        """
        if lookup in self.link_lookups or self._is_limit_of_a_popup(lookup, value):
            return True
        names: list[Any] = [self.date_hierarchy] if self.date_hierarchy else []
        for entry in self.get_list_filter(request):
            if isinstance(entry, str):
                names.append(entry)
            elif isinstance(entry, list | tuple):
                names.append(entry[0])
            elif lookup == getattr(entry, "parameter_name", None):
                return True
        return any(lookup in self._lookups_of(name) for name in names)

    def _is_limit_of_a_popup(self, lookup: str, value: Any) -> bool:
        for limit in self.model._meta.related_fkey_lookups:
            choices = limit() if callable(limit) else limit
            if (lookup, value) in widgets.url_params_from_lookup_dict(choices).items():
                return True
        return False

    def _lookups_of(self, path: str) -> set[str]:
        lookups = {path, f"{path}__exact", f"{path}__in", f"{path}__isnull", f"{path}__isempty"}
        field = self._field(path)
        if isinstance(field, models.DateField):
            lookups |= {f"{path}__{name}" for name in _DATE_LOOKUPS}
        target = getattr(field, "target_field", None) or getattr(field, "foreign_related_fields", [None])[0]
        if field is not None and field.is_relation:
            lookups.add(f"{path}__{NAMED}")
            keys = {"id", "pk", getattr(target, "name", "id")}
            lookups |= {f"{path}__{key}{end}" for key in keys for end in ("", "__exact", "__in")}
        return lookups

    # --- what happened to one row ---

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Lead to the audit trail's events about this row; of what the trail does not name, show Django's log."""
        name = subject_of(self.model)
        if not name:
            return super().history_view(request, object_id, extra_context)
        row = self.get_object(request, object_id)
        if row is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined]
            return missing
        if not self.has_view_or_change_permission(request, row) or not request.user.has_perm(_SEE_TRAIL):
            raise PermissionDenied
        return HttpResponseRedirect(f"{reverse('admin:audit_auditevent_changelist')}?about={name}:{row.pk}")

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if answer := self.demand_proof(request, object_id):
            return answer
        context = dict(extra_context or {})
        seen = request.user.has_perm(_SEE_TRAIL) if subject_of(self.model) else self.has_change_permission(request)
        if not seen:
            context["show_history"] = False  # it would lead nowhere
        return super().changeform_view(request, object_id, form_url, context)

    # --- forms ---

    def demand_proof(self, request: HttpRequest, object_id: str | None) -> HttpResponse | None:
        """Return what leads to a fresh proof when this form is sent without one and its permission is dangerous."""
        word = "add" if object_id is None else "change"
        needed = f"{self.opts.app_label}.{word}_{self.opts.model_name}"
        if request.method != "POST" or needed not in dangerous() or not request.user.has_perm(needed):
            return None
        return demand(request, keep=self.keeps_form)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer no window that adds or changes a related row: that row has a page, and windows need jQuery."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and isinstance(field.widget, widgets.RelatedFieldWidgetWrapper):
            field.widget.can_add_related = field.widget.can_change_related = False
            field.widget.can_delete_related = field.widget.can_view_related = False
        return field

    @property
    def media(self) -> Media:
        """Return those of Django's scripts that pages here need; none of them needs jQuery."""
        return Media(js=[f"admin/js/{name}.js" for name in _SCRIPTS])

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.ticked:
            kwargs["widget"] = CheckboxSelectMultiple
        return super().formfield_for_manytomany(db_field, request, **self._offered(db_field, request, kwargs))

    def formfield_for_choice_field(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.choices == CLOUD_CHOICES:
            kwargs |= {"choices_form_class": CloudChoice, "help_text": GERMANY_IS_CLOSED}
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    # --- lists stay cheap ---

    def action_checkbox(self, obj: M) -> Any:
        """Return the box in front of a row. Django renders templates for each, a fifth of the time of a page."""
        return tick(helpers.ACTION_CHECKBOX_NAME, str(obj.pk), f"Select this object for an action - {obj}")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PortalChangeList

    def get_list_select_related(self, request: HttpRequest) -> bool | list[str] | tuple[str, ...]:
        """Follow the foreign keys that the list shows, also nullable ones, which Django leaves out."""
        declared = super().get_list_select_related(request)
        if declared:
            return declared
        shown = [self._field(name) for name in self.get_list_display(request) if isinstance(name, str)]
        return [field.name for field in shown if field is not None and (field.many_to_one or field.one_to_one)] or False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        exportable = bool(self.export_fields) and self.has_export_permission(request)
        context: dict[str, Any] = {"can_export": exportable}
        if IS_POPUP_VAR not in request.GET:
            context["title"] = capfirst(self.opts.verbose_name_plural)  # nothing is selected here
            context |= self._kept(request)
        return super().changelist_view(request, context | (extra_context or {}))


def _audited(value: Any) -> Any:
    """Return the value of a form's field as the trail keeps it: rows by their names."""
    if isinstance(value, QuerySet | list | tuple):
        return sorted(str(one) for one in value)
    return value if value is None or isinstance(value, bool | int) else str(value)


class PortalInline[C: Model, P: Model](InlineBase[C, P]):
    """Rows on the page of what they belong to; each field has its label, which those of a table lack."""

    @property
    def media(self) -> Media:
        return Media()  # site/admin.js adds rows


class ReadOnlyAdmin[M: Model](PortalModelAdmin[M]):
    """Rows that belong to somebody else: mirrored from Microsoft, or written by services only."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False


class ReadOnlyInline[C: Model, P: Model](PortalInline[C, P]):
    """Such rows on the page of what they belong to."""

    template = "admin/edit_inline/read_only.html"
    extra = 0
    can_delete = False
    show_change_link = True

    def get_readonly_fields(self, request: HttpRequest, obj: P | None = None) -> Any:
        # Also times that fill themselves, which no form accepts as fields.
        return self.fields or super().get_readonly_fields(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: P | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: P | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: P | None = None) -> bool:
        return False
