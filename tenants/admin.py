from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest

from portal.audit.trail import Actor, record
from portal.addresses import client_address
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant


@admin.register(PartnerTag)
class PartnerTagAdmin(PortalModelAdmin):
    list_display = ["name"]
    search_fields = ["name"]
