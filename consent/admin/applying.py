"""Applying a plan from its page: what will happen, and a second question before anything is taken away."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from consent.admin.wanted import CHANGING, Action, figures_of, items_address
from consent.customers import plans
from consent.models import ConsentPlan
from consent.runs.apply_plan import RESUMABLE, STOP_SHARE, WAVES, removes_from, start_apply
from consent.two_persons import APPLY, applying_of
from portal.decisions.asking import WhyForm, ask_second_person, what_comes_next
from portal.runs import tasks
from portal.site.admin import PortalModelAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.proof import demand

_SURE = "apply_plan_for_sure"
_LONGEST = 10  # waves
_NAMED = 20  # customers


class ApplyForm(forms.Form):
    """How carefully to go."""

    waves = forms.CharField(
        max_length=100,
        initial=", ".join(map(str, WAVES)),
        label="Customers of the first waves",
        help_text="The last wave is all who are left. Each begins when the one before has ended well.",
    )
    stop_percent = forms.IntegerField(
        min_value=0,
        max_value=100,
        initial=round(STOP_SHARE * 100),
        label="Stop when more than this percentage of a wave fails",
    )

    def clean_waves(self) -> tuple[int, ...]:
        words = self.cleaned_data["waves"].replace(",", " ").split()
        if len(words) > _LONGEST or not all(word.isdecimal() and 0 < int(word) <= 100_000 for word in words):
            raise ValidationError("Type numbers of customers, for example 1, 5, 25")
        return tuple(map(int, words))


class ApplyOrResetForm(ApplyForm):
    """The same for a plan with customers that only DELETE and POST can bring there."""

    reset = forms.BooleanField(
        required=False,
        label="Also the customers that need DELETE and POST",
        help_text=(
            "Each loses all our grants until they are created again, within seconds as a rule. When that fails, the "
            "grants from before are put back; when that fails too, the run stops and an incident says what is missing."
        ),
    )


class SureForm(ApplyOrResetForm):
    """What was chosen, carried through the second question."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.widget = forms.HiddenInput()


