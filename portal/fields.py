"""Model fields and validators that both apps use: identifiers in canonical form, names without tricks."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models

from portal.microsoft.diagnosis import OWNER_CHOICES
from portal.microsoft.identifiers import (
    InvalidIdentifier,
    parse_application_id,
    parse_domain,
    parse_object_id,
    parse_tenant_id,
)

_BIDI = {0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


if TYPE_CHECKING:  # only the type checker can subscript a field
    _TextField = models.CharField[str, str]
else:
    _TextField = models.CharField


class ParsedField(_TextField):
    """Text that one parser brings into its canonical form, at every write.

    Django calls ``to_python`` for lookups and for writes that skip ``full_clean()``, too: they get the same form or
    fail loudly.
    """

    parser: Callable[[str], str]

    def to_python(self, value: Any) -> str | None:
        text: str | None = super().to_python(value)
        if not text:
            return text
        try:
            return type(self).parser(text)
        except InvalidIdentifier as error:
            raise ValidationError(str(error), code="invalid") from None

    def formfield(self, **kwargs: Any) -> Any:
        # People paste GUIDs in braces and with blanks around; the parser, not the input's length, decides.
        return super().formfield(**{"max_length": (self.max_length or 0) + 30, **kwargs})


class TenantIdField(ParsedField):
    parser = staticmethod(parse_tenant_id)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"max_length": 36, **kwargs})


class ApplicationIdField(ParsedField):
    parser = staticmethod(parse_application_id)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"max_length": 36, **kwargs})


class ObjectIdField(ParsedField):
    parser = staticmethod(parse_object_id)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"max_length": 36, **kwargs})


class DomainField(ParsedField):
    parser = staticmethod(parse_domain)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"max_length": 253, **kwargs})


def validate_name(value: str) -> None:
    """Refuse names that deceive or break: control and bidi characters, only blanks, not NFC (S-66).

    Raises:
        ValidationError: with one sentence for the person who typed it.
    """
    if unicodedata.normalize("NFC", value) != value:
        raise ValidationError("Use the composed form of accented letters (Unicode NFC).", code="not_nfc")
    if any(unicodedata.category(c) in {"Cc", "Cs", "Co", "Cn"} or ord(c) in _BIDI for c in value):
        raise ValidationError("Control characters and text-direction overrides are not allowed.", code="control")
    if not any(unicodedata.category(c)[0] in "LNPS" for c in value):
        raise ValidationError("A name needs at least one visible character.", code="invisible")


class NameField(_TextField):
    """A display name of at most 200 characters."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 200)
        kwargs.setdefault("validators", [validate_name])
        super().__init__(*args, **kwargs)


class OwnerField(_TextField):
    """Who must act: a word of ``Owner``, shown by its label; empty while there is nothing to do."""

    def __init__(self, verbose_name: str = "who must act", **kwargs: Any) -> None:
        super().__init__(verbose_name, **{"max_length": 9, "choices": OWNER_CHOICES, "blank": True, **kwargs})
