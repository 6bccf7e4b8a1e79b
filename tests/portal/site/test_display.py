from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders

from portal.site.display import Tone, badge, distance, guid, json_text, moment, words

LOOK = Path(finders.find("site/portal.css") or "").read_text(encoding="utf-8")
HOSTILE = '"><script>alert(1)</script>'
NOW = datetime(2026, 11, 23, 10, 5, 30, tzinfo=UTC)


@pytest.mark.req("S-65")
def test_names_from_outside_are_escaped_everywhere() -> None:
    pieces = (badge(HOSTILE, Tone.BAD), guid(HOSTILE, label=HOSTILE), words([HOSTILE]), moment(None, empty=HOSTILE))
    for html in (*pieces, json_text({HOSTILE: HOSTILE})):
        assert "<script>" not in html
        assert "&lt;script&gt;" in html


def test_a_state_is_told_by_word_icon_and_colour() -> None:
    assert badge("Connected", Tone.GOOD) == '<span class="badge tone-good">Connected</span>'
    rules = dict(re.findall(r"^\.tone-(\w+) \{(.*?)\}", LOOK, re.MULTILINE))
    assert set(rules) == {tone.value for tone in Tone}
    for property_name in ("--tone", "--tone-icon"):
        values = re.findall(rf"{property_name}: (\S+);", " ".join(rules.values()))
        assert len(set(values)) == len(Tone)


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (timedelta(), "just now"),
        (timedelta(seconds=-40), "just now"),
        (timedelta(seconds=40), "in less than a minute"),
        (timedelta(minutes=-1), "1 minute ago"),
        (timedelta(minutes=-59, seconds=-59), "59 minutes ago"),
        (timedelta(hours=5), "in 5 hours"),
        (timedelta(days=-2, hours=-3), "2 days ago"),
        (timedelta(days=90), "in 2 months"),
        (timedelta(days=-800), "2 years ago"),
    ],
)
def test_a_distance_has_one_unit(ahead: timedelta, said: str) -> None:
    assert distance(ahead) == said


def test_a_time_is_shown_in_utc_for_people_and_machines() -> None:
    html = moment(NOW - timedelta(days=2), now=NOW)
    assert 'datetime="2026-11-21T10:05:30+00:00"' in html
    assert "2026-11-21 10:05 UTC" in html
    assert "2 days ago" in html
    with pytest.raises(ValueError, match="aware"):
        moment(datetime(2026, 1, 1))  # noqa: DTZ001


def test_nothing_is_a_dash() -> None:
    assert guid(None) == guid("") == words([]) == moment(None) == "–"


@pytest.mark.req("S-61")
def test_json_is_shown_without_inline_styles() -> None:
    assert "style=" not in json_text({"a": [1, "x"]})
