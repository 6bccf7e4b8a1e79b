"""What the parts of an admin page stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin import ModelAdmin, StackedInline
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse

from portal.audit.trail import Actor
from portal.rights import limits_of
from portal.site.addresses import client_address

if TYPE_CHECKING:

    class ModelAdminBase[M: Model](ModelAdmin[M]):
        pass

    class InlineBase[C: Model, P: Model](StackedInline[C, P]):
        pass

else:  # neither can be subscripted at run time

    class ModelAdminBase[M](ModelAdmin):
        pass

    class InlineBase[C, P](StackedInline):
        pass


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


class Part[M: Model](ModelAdminBase[M]):
    """Base of what ``portal.site.admin.PortalModelAdmin`` is made of."""

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

    def _list_address(self) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
