"""What every sentence that a person reads has to be."""

from __future__ import annotations

import re

from portal.microsoft.diagnosis import Diagnosis

_HOST = re.compile(r"\b[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]+)?\b")


def is_plain_sentence(text: str) -> bool:
    """One sentence for a person: no code, no address, no field name, nothing that looks copied from an answer."""
    text = _HOST.sub("Host", text)
    return (
        re.fullmatch(r"[A-Z][^.;:!?<>{}\r\n]*(: [^.;:!?<>{}\r\n]*)?\.", re.sub(r"\b(User)\.(Read)\b", "", text))
        is not None
        and len(text) <= 140
        and not re.search(r"AADSTS|https?|[a-z]_[a-z]|\d{5,}", text)
    )


def check_words(diagnosis: Diagnosis) -> None:
    assert is_plain_sentence(diagnosis.cause), diagnosis.cause
    assert is_plain_sentence(diagnosis.remedy), diagnosis.remedy
    assert len(diagnosis.cause) + len(diagnosis.remedy) < 299  # both stand in one column of 300
