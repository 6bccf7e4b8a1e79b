from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

import segno
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.cache import add_never_cache_headers

from consent.admin.asking import LINK_TONES, MAIL_SECONDS, MAILS_AT_ONCE, ProgressFilter, why
from consent.admin.panels import FLOW_TONES
from consent.admin.previews import preview_page
from consent.invitations import links, mails
from consent.models import ApplicationRegistration, ConsentFlow, ConsentLink
from consent.overview import UNOPENED_AFTER
from consent.words import PROBLEMS, Problem
from portal.mail import MailFailed, MailRefused, MailUnavailable, can_send, open_mailer
from portal.microsoft.secret import Secret
from portal.rights import limits_of
from portal.site.admin import PortalModelAdmin, ReadOnlyInline
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.declared import moment_column, needs, path_column
from portal.site.display import badge, with_link
from portal.site.list_filters import SinceFilter
from portal.site.sight import visible
from portal.text import number_in
from tenants.admin import search_by
from tenants.models import PartnerTenant

if TYPE_CHECKING:  # only the type checker can subscript a form
    _LinkForm = forms.ModelForm[ConsentLink]
else:
    _LinkForm = forms.ModelForm


MOST_OFFERED = 20  # partners of whom one is chosen
_LONGEST_TERM = 200
# Shown on the form for a new link, whose address the link is relative to.
_ANOTHER = with_link(
    "The link will work for this partner only:", "?", "choose another partner", "if it is not this one."
)


class MadeFilter(SinceFilter):
    """How long ago the link was made."""

    title = parameter_name = "made"
    column, span = "created_at", UNOPENED_AFTER
    words: ClassVar = {"old": f"More than {UNOPENED_AFTER.days} days ago", "new": f"Within {UNOPENED_AFTER.days} days"}


class ReadFilter(admin.SimpleListFilter):
    """What the partner read after the latest attempt."""

    title = "what the partner read"
    parameter_name = "problem"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, PROBLEMS[one].heading) for one in Problem]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(Q(last_problem=self.value())) if self.value() else queryset


def _days_field(**arguments: Any) -> forms.IntegerField:
    return forms.IntegerField(
        min_value=1,
        max_value=links.MAX_LIFETIME.days,
        initial=14,
        label="Days",
        **arguments,
    )