class SureAndWhyForm(SureForm):
    """The same, and the reason for the second person who decides."""

    why = WhyForm.base_fields["why"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["why"].widget = WhyForm.base_fields["why"].widget


def apply_page(page: PortalModelAdmin[ConsentPlan], request: HttpRequest, plan: ConsentPlan) -> HttpResponseBase:
    """Ask, ask again where something is taken away, start the run, and show it."""
    own = ConsentPlan.objects.filter(pk=plan.pk)
    two = _needs_two(plan)
    if two and (answer := demand(request)):
        return answer
    if request.POST.get("action") == _SURE:
        sure = SureAndWhyForm if two else SureForm
        form: ApplyForm | HttpResponseBase = ask(
            page, request, own, sure, None, action=_SURE, dangerous=True, **_second_question(plan, reset=True)
        )
        return _start(page, request, plan, form) if isinstance(form, ApplyForm) else _with_customers(form, plan)
    needs_reset = bool(plans.counts(plan)["needs_reset"])
    form = ask(
        page,
        request,
        own,
        ApplyOrResetForm if needs_reset else ApplyForm,
        None,
        action="apply_plan",
        title=f"Apply {plan}",
        explanation=_first_words(plan),
        button="Apply",
    )
    if not isinstance(form, ApplyForm):
        return _with_customers(form, plan)
    reset = bool(form.cleaned_data.get("reset"))
    if not reset and not plans.counts(plan)[Action.REMOVE]:
        return _start(page, request, plan, form)
    return _ask_again(page, request, plan, form, reset=reset)


def _first_words(plan: ConsentPlan) -> str:
    counts = plans.counts(plan)
    changes = [f"{counts[name]:,} {name}" for name in CHANGING if counts[name]]
    said = [
        f"Sends requests to Microsoft for {plan.registration}: {', '.join(changes) or 'nothing'}.",
        "Each tenant is looked at first; where it is not as the plan shows, the customer is held back.",
        "Afterwards each is read again, and only that read counts.",
    ]
    if counts["needs_reset"]:
        said.append("Those that need DELETE and POST are left alone unless you choose them here.")
    return " ".join([*said, *plans.moved(plan)])


def _second_question(plan: ConsentPlan, *, reset: bool) -> dict[str, Any]:
    counts = plans.counts(plan)
    said = []
    if number := counts[Action.REMOVE]:
        said.append(
            f"Our consent is removed from {number:,} customer tenants: the application is gone there, and "
            "what relies on it stops working."
        )
    if reset and counts["needs_reset"]:
        said.append(
            f"In {counts['needs_reset']:,} customer tenants all our grants are removed and created again. Between the "
            "two nothing of ours works there; if the second half fails, it stays so until the incident is solved."
        )
    if _needs_two(plan):
        said.append(what_comes_next())
    button = "Ask for it" if _needs_two(plan) else "Yes, apply it"
    return {"title": f"Apply {plan}: are you sure?", "explanation": " ".join(said), "button": button}


def _needs_two(plan: ConsentPlan) -> bool:
    """Whether two persons decide about it: a new run of it would take our consent from several customers (S-50)."""
    goes_on = plan.run is not None and plan.run.state in RESUMABLE
    return not goes_on and removes_from(plan) > 1


def _ask_again(
    page: PortalModelAdmin[ConsentPlan], request: HttpRequest, plan: ConsentPlan, form: ApplyForm, *, reset: bool
) -> HttpResponseBase:
    posted = request.POST.copy()
    del posted["_once"]  # spent: this is another question
    request.POST = posted  # type: ignore[assignment]  # a copy can be changed, and serves as well
    chosen = {name: form.data.get(name) for name in ("waves", "stop_percent")} | {"reset": reset}
    answer = page.confirm(
        request,
        ConsentPlan.objects.filter(pk=plan.pk),
        action=_SURE,
        dangerous=True,
        **_second_question(plan, reset=reset),
    )
    assert isinstance(answer, TemplateResponse)  # noqa: S101  # nothing was confirmed yet: it is the page
    sure = SureAndWhyForm if _needs_two(plan) else SureForm
    answer.context_data = {**(answer.context_data or {}), "form": sure(initial=chosen)}
    return _with_customers(answer, plan)


def _with_customers(answer: HttpResponseBase, plan: ConsentPlan) -> HttpResponseBase:
    """Let a page that asks count and name the customers it is about, and lead to them, instead of naming the plan."""
    if isinstance(answer, TemplateResponse):
        changing = plan.items.filter(action__in=CHANGING).select_related("customer").order_by("pk")
        number = changing.count()
        answer.template_name = "admin/consent/apply_plan.html"
        answer.context_data = {
            **(answer.context_data or {}),
            "figures": figures_of(plans.counts(plan), items_address(plan)),
            "customers": [f"{item.customer}: {item.get_action_display().lower()}" for item in changing[:_NAMED]],
            "hidden_customers": max(number - _NAMED, 0),
            "list_address": reverse("admin:consent_consentplan_change", args=[plan.pk]),
        }
    return answer


def _start(
    page: PortalModelAdmin[ConsentPlan], request: HttpRequest, plan: ConsentPlan, form: ApplyForm
) -> HttpResponseBase:
    given = form.cleaned_data
    back = HttpResponseRedirect(reverse("admin:consent_consentplan_change", args=[plan.pk]))
    if isinstance(form, SureAndWhyForm):
        parameters = applying_of(
            plan, reset=bool(given.get("reset")), waves=given["waves"], stop_share=given["stop_percent"] / 100
        )
        return ask_second_person(page, request, APPLY, parameters, given["why"]) or back
    try:
        run, new = start_apply(
            plan,
            actor=actor_of(request),
            reset=bool(given.get("reset")),
            waves=given["waves"],
            stop_share=given["stop_percent"] / 100,
        )
    except plans.PlanRefused as refused:
        page.message_user(request, str(refused), messages.ERROR)
        return back
    tasks.enqueue(run)
    page.message_user(request, f"Run {run.pk} applies it." if new else f"Run {run.pk} goes on with it.")
    if not request.user.has_perm("runs.view_run"):
        return back
    return HttpResponseRedirect(reverse("admin:runs_run_change", args=[run.pk]))
