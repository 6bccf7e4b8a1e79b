from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from consent.admin.asking import MAIL_SECONDS, MAILS_AT_ONCE, PARTNER_TONES, ProgressFilter, who_acts, why
from consent.admin.previews import preview_page
from consent.invitations import campaigns
from consent.invitations.links import MAX_LIFETIME
from consent.models import ApplicationRegistration, Campaign, CampaignPartner
from consent.states import ACTIVE_STATES
from portal.fields import validate_name
from portal.mail import MailUnavailable, can_send, open_mailer
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.dashboard import Figure, Panel, Row
from portal.site.declared import moment_column, needs, path_column
from portal.site.display import Tone, badge
from portal.site.page_actions import page_action
from portal.text import number_are, number_of
from tenants.admin import search_by
from tenants.models import PartnerTag, PartnerTenant, PartnerTenantQuerySet

Progress = CampaignPartner.Progress


def _registration_field() -> forms.ModelChoiceField[ApplicationRegistration]:
    return forms.ModelChoiceField(
        ApplicationRegistration.objects.filter(state=ApplicationRegistration.State.ACTIVE),
        label="Application registration",
        empty_label=None,
    )


class ChooseForm(forms.Form):
    """Whom to invite."""

    registration = _registration_field()
    states = forms.MultipleChoiceField(
        choices=[(one.value, one.label) for one in ACTIVE_STATES],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        label="State",
        help_text="None chosen: all of them.",
    )
    tags = forms.ModelMultipleChoiceField(
        PartnerTag.objects.all(),
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="Partners with any of these; none chosen: all partners.",
    )
    token_days = forms.IntegerField(
        min_value=1,
        max_value=3650,
        required=False,
        label="Token older than (days)",
        help_text="Only partners whose token was stored longer ago than that. An unused token is dead after 90 days.",
    )

    lacking_permissions = forms.BooleanField(
        required=False,
        label="Lacks permissions",
        help_text="Only partners that granted less than the registration asks for now.",
    )

    permissions_unproven = forms.BooleanField(
        required=False,
        label="Permissions not proven",
        help_text=(
            "Only partners of whom no sign-in proved what they granted on a service that is asked for now, such as one "
            "that is new in the permission set. With the choice above: partners with either."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not PartnerTag.objects.exists():
            del self.fields["tags"]

    def partners(self) -> PartnerTenantQuerySet:
        """Return the partners that a valid form chooses."""
        days = self.cleaned_data["token_days"]
        return campaigns.matching(
            self.cleaned_data["registration"],
            states=self.cleaned_data["states"],
            tags=self.cleaned_data.get("tags", ()),
            token_older_than=timedelta(days=days) if days else None,
            lacking_permissions=self.cleaned_data["lacking_permissions"],
            permissions_unproven=self.cleaned_data["permissions_unproven"],
        )


class CampaignForm(forms.Form):
    """What a new campaign is about."""

    name = forms.CharField(
        max_length=100,
        validators=[validate_name],
        help_text="For staff; partners never read it.",
    )
    registration = _registration_field()
    reason = forms.ChoiceField(
        choices=Campaign.Reason.choices,
        help_text="A first invitation leaves out partners who are connected already.",
    )
    link_days = forms.IntegerField(
        min_value=1,
        max_value=MAX_LIFETIME.days,
        initial=14,
        label="Days that a link works",
    )


def _create(
    page: PortalModelAdmin[Any], request: HttpRequest, partners: QuerySet[PartnerTenant], action_name: str, initial: Any
) -> HttpResponseBase | None:
    """Ask what the campaign is about, make it, and show it."""
    answer = ask(
        page,
        request,
        partners,
        CampaignForm,
        initial,
        action=action_name,
        title="New campaign",
        explanation="Nothing is sent yet: the campaign's page shows whom it invites, and has the button that sends.",
        button="Create the campaign",
    )
    if not isinstance(answer, CampaignForm):
        return answer
    given = answer.cleaned_data
    try:
        created = campaigns.create(
            name=given["name"],
            registration=given["registration"],
            reason=Campaign.Reason(given["reason"]),
            partners=PartnerTenant.objects.filter(pk__in=partners.values("pk")),
            link_days=given["link_days"],
            actor=actor_of(request),
            created_by=request.user if request.user.is_authenticated else None,
        )
    except campaigns.CampaignRefused as refused:
        page.message_user(request, str(refused), messages.ERROR)
        return HttpResponseRedirect(reverse("admin:consent_campaign_changelist"))
    text = f"{number_are(created.invited, 'partner')} in the campaign."
    if created.left_out:
        were = "was" if created.left_out == 1 else "were"
        text += f" {created.left_out} {were} left out: disabled, of another cloud, or connected already."
    page.message_user(request, text)
    return HttpResponseRedirect(reverse("admin:consent_campaign_change", args=[created.campaign.pk]))


@admin.action(description="Invite the selected partners in a campaign", permissions=["invite"])
def invite_in_campaign(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Make a campaign for partners of the partners' list."""
    return _create(page, request, queryset, "invite_in_campaign", None)


@admin.register(Campaign)
class CampaignAdmin(PortalModelAdmin[Campaign]):
    """Campaigns: choose partners, send, watch, remind, close."""

    empty_text = "A campaign invites many partners at once, each with a link of its own."
    export_fields = [
        "name",
        "registration__name",
        "reason",
        "invited_count",
        "sent_count",
        "connected_count",
        "created_at",
        "closed_at",
    ]
    list_display = ["name", "shown_state", "reason", "invited", "sent", "connected", "created", "registration"]
    list_filter = [("closed_at", admin.EmptyFieldListFilter), "reason", "registration"]
    list_select_related = ["registration"]
    search_fields = ["name"]
    fields = ["number", "name", "registration", "reason", "link_days", "created", "created_by", "closed_at"]
    readonly_fields = ["number", "created", "closed_at"]
    actions_detail = ["preview_mail", "send_invitations", "send_reminders", "close_campaign"]
    change_form_outer_before_template = "admin/consent/panel.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Campaign]:
        return self.visible_rows(request, Campaign.objects.with_counts().select_related("registration"))

    def has_change_permission(self, request: HttpRequest, obj: Campaign | None = None) -> bool:
        return False  # whom it invited, and why, stays as it was

    has_send_permission = needs("consent.send_campaign")
    has_close_permission = needs("consent.close_campaign")
    number = path_column("pk", "Number", sorts=False)

    @admin.display(description="State")
    def shown_state(self, campaign: Campaign) -> str:
        return badge("Closed", Tone.QUIET) if campaign.closed_at else badge("Open", Tone.BUSY)

    invited = path_column("invited_count", "Invited")
    sent = path_column("sent_count", "Sent")
    connected = path_column("connected_count", "Connected")
    created = moment_column("created_at", "Made")

    # --- make ---

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Choose by registration, state, tags and age of the token; the next page names the partners."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ChooseForm(request.GET or None)
        chosen = self.visible_rows(request, form.partners()) if form.is_valid() else None
        if request.method == "POST" and chosen is not None:
            if "_once" in request.POST:  # the rows of the page, whatever the filter matches by now
                keys = [key for key in request.POST.getlist(ACTION_CHECKBOX_NAME) if key.isdecimal()]
                chosen = self.visible_rows(request, PartnerTenant.objects.filter(pk__in=keys))
            initial = {"registration": form.cleaned_data["registration"]}
            if form.cleaned_data["lacking_permissions"] or form.cleaned_data["permissions_unproven"]:
                initial["reason"] = Campaign.Reason.NEW_SCOPE
            answer = _create(self, request, chosen, "add_view", initial)
            if isinstance(answer, HttpResponse):
                return answer
        context = {
            **self.admin_site.each_context(request),
            "title": "Invite partners in a campaign",
            "form": form,
            "number": None if chosen is None else chosen.count(),
            "opts": self.opts,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/consent/campaign_choose.html", context)

    # --- one campaign ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        campaign = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown = {} if campaign is None else {"panel": _panel(campaign), "export_address": _partners_address(campaign)}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    def _campaign(self, request: HttpRequest, object_id: str) -> Campaign:
        campaign = self.get_object(request, object_id)
        if campaign is None:
            raise Http404
        return campaign

    @page_action(description="Preview the mail", url_path="preview", permissions=["view", "send"])
    def preview_mail(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        campaign = self._campaign(request, object_id)
        back = reverse("admin:consent_campaign_change", args=[campaign.pk])
        first = campaign.partners.select_related("partner").order_by("pk").first()
        if first is None:
            self.message_user(request, "The campaign has no partners.", "warning")
            return HttpResponseRedirect(back)
        return preview_page(
            self,
            request,
            first.partner,
            campaign.registration,
            back=back,
            lifetime=timedelta(days=campaign.link_days),
            reason=Campaign.Reason(campaign.reason),
        )

    @page_action(
        description="Send invitations",
        url_path="send",
        permissions=["view", "send"],
    )
    def send_invitations(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        campaign = self._campaign(request, object_id)
        due = campaigns.to_send(campaign)
        return self._mail(request, campaign, due, campaigns.send, "send_invitations", is_reminder=False)

    @page_action(
        description="Remind",
        url_path="remind",
        permissions=["view", "send"],
    )
    def send_reminders(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        campaign = self._campaign(request, object_id)
        due = campaigns.to_remind(campaign)
        return self._mail(request, campaign, due, campaigns.remind, "send_reminders", is_reminder=True)

    def _mail(
        self,
        request: HttpRequest,
        campaign: Campaign,
        due: QuerySet[CampaignPartner],
        run: Callable[..., Iterator[campaigns.Mailing]],
        name: str,
        *,
        is_reminder: bool,
    ) -> HttpResponseBase:
        back = HttpResponseRedirect(reverse("admin:consent_campaign_change", args=[campaign.pk]))
        number = due.count()
        if "_once" not in request.POST and (refusal := self._refusal(campaign, number, reminder=is_reminder)):
            self.message_user(request, refusal, "warning")
            return back
        now = list(due.values_list("pk", flat=True)[:MAILS_AT_ONCE])
        explanation = (
            "Each partner gets a mail with a new link, and the link of the mail before is revoked."
            if is_reminder
            else "Each partner gets a mail with a link of its own, to its contacts who get invitations."
        )
        if number > MAILS_AT_ONCE:
            explanation += (
                f" Due: {number}; this page sends the first {MAILS_AT_ONCE}. For the rest press the button again."
            )
        if answer := self.confirm(
            request,
            CampaignPartner.objects.filter(pk__in=now).select_related("partner"),  # type: ignore[arg-type]
            action=name,
            title=f"{'Remind' if is_reminder else 'Send invitations'}: {campaign.name}",
            explanation=explanation,
            button="Send reminders" if is_reminder else "Send invitations",
        ):
            return answer
        only = [int(key) for key in request.POST.getlist(ACTION_CHECKBOX_NAME)[:MAILS_AT_ONCE] if key.isdecimal()]
        sent = failed = 0
        try:
            with open_mailer() as mailer:
                until = time.monotonic() + MAIL_SECONDS
                for done in run(campaign, mailer=mailer, actor=actor_of(request), only=only, until=until):
                    sent += done.problem is None
                    failed += done.problem is not None
        except (campaigns.CampaignRefused, MailUnavailable) as stopped:
            self.message_user(request, str(stopped), messages.ERROR)
        if failed:
            self.message_user(request, f"{failed} could not be mailed; the list of partners says why.", "warning")
        if left := len(only) - sent - failed:
            self.message_user(request, f"{left} {'was' if left == 1 else 'were'} left for the next time.", "warning")
        self.message_user(request, f"{sent} sent.")
        return back

    def _refusal(self, campaign: Campaign, number: int, *, reminder: bool) -> str:
        if campaign.closed_at:
            return "The campaign is closed."
        if not can_send():
            return "This portal has no mail server; set EMAIL_HOST. Until then make links one by one and copy them."
        if number:
            return ""
        days = campaigns.QUIET_FOR.days
        return (
            f"No partner is due: all are done, or were mailed within the last {days} days."
            if reminder
            else "All were sent."
        )

    @page_action(
        description="Close the campaign",
        url_path="close",
        permissions=["view", "close"],
        dangerous=True,
    )
    def close_campaign(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        campaign = self._campaign(request, object_id)
        if answer := self.confirm(
            request,
            Campaign.objects.filter(pk=campaign.pk),
            action="close_campaign",
            title="Close the campaign",
            explanation=(
                "No more mails are sent, and the links of partners who are not done are revoked at once. The figures "
                "stay. A closed campaign is not opened again."
            ),
            button="Close",
            dangerous=True,
        ):
            return answer
        revoked = campaigns.close(campaign, actor=actor_of(request))
        self.message_user(
            request,
            "It was closed before."
            if revoked is None
            else f"Closed; {number_of(revoked, 'link')} {'was' if revoked == 1 else 'were'} revoked.",
        )
        return HttpResponseRedirect(reverse("admin:consent_campaign_change", args=[campaign.pk]))


def _partners_address(campaign: Campaign) -> str:
    return f"{reverse('admin:consent_campaignpartner_changelist')}?campaign__id__exact={campaign.pk}"


def _panel(campaign: Campaign) -> Panel:
    """The funnel, and below it what kept partners from finishing; one query."""
    funnel, address = campaigns.funnel(campaign), _partners_address(campaign)
    figures = [Figure(label="Invited", value=funnel.invited, link=address)]
    for progress, number in funnel.by_progress.items():
        if number or progress not in {Progress.SEND_FAILED, Progress.INTERRUPTED}:
            link = f"{address}&progress={progress.value}"
            figures.append(Figure(label=str(progress.label), value=number, tone=PARTNER_TONES[progress], link=link))
    return Panel(
        title=f"{funnel.sent} of {funnel.invited} mailed, {funnel.by_progress[Progress.CONNECTED]} connected",
        figures=figures,
        rows=[
            Row(
                label=f"{number} × {why(outcome, problem)}",
                detail=f"Who acts: {who_acts(problem)}" if problem else "",
                link=f"{address}&progress={(Progress.FAILED if problem else Progress.MFA_MISSING).value}",
                tone=Tone.BAD,
            )
            for outcome, problem, number in funnel.by_problem
        ],
    )


@admin.register(CampaignPartner)
class CampaignPartnerAdmin(ReadOnlyAdmin[CampaignPartner]):
    """Who was invited, and how far each of them came."""

    export_fields = [
        "campaign__name",
        "campaign__registration__name",
        "partner__name",
        "partner__tenant_id",
        "progress",
        "last_outcome",
        "last_problem",
        "last_attempt_at",
        "sent_at",
        "reminded_at",
        "last_send_problem",
    ]
    list_display = ["partner", "shown_progress", "latest", "mailed", "reminded", "mail_problem", "campaign"]
    list_filter = [ProgressFilter, "last_send_problem", "campaign", "campaign__registration"]
    list_select_related = ["partner", "campaign"]
    search_fields = search_by("partner")
    fields = ["campaign", "partner", "link", "shown_progress", "latest", "mailed", "reminded", "mail_problem"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[CampaignPartner]:
        rows = CampaignPartner.objects.with_progress().select_related("partner", "campaign", "link__partner")
        return self.visible_rows(request, rows)

    @admin.display(description="Progress")
    def shown_progress(self, item: Any) -> str:
        progress = Progress(item.progress)
        return badge(str(progress.label), PARTNER_TONES[progress])

    @admin.display(description="Latest attempt")
    def latest(self, item: Any) -> str:
        said = why(item.last_outcome, item.last_problem)
        # Who is connected stays so, whatever came of another attempt.
        return f"Another attempt: {said}" if item.progress == Progress.CONNECTED and item.last_problem else said

    mailed = moment_column("sent_at", "Sent")
    reminded = moment_column("reminded_at", "Reminded")

    @admin.display(ordering="last_send_problem", description="Problem with the mail")
    def mail_problem(self, item: CampaignPartner) -> str:
        return item.get_last_send_problem_display()