class ConsentLinkForm(_LinkForm):
    days = _days_field(help_text="How long the link works, at most 90 days.")
    send = forms.BooleanField(
        required=False,
        label="Send it by e-mail",
        help_text="To the contacts of the partner who get invitations. The link is shown to you as well.",
    )

    class Meta:
        model = ConsentLink
        fields = ["partner", "registration", "kind"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices: dict[str, Any] = self.fields
        if "partner" in choices:  # an existing link has no fields to choose
            key = number_in(str(self.data.get("partner") or self.initial.get("partner") or ""))
            choices["partner"].queryset = PartnerTenant.objects.active().filter(pk=key or 0)
            choices["partner"].empty_label = None
            choices["registration"].queryset = ApplicationRegistration.objects.filter(
                state=ApplicationRegistration.State.ACTIVE
            )

    def clean(self) -> None:
        super().clean()
        partner, registration = (self.cleaned_data.get(name) for name in ("partner", "registration"))
        if partner and registration:
            try:
                links.check(partner, registration)
            except links.LinkRefused as refused:
                self.add_error(None, str(refused))


class ExtendForm(forms.Form):
    days = _days_field(help_text="The links work for this many days from now, at most 90.")


class AttemptInline(ReadOnlyInline[ConsentFlow, ConsentLink]):
    """What was tried through the link, the latest first."""

    model = ConsentFlow
    verbose_name_plural = "attempts"
    fields = ["reference", "shown_outcome", "explained", "code", "started"]

    reference = path_column("reference", "Reference", sorts=False)

    @admin.display(description="Outcome")
    def shown_outcome(self, flow: ConsentFlow) -> str:
        return badge(flow.get_outcome_display(), FLOW_TONES[ConsentFlow.Outcome(flow.outcome)])

    @admin.display(description="What the partner read")
    def explained(self, flow: ConsentFlow) -> str:
        return why(flow.outcome, flow.problem)

    started = moment_column("created_at", "Started", sorts=False)


@admin.register(ConsentLink)
class ConsentLinkAdmin(PortalModelAdmin[ConsentLink]):
    """Links: made and shown once, followed, extended, sent again, revoked."""

    empty_text = "A link lets one partner consent. Make it on the partner's page."
    form = ConsentLinkForm
    export_fields = [
        "pk",
        "partner__name",
        "partner__tenant_id",
        "registration__name",
        "kind",
        "progress",
        "last_outcome",
        "last_problem",
        "last_attempt_at",
        "created_at",
        "expires_at",
        "closed_at",
        "revoked_at",
    ]
    list_display = ["number", "partner", "shown_progress", "latest", "created", "until", "registration"]
    list_filter = [ProgressFilter, ReadFilter, MadeFilter, "kind", "registration"]
    list_select_related = ["partner", "registration"]
    search_fields = search_by("partner")
    actions = ["send_again", "extend_links", "revoke_links"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConsentLink]:
        return self.visible_rows(request, ConsentLink.objects.with_progress().select_related("partner", "registration"))

    def has_change_permission(self, request: HttpRequest, obj: ConsentLink | None = None) -> bool:
        return False  # nothing of a link can be typed again

    def has_send_permission(self, request: HttpRequest) -> bool:
        return can_send() and request.user.has_perm("consent.send_consentlink")

    has_extend_permission = needs("consent.extend_consentlink")
    has_revoke_permission = needs("consent.revoke_consentlink")

    # --- list and detail ---

    @admin.display(ordering="pk", description="Link")
    def number(self, link: ConsentLink) -> str:
        return f"Link {link.pk}"

    @admin.display(description="Progress")
    def shown_progress(self, link: Any) -> str:
        progress = ConsentLink.Progress(link.progress)
        return badge(str(progress.label), LINK_TONES[progress])

    @admin.display(description="Latest attempt")
    def latest(self, link: Any) -> str:
        return why(link.last_outcome, link.last_problem)

    created = moment_column("created_at", "Made")
    until = moment_column("expires_at", "Works until")

    def get_inlines(self, request: HttpRequest, obj: ConsentLink | None = None) -> list[Any]:
        return [] if obj is None else [AttemptInline]

    def get_fields(self, request: HttpRequest, obj: ConsentLink | None = None) -> list[Any]:
        if obj is None:
            return ["partner", "registration", "kind", "days", *(["send"] if self.has_send_permission(request) else [])]
        return [
            "partner",
            "registration",
            "kind",
            "shown_progress",
            "latest",
            "created",
            "created_by",
            "until",
            "closed_at",
            "revoked_at",
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: ConsentLink | None = None) -> list[str]:
        return [] if obj is None else self.get_fields(request, obj)

    def get_form(
        self, request: HttpRequest, obj: ConsentLink | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is not None:
            return forms.modelform_factory(ConsentLink, fields=[])
        return super().get_form(request, obj, change=change, **kwargs)

    # --- the mail before it is sent ---

    def get_urls(self) -> list[URLPattern]:
        own = path("preview/", self.admin_site.admin_view(self.preview_view), name="consent_consentlink_preview")
        return [own, *super().get_urls()]

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Show the mail with which ``?partner=``, ``?registration=`` and ``?kind=`` would be invited."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        keys = {name: request.GET.get(name, "") for name in ("partner", "registration")}
        if not all(key.isascii() and key.isdecimal() and len(key) < 19 for key in keys.values()):
            raise Http404
        whole_tenant = request.GET.get("kind") == ConsentLink.Kind.ADMIN_CONSENT
        kind = ConsentLink.Kind.ADMIN_CONSENT if whole_tenant else ConsentLink.Kind.SIGN_IN
        return preview_page(
            self,
            request,
            get_object_or_404(self.visible_rows(request, PartnerTenant.objects.all()), pk=int(keys["partner"])),
            get_object_or_404(
                self.visible_rows(request, ApplicationRegistration.objects.all()), pk=int(keys["registration"])
            ),
            back=f"{reverse('admin:consent_consentlink_add')}?{urlencode(keys)}",
            kind=kind,
        )

    # --- make ---

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Show the form for one partner; an address that names none leads to a search first."""
        asked = request.POST if request.method == "POST" else request.GET
        key = number_in(asked.get("partner"))
        if key is None or self._is_hidden(request, key):
            return self._choose_partner(request)
        return super().add_view(request, form_url, extra_context)

    def _is_hidden(self, request: HttpRequest, key: int) -> bool:
        limits = limits_of(request.user)
        return limits is not None and not visible(PartnerTenant.objects.filter(pk=key), limits).exists()

    def _choose_partner(self, request: HttpRequest) -> HttpResponse:
        partners = self.admin_site.get_model_admin(PartnerTenant)
        if not self.has_add_permission(request) or not partners.has_view_permission(request):
            raise PermissionDenied
        term = request.GET.get("q", "")[:_LONGEST_TERM].strip()
        active = self.visible_rows(request, PartnerTenant.objects.active())
        found, _ = partners.get_search_results(request, active, term) if term else (active, False)
        kept = {name: request.GET[name] for name in ("registration", "kind") if name in request.GET}
        rows = list(found[: MOST_OFFERED + 1])
        context = {
            **self.admin_site.each_context(request),
            "title": "Which partner is the link for?",
            "opts": self.opts,
            "asked": term,
            "kept": kept,
            "found": [(one, f"?{urlencode({'partner': one.pk, **kept})}") for one in rows[:MOST_OFFERED]],
            "is_more": len(rows) > MOST_OFFERED,
        }
        return TemplateResponse(request, "admin/consent/choose_partner.html", context)

    def get_fieldsets(self, request: HttpRequest, obj: ConsentLink | None = None) -> Any:
        shown = super().get_fieldsets(request, obj)
        return shown if obj is not None else [(name, {**options, "description": _ANOTHER}) for name, options in shown]

    def save_model(self, request: HttpRequest, obj: ConsentLink, form: Any, change: bool) -> None:
        link, address = links.issue(
            obj.partner,
            obj.registration,
            actor=actor_of(request),
            created_by=request.user if request.user.is_authenticated else None,
            lifetime=timedelta(days=form.cleaned_data["days"]),
            kind=ConsentLink.Kind(obj.kind),
        )
        obj.__dict__.update(link.__dict__)
        wanted = self.has_send_permission(request) and bool(form.cleaned_data.get("send"))
        if wanted:
            mails.announce(link, actor=actor_of(request))
        request.issued = (link, address, wanted)  # type: ignore[attr-defined]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        active = list(
            ApplicationRegistration.objects.filter(state=ApplicationRegistration.State.ACTIVE).values_list(
                "pk", flat=True
            )[:2]
        )
        only = {"registration": active[0]} if len(active) == 1 else {}
        return {**only, **super().get_changeform_initial_data(request)}

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        # Whichever button is pressed, what comes next is the address.
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        try:
            response: HttpResponse = super().changeform_view(
                request, object_id, form_url, {**one_button, **(extra_context or {})}
            )
        except links.LinkRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
            return self.response_post_save_add(request, ConsentLink())
        if not hasattr(request, "issued"):
            return response
        # Here and not in response_add(): a mail server must not hold the transaction of the form open.
        return self._show_once(request, *request.issued)

    def _show_once(self, request: HttpRequest, link: ConsentLink, address: Secret, send: bool) -> HttpResponse:
        """Show the address, this once: only its hash is kept (S-01)."""
        problem = ""
        if send:
            try:
                mails.deliver_alone(link, address, actor=actor_of(request))
            except MailFailed as failed:
                problem = str(failed)
        response = TemplateResponse(
            request,
            "admin/consent/link_issued.html",
            {
                **self.admin_site.each_context(request),
                "title": "Consent link",
                "address": address.reveal(),
                "code": segno.make_qr(address.reveal(), error="m").svg_data_uri(border=4, light="#fff", omitsize=True),
                "link": link,
                "partner": link.partner,
                "sent_to": ", ".join(mails.addresses_of(link.partner)) if send and not problem else "",
                "problem": problem,
                "mail": mails.preview(link, address) if problem or not send else None,
                "opts": self.opts,
            },
        )
        add_never_cache_headers(response)
        return response

    # --- actions ---

    @admin.action(description="Send a new link by e-mail", permissions=["send"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[ConsentLink]) -> HttpResponseBase | None:
        if queryset.count() > MAILS_AT_ONCE:
            self.message_user(
                request, f"Select at most {MAILS_AT_ONCE}; a campaign is for more than that.", messages.ERROR
            )
            return None
        if answer := self.confirm(
            request,
            queryset,
            action="send_again",
            title="Send new links",
            explanation=(
                "The addresses of these links are not known any more: only a hash of them is kept. For each, a new "
                "link is made and sent to the partner's contacts, and the older one is revoked. A partner who is at "
                " Microsoft right now starts again with the new one."
            ),
            button="Send new links",
        ):
            return answer
        self._mail_all(request, queryset)
        return None

    def _mail_all(self, request: HttpRequest, queryset: QuerySet[ConsentLink]) -> None:
        until, sent = time.monotonic() + MAIL_SECONDS, 0
        person = request.user if request.user.is_authenticated else None
        try:
            with open_mailer() as mailer:
                for link in queryset:
                    if time.monotonic() > until:
                        self.message_user(request, "The mail server is slow; the rest was left as it is.", "warning")
                        break
                    try:
                        mails.send_again(link, mailer=mailer, actor=actor_of(request), created_by=person)
                    except (links.LinkRefused, MailRefused) as refused:
                        self.message_user(request, f"{link}: {refused}", messages.ERROR)
                    else:
                        sent += 1
        except MailUnavailable as unavailable:
            self.message_user(request, str(unavailable), messages.ERROR)
        self.message_user(request, f"{sent} sent.")

    @admin.action(description="Extend the selected links", permissions=["extend"])
    def extend_links(self, request: HttpRequest, queryset: QuerySet[ConsentLink]) -> HttpResponseBase | None:
        answer = ask(
            self,
            request,
            queryset,
            ExtendForm,
            None,
            action="extend_links",
            title="Extend links",
            explanation=(
                "Anyone who has the address of one of these links can use it until then, also if it had expired. Links "
                "that were revoked or used stay as they are."
            ),
            button="Extend",
        )
        if not isinstance(answer, ExtendForm):
            return answer
        lifetime, done = timedelta(days=answer.cleaned_data["days"]), 0
        for link in queryset:
            try:
                links.extend(link, lifetime=lifetime, actor=actor_of(request))
            except links.LinkRefused as refused:
                self.message_user(request, f"{link}: {refused}", messages.ERROR)
            else:
                done += 1
        self.message_user(request, f"{done} extended.")
        return None

    @admin.action(description="Revoke the selected links", permissions=["revoke"])
    def revoke_links(self, request: HttpRequest, queryset: QuerySet[ConsentLink]) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="revoke_links",
            title="Revoke links",
            explanation="These links stop working at once, also for a partner who is at Microsoft right now.",
            button="Revoke",
            dangerous=True,
        ):
            return answer
        revoked = sum(links.revoke(link, actor=actor_of(request)) for link in queryset)
        self.message_user(request, f"{revoked} revoked.")
        return None
