"""Bases of every admin page: nothing is deleted by the way, nothing undeclared can be asked, lists stay cheap."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from django.contrib import messages
from django.contrib.admin import ModelAdmin, ShowFacets, StackedInline, helpers, widgets
from django.contrib.admin.options import IS_POPUP_VAR, ActionLocation
from django.contrib.admin.utils import label_for_field, quote
from django.contrib.admin.views.main import ChangeList
from django.core import signing
from django.core.exceptions import FieldDoesNotExist, PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import connections, models
from django.db.models import Model, Q, QuerySet
from django.forms import CheckboxSelectMultiple, Media, TypedChoiceField
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.utils.text import capfirst, smart_split
from django.views.decorators.http import require_POST

from portal.audit.trail import Actor, record
from portal.microsoft.clouds import CLOUD_CHOICES, GERMANY_IS_CLOSED, UnknownCloud, get_cloud
from portal.microsoft.identifiers import canonical_guid, guids_from
from portal.models import SpentForm
from portal.rights import limits_of, require
from portal.search_text import MOST_WORDS, RowByRow, SearchTextField, few_keys, unquoted
from portal.site.addresses import client_address
from portal.site.display import tick
from portal.site.export import EXPORTS, FileKind, file_response, heading, in_words
from portal.site.extension_points import dangerous
from portal.site.list_filters import FEW_ROWS, NAMED, with_keys
from portal.site.page_actions import PageAction
from portal.site.preferences import (
    SHARE,
    Refused,
    choose_columns,
    columns_of,
    filters_of,
    forget_filter,
    keep_filter,
    query_of,
)
from portal.site.proof import demand
from portal.site.sight import visible
from portal.site.subjects import subject_of

if TYPE_CHECKING:

    class _ModelAdmin[M: Model](ModelAdmin[M]):
        pass

    class _Inline[C: Model, P: Model](StackedInline[C, P]):
        pass

else:  # neither can be subscripted at run time

    class _ModelAdmin[M](ModelAdmin):
        pass

    class _Inline[C, P](StackedInline):
        pass


EXPORT_LIMIT = 100_000  # rows; more is a job for a command, not for a page
MOST_LISTED = 2_000  # rows that a list counts and pages through
CONFIRM_LIMIT = 2_000  # rows named in one confirmation, below DATA_UPLOAD_MAX_NUMBER_FIELDS
MANY = 20  # rows from which on a dangerous action asks for their number
_SHOWN_ROWS = 100
_FEW_RELATED = 2_000  # rows of a small table, whose keys are looked for
_FORM_LIFETIME = 3600  # seconds between seeing a confirmation and pressing its button
_LONGEST_NUMBER = 19  # digits
_GUID_LENGTH = 36  # characters
EXPORT = "portal_site.export_list"
_SEE_TRAIL = "audit.view_auditevent"
_SCRIPTS = ("core", "actions")  # what works without jQuery; the rest is in site/admin.js
_SALT = "portal.site.confirm"
_DATE_LOOKUPS = ("gte", "gt", "lte", "lt", "year", "month", "day")


def actor_of(request: HttpRequest) -> Actor:
    """Return the signed-in person with their rights, for services and the audit trail."""
    person = request.user
    return Actor.staff(
        person.get_username(),
        client_address(request),
        may=person.has_perm,
        is_superuser=bool(person.is_superuser),
        limits=lambda: limits_of(person),
    )


class CloudChoice(TypedChoiceField):
    """The choice of a national cloud: says why one cannot be chosen, and not only that."""

    def validate(self, value: Any) -> None:
        if value:
            try:
                get_cloud(value)
            except UnknownCloud as reason:
                raise ValidationError(str(reason), code="unknown_cloud") from None
        super().validate(value)


class PortalChangeList(ChangeList):
    """A list that costs the same for any number of rows.

    A forgotten ``list_select_related`` is an error at once, not a query a row. Rows are counted up to ``MOST_LISTED``;
    what lies behind is found by a search, a filter or another order.
    """

    def get_results(self, request: HttpRequest) -> None:
        """Find rows by keys: search, filters and order are worked out once, joins and columns for the shown rows."""
        keys = list(self.queryset.values_list("pk", flat=True)[: MOST_LISTED + 1])
        self.has_more = len(keys) > MOST_LISTED
        self.result_count = min(len(keys), MOST_LISTED)
        self.multi_page = self.result_count > self.list_per_page
        self.can_show_all = self.result_count <= self.list_max_show_all
        self.paginator = Paginator(range(self.result_count), self.list_per_page)
        self.page_num = min(max(1, self.page_num), self.paginator.num_pages)  # an address may be older than the rows
        if self.multi_page and not (self.show_all and self.can_show_all):
            first = (self.page_num - 1) * self.list_per_page
            keys = keys[first : first + self.list_per_page]
        rows = self.apply_select_related(self.root_queryset).fetch_mode(models.FETCH_RAISE).order_by()
        found = {row.pk: row for row in rows.filter(pk__in=keys)} if keys else {}
        self.result_list = [found[key] for key in keys if key in found]
        self.show_admin_actions, self.show_full_result_count, self.full_result_count = True, False, None
        # Django would resolve the address of each row to see whether it may carry the filters.
        self._kept_filters, self.preserved_filters = self.preserved_filters, ""

    def get_ordering_field(self, field_name: Any) -> Any:
        """Return what a column is sorted by; an address sorts by no column that offers no sorting."""
        if self.sortable_by is not None and field_name not in self.sortable_by:
            return None
        return super().get_ordering_field(field_name)

    def url_for_result(self, result: Model) -> str:
        """Return the address of a row's page, which leads back to the list as it is filtered."""
        address: str = super().url_for_result(result)
        return f"{address}?{self._kept_filters}" if self._kept_filters else address

    @property
    def number(self) -> str:
        """How many rows there are, in words."""
        return f"{self.result_count:,}{'+' if self.has_more else ''}"


