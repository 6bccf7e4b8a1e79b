"""Find a partner's tenant id by a domain, for staff to confirm: the id is fixed before any link exists (S-04)."""

from __future__ import annotations

from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from consent import clients
from consent.microsoft.entra import FoundTenant, find_tenant
from consent.words.failures import explain
from portal.microsoft.errors import RemoteError
from portal.microsoft.http import time_budget
from portal.microsoft.identifiers import InvalidIdentifier, new_correlation_id, parse_domain
from tenants.models import PartnerTenant

_SECONDS = 20.0


class DomainForm(forms.Form):
    domain = forms.CharField(
        max_length=253,
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "contoso.onmicrosoft.com"}),
    )

    def clean_domain(self) -> str:
        try:
            return parse_domain(self.cleaned_data["domain"])
        except InvalidIdentifier as error:
            raise forms.ValidationError(str(error)) from None


def find(request: HttpRequest) -> HttpResponse:
    """Ask the clouds' sign-in hosts which tenant has a domain, and offer to add it. Changes nothing."""
    if not request.user.has_perm("tenants.add_partnertenant"):
        raise PermissionDenied
    form = DomainForm(request.POST or None)
    found: FoundTenant | None = None
    problem, known, add_url = "", None, ""
    if request.method == "POST" and form.is_valid():
        domain = form.cleaned_data["domain"]
        try:
            with time_budget(_SECONDS):
                found = find_tenant(clients.session(), clients.clouds(), domain, new_correlation_id())
        except RemoteError as error:
            problem = explain(error)
        else:
            if found is None:
                problem = "No tenant of any cloud has this domain. Ask the partner for the tenant id itself."
            else:
                known = PartnerTenant.objects.filter(tenant_id=found.tenant_id).first()
                asked = {"tenant_id": found.tenant_id, "cloud": found.cloud.key, "domain": domain}
                add_url = f"{reverse('admin:tenants_partnertenant_add')}?{urlencode(asked)}"
    context = {
        **admin.site.each_context(request),
        "title": "Find a tenant by domain",
        "form": form,
        "found": found,
        "known": known,
        "problem": problem,
        "add_url": add_url,
        "opts": PartnerTenant._meta,
    }
    return TemplateResponse(request, "admin/consent/find_tenant.html", context)
