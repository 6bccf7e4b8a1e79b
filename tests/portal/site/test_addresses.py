"""The client's address behind a known number of proxies."""

from __future__ import annotations

import pytest
from django.test import RequestFactory
from pytest_django.fixtures import Settings

from portal.audit import trail, walking
from portal.site.addresses import client_address

DIRECT = "192.0.2.10"


def address(forwarded: str | None, remote: str = DIRECT) -> str | None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    return client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR=remote))


@pytest.mark.req("S-29")
@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, None, DIRECT),
        (0, "203.0.113.1", DIRECT),
        (0, "203.0.113.1, 203.0.113.2", DIRECT),
        (1, "198.51.100.7", "198.51.100.7"),
        (1, "203.0.113.1, 198.51.100.7", "198.51.100.7"),
        (1, "203.0.113.1,203.0.113.2,198.51.100.7", "198.51.100.7"),
        (1, None, None),
        (1, "", None),
        (2, "198.51.100.7, 192.0.2.1", "198.51.100.7"),
        (2, "203.0.113.1, 198.51.100.7, 192.0.2.1", "198.51.100.7"),
        (2, "198.51.100.7", None),
        (1, "2001:DB8::1", "2001:db8::1"),
        (1, "::ffff:198.51.100.7", "198.51.100.7"),
        (1, "fe80::1%eth0", None),
        (1, "198.51.100.7:443", None),
        (1, "<script>", None),
        (1, "198.51.100.7\t", "198.51.100.7"),
    ],
)
def test_only_what_our_own_proxies_wrote_counts(
    settings: Settings, proxies: int, forwarded: str | None, expected: str | None
) -> None:
    settings.TRUSTED_PROXIES = proxies
    assert address(forwarded) == expected


@pytest.mark.parametrize(
    ("remote", "expected"), [("", None), ("unix:", None), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%2", None)]
)
def test_a_server_that_names_no_plain_address_gives_none(settings: Settings, remote: str, expected: str | None) -> None:
    settings.TRUSTED_PROXIES = 0
    assert address(None, remote) == expected


@pytest.mark.req("S-57")
@pytest.mark.django_db
@pytest.mark.parametrize("remote", ["192.0.2.1", "2001:0DB8:0:0::1", "::ffff:192.0.2.1", "fe80::1%eth0", "::1"])
def test_every_address_reads_back_as_the_trail_sealed_it(settings: Settings, remote: str) -> None:
    settings.TRUSTED_PROXIES = 0
    trail.record("link.issued", actor=trail.Actor.link(1, address(None, remote)), subject={"link": 1})
    assert walking.first_broken_sequence() is None