class PortalModelAdmin[M: Model](_ModelAdmin[M]):
    """Base of all admin classes.

    Attributes:
        export_fields: columns of the exported files, as for ``values_list``; empty means there is no export.
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
        export_needs_proof: each exported file asks for a fresh proof, and not only one of everything.
        change_form_outer_before_template: what stands above the fields of a row's page.
    """

    export_fields: Sequence[str] = ()
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
    export_needs_proof = False
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

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Who may export: who has the right to it and may view, unless a class is stricter."""
        return request.user.has_perm(EXPORT) and self.has_view_permission(request)

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

    def _field(self, path: str) -> Any:
        options: Any = self.opts
        field: Any = None
        for part in path.split("__"):
            try:
                field = options.get_field(part)
            except FieldDoesNotExist:
                return None
            if field.is_relation and field.related_model is not None:
                options = field.related_model._meta
        return field

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

    # --- search ---

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[M], search_term: str
    ) -> tuple[QuerySet[M], bool]:
        """Find rows in which every word stands, each in any of ``search_fields``, in any case of any script.

        A search text (``SearchTextField``) must hold all words alone. A GUID is looked for only in the fields that
        begin with ``=``, whole or from its first eight characters on, so that an index answers. A field with ``^`` must
        begin with the word. Words in quotes are one word.
        """
        names = [str(name) for name in self.get_search_fields(request)]
        term = unicodedata.normalize("NFC", search_term).strip()
        if not names or not term:
            return queryset, False
        exact = [name[1:] for name in names if name.startswith("=")]
        if exact and (whole := canonical_guid(term)):
            return queryset.filter(_any_of(Q((name, whole)) for name in exact if self._is_text(name))), False
        words = [unquoted(word) for word in smart_split(term)]
        if "\0" in term or len(words) > MOST_WORDS:
            return queryset.none(), False
        vendor = connections[queryset.db].vendor
        texts = [name for name in names if isinstance(self._field(name), SearchTextField)]
        others = [name for name in names if name not in texts]
        row_by_row = self.lists_few(request)
        found = [Q((f"{name}__finds", RowByRow(term))) if row_by_row else self._by_text(name, term) for name in texts]
        by_word = [_any_of(self._finds(name, word, vendor) for name in others) for word in words]
        return queryset.filter(_any_of([*found, Q(*by_word)])), False

    def lists_few(self, request: HttpRequest) -> bool:
        """Tell whether a filter leaves so few rows that it takes longer to ask all others for their keys first."""
        return False

    def _by_text(self, name: str, term: str) -> Q:
        """Say how a search text is looked for: few rows by their keys, also those that belong to few others.

        Of a table of many rows, words of one or two characters alone find the texts that begin with them.
        """
        field, relation = self._field(name), name.rpartition("__")[0]
        keys = few_keys(field, term, FEW_ROWS if field.indexed else _FEW_RELATED)
        if keys is None:
            return Q((f"{name}__finds", RowByRow(term)))
        if not relation:
            return with_keys(keys)
        rows = self.model._default_manager.order_by().filter(with_keys(keys, relation))
        mine = list(rows.values_list("pk", flat=True)[: FEW_ROWS + 1])
        return with_keys(mine) if len(mine) <= FEW_ROWS else with_keys(keys, relation)

    def _finds(self, name: str, word: str, vendor: str) -> Iterator[Q]:
        """Say how a word is looked for in one search field."""
        if name.startswith("^"):
            yield Q((f"{name[1:]}__istartswith", word))
            return
        if not name.startswith("="):
            # SQLite's LIKE ignores the case of ASCII letters only.
            as_pattern = vendor == "sqlite" and not word.isascii()
            yield Q((f"{name}__iregex", re.escape(word)) if as_pattern else (f"{name}__icontains", word))
            return
        name = name[1:]
        if not self._is_text(name):
            if word.isascii() and word.isdecimal() and len(word) < _LONGEST_NUMBER:
                yield Q((name, int(word)))
        elif limits := guids_from(word):
            yield Q((f"{name}__range", limits))
        elif not self._is_identifier(name):
            yield Q((f"{name}__iexact", word))

    def _is_text(self, name: str) -> bool:
        return isinstance(self._field(name), models.CharField | models.TextField)

    def _is_identifier(self, name: str) -> bool:
        field = self._field(name)
        return hasattr(field, "parser") or field.max_length == _GUID_LENGTH

    # --- filters and columns that a person keeps ---

    def offered_columns(self, request: HttpRequest) -> list[str]:
        """Return the columns that a person may choose from."""
        return [str(name) for name in super().get_list_display(request)]

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns of the list that this person wants to see; asked for once in a request."""
        kept: dict[str, list[str]] = request.__dict__.setdefault("_chosen_columns", {})
        if self.opts.label_lower not in kept:
            kept[self.opts.label_lower] = columns_of(self, request.user, self.offered_columns(request))  # type: ignore[arg-type]
        return kept[self.opts.label_lower]

    def _kept(self, request: HttpRequest) -> dict[str, Any]:
        """Return what the menus of filters and columns show; the filters are asked for where they are shown."""
        person: Any = request.user
        shown = self.get_list_display(request)
        _, *columns = self.offered_columns(request)
        return {
            "list_address": self._list_address(),
            "saved_filters": SimpleLazyObject(lambda: list(filters_of(self, person))),
            "may_share": person.has_perm(SHARE),
            "asked": query_of(request),
            "columns": [
                (name, capfirst(str(label_for_field(name, self.model, model_admin=self))), name in shown)
                for name in columns
            ],
        }

    @method_decorator(require_POST)
    def keep_filter(self, request: HttpRequest) -> HttpResponse:
        """Keep the search and filters that the list shows under a name."""
        person: Any = request.user
        name, asked = request.POST.get("name", ""), request.POST.get("query", "")
        try:
            row = keep_filter(
                self, request, person, name=name, query=asked, shared="shared" in request.POST, actor=actor_of(request)
            )
        except Refused as reason:
            self.message_user(request, str(reason), messages.ERROR)
            return self._back_to_list(asked)
        self.message_user(request, f"The filter “{row.name}” is saved.", messages.SUCCESS)
        return self._back_to_list(row.query)

    @method_decorator(require_POST)
    def remove_filter(self, request: HttpRequest) -> HttpResponse:
        """Remove a filter of one's own."""
        person: Any = request.user
        key = request.POST.get("filter", "")
        number = int(key) if key.isascii() and key.isdecimal() and len(key) < _LONGEST_NUMBER else 0
        if forget_filter(person, number, actor=actor_of(request)):
            self.message_user(request, "The filter is removed.", messages.SUCCESS)
        else:
            self.message_user(request, "You have no such filter.", messages.ERROR)
        return self._back_to_list(request.POST.get("query", ""))

    @method_decorator(require_POST)
    def choose_columns(self, request: HttpRequest) -> HttpResponse:
        """Keep which columns the list shows to this person."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        person: Any = request.user
        first, *_ = offered = self.offered_columns(request)
        try:
            choose_columns(self, person, offered, [first, *request.POST.getlist("column")])
        except Refused as reason:
            self.message_user(request, str(reason), messages.ERROR)
        return self._back_to_list(request.POST.get("query", ""))

    def _back_to_list(self, query: str) -> HttpResponse:
        return HttpResponseRedirect(f"{self._list_address()}?{urlencode(parse_qsl(query))}".rstrip("?"))

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

    # --- export (S-64) ---

    def export_csv(self, request: HttpRequest, queryset: QuerySet[M]) -> HttpResponseBase | None:
        """Stream ``export_fields`` of the selected rows, or of all that match the filters."""
        return self._export(request, queryset, FileKind.CSV)

    export_csv.short_description = "Export as CSV"  # type: ignore[attr-defined]
    export_csv.allowed_permissions = ("export",)  # type: ignore[attr-defined]

    def export_xlsx(self, request: HttpRequest, queryset: QuerySet[M]) -> HttpResponseBase | None:
        """Do the same as a workbook."""
        return self._export(request, queryset, FileKind.XLSX)

    export_xlsx.short_description = "Export as Excel workbook"  # type: ignore[attr-defined]
    export_xlsx.allowed_permissions = ("export",)  # type: ignore[attr-defined]

    def for_export(self, queryset: QuerySet[M]) -> QuerySet[M]:
        """Return the rows with what ``export_fields`` names and the list does not show."""
        return queryset

    def _export(self, request: HttpRequest, queryset: QuerySet[M], kind: FileKind) -> HttpResponseBase | None:
        require(actor_of(request), EXPORT)
        count = queryset.count()
        if count > EXPORT_LIMIT:
            self.message_user(
                request, f"{count:,} rows are too many for one file; filter to {EXPORT_LIMIT:,}.", messages.ERROR
            )
            return None
        everything = request.POST.get("select_across") == "1"
        if (everything or self.export_needs_proof) and (answer := demand(request)):
            return answer
        record(
            "list.exported",
            actor=actor_of(request),
            subject={"list": self.opts.label_lower},
            details={"rows": count, "columns": list(self.export_fields)},
        )
        exported = self.for_export(queryset)
        rows = in_words(exported, self.export_fields)
        header = [heading(self.model, path) for path in self.export_fields]
        return file_response(kind, f"{self.opts.app_label}-{self.opts.model_name}", header, rows)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        exportable = bool(self.export_fields) and self.has_export_permission(request)
        context: dict[str, Any] = {"can_export": exportable}
        if IS_POPUP_VAR not in request.GET:
            context["title"] = capfirst(self.opts.verbose_name_plural)  # nothing is selected here
            context |= self._kept(request)
        return super().changelist_view(request, context | (extra_context or {}))

    # --- confirmations (S-54) ---

    def confirm(
        self,
        request: HttpRequest,
        queryset: QuerySet[M],
        *,
        action: str,
        title: str,
        explanation: str,
        button: str,
        dangerous: bool = False,
        counts: Mapping[str, int] | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> HttpResponseBase | None:
        """Return the page that names what an action will touch, or None once its button was pressed.

        Works in a list action and in one of ``actions_detail``. The rows of the page are the rows that the
        button sends, whatever the filters match by then. Each page runs once: a second press returns to the list with
        a message. Use it as ``if answer := self.confirm(...): return answer``.

        Args:
            action: name of the method; binds the button to this action and person.
            explanation: what will happen, in a sentence or two.
            dangerous: the button is red; for many rows their number has to be typed.
            counts: how many of what will be touched are in which state, in words.
            left_out: how many chosen ones are left out, by the reason.
        """
        if request.method == "POST" and "_once" in request.POST and not self._mistyped(request, dangerous):
            if self._spend(request, action):
                return None
            self.message_user(
                request, "This was already done, or the page was too old. Nothing was repeated.", "warning"
            )
            return HttpResponseRedirect(request.get_full_path() if "action" in request.POST else self._list_address())
        keys = list(queryset.values_list("pk", flat=True)[: CONFIRM_LIMIT + 1])
        if len(keys) > CONFIRM_LIMIT:
            self.message_user(request, f"Select at most {CONFIRM_LIMIT:,} rows.", messages.ERROR)
            return HttpResponseRedirect(self._list_address())
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "explanation": explanation,
            "button": button,
            "dangerous": dangerous,
            "action": action,
            "keys": keys,
            "shown": queryset.filter(pk__in=keys[:_SHOWN_ROWS]),
            "hidden_count": max(len(keys) - _SHOWN_ROWS, 0),
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "once": signing.dumps([secrets.token_hex(16), action, request.user.pk], salt=_SALT),
            "opts": self.opts,
            "list_address": self._list_address(),
            "counts": counts or {},
            "left_out": left_out or {},
            "word": str(len(keys)) if dangerous and len(keys) >= MANY else "",
            "media": self.media,
        }
        return TemplateResponse(request, "admin/confirm_action.html", context)

    def _mistyped(self, request: HttpRequest, dangerous: bool) -> bool:
        """Tell whether a number had to be typed and was not; then the page is shown again."""
        number = len(request.POST.getlist(helpers.ACTION_CHECKBOX_NAME))
        if not dangerous or number < MANY or request.POST.get("_word", "").strip() == str(number):
            return False
        self.message_user(request, f"Type {number} to go on. Nothing was done.", messages.ERROR)
        return True

    def _spend(self, request: HttpRequest, action: str) -> bool:
        try:
            number, named, person = signing.loads(request.POST["_once"], salt=_SALT, max_age=_FORM_LIFETIME)
        except (signing.BadSignature, ValueError):
            return False
        if (named, person) != (action, request.user.pk):
            return False
        return SpentForm.objects.spend(number, seconds=_FORM_LIFETIME)

    def _list_address(self) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")


def _any_of(conditions: Iterable[Q | Iterator[Q]]) -> Q:
    """Join conditions with "or"; without any, nothing is found."""
    joined = Q()
    for one in conditions:
        for condition in [one] if isinstance(one, Q) else one:
            joined |= condition
    return joined or Q(pk__in=[])


def _audited(value: Any) -> Any:
    """Return the value of a form's field as the trail keeps it: rows by their names."""
    if isinstance(value, QuerySet | list | tuple):
        return sorted(str(one) for one in value)
    return value if value is None or isinstance(value, bool | int) else str(value)


class PortalInline[C: Model, P: Model](_Inline[C, P]):
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
