"""A confirmation with fields to fill."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse

from portal.site.admin import PortalModelAdmin


class TypedWord(forms.CharField):
    """A word that is typed before something dangerous is done."""

    def __init__(self, word: str) -> None:
        self._word = word
        super().__init__(
            label=f"Type {word} to go on", max_length=40, widget=forms.TextInput(attrs={"autocomplete": "off"})
        )

    def validate(self, value: Any) -> None:
        super().validate(value)
        if str(value).strip().lower() != self._word:
            raise forms.ValidationError(f"Type {self._word} to go on. Nothing was done.")


def ask[M: Model, F: forms.Form](
    page: PortalModelAdmin[M], request: HttpRequest, queryset: QuerySet[Any], form: type[F], initial: Any, **words: Any
) -> HttpResponseBase | F:
    """Confirm as ``PortalModelAdmin.confirm`` does, with fields to fill; return the page, or the valid form.

    What is filled in wrongly is asked again; nothing is spent by it.
    """
    filled = form(request.POST, request.FILES) if "_once" in request.POST else form(initial=initial)
    if filled.is_bound and not filled.is_valid():
        posted = request.POST.copy()
        del posted["_once"]
        request.POST = posted  # type: ignore[assignment]  # a copy can be changed, and serves as well
    answer = page.confirm(request, queryset, **words)
    if answer is None:
        return filled
    if isinstance(answer, TemplateResponse):
        answer.template_name = "admin/confirm_form.html"
        answer.context_data = {**(answer.context_data or {}), "form": filled}
    return answer
