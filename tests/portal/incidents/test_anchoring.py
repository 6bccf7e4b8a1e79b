"""The end of the trail goes to a file, to syslog and to an HTTP receiver; what does not take it is an incident.

Covers: portal.incidents.sinks.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from portal.audit.trail import record
from portal.incidents import sinks
from portal.incidents.anchoring import anchor_now
from portal.incidents.models import Incident
from portal.microsoft.secret import Secret
from portal.runs.registry import jobs
from tests.support.builders import ACTOR
from tests.support.tls_server import HOST, Authority, Connection, read_request, tls_server

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def file(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    settings.AUDIT_ANCHOR_FILE = str(tmp_path / "anchors.jsonl")
    record("test.done", actor=ACTOR, subject={})
    sinks.forget_session()
    yield tmp_path / "anchors.jsonl"
    sinks.forget_session()


def last(file: Path) -> dict[str, object]:
    anchor: dict[str, object] = json.loads(file.read_text().splitlines()[-1])
    return anchor


@pytest.mark.req("S-57")
def test_the_schedule_anchors_the_end_every_fifteen_minutes(file: Path) -> None:
    job = jobs()["audit_anchor"]
    assert job.every.total_seconds() == 15 * 60
    assert job.work([]) == "entry 1 anchored"
    assert last(file)["sequence"] == 1


@pytest.mark.req("S-57")
def test_number_and_seal_of_each_entry_go_to_the_log(
    caplog: pytest.LogCaptureFixture, django_capture_on_commit_callbacks: object
) -> None:
    with caplog.at_level(logging.INFO), django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        event = record("test.done", actor=ACTOR, subject={})
    (line,) = [one for one in caplog.records if one.name == "portal.audit.trail"]
    assert (line.sequence, line.seal, line.action) == (event.sequence, event.mac, "test.done")  # type: ignore[attr-defined]


@pytest.mark.req("S-60")
def test_a_file_that_cannot_be_written_is_one_incident_and_settled_when_it_can(settings: Settings, file: Path) -> None:
    settings.AUDIT_ANCHOR_FILE = str(file.parent)  # a folder
    for _ in range(2):
        assert anchor_now() == "not written"
    incident = Incident.objects.open().get()
    assert (incident.about, incident.times) == ("AUDIT_ANCHOR_FILE", 2)
    assert "Is a directory" in incident.words
    settings.AUDIT_ANCHOR_FILE = str(file)
    anchor_now()
    assert not Incident.objects.open().exists()


@pytest.mark.req("S-57")
@pytest.mark.parametrize("kind", ["udp", "socket file", "tcp"])
def test_syslog_gets_the_anchor(settings: Settings, file: Path, kind: str, tmp_path: Path) -> None:
    if kind == "tcp":
        server = socket.create_server(("127.0.0.1", 0))
        settings.AUDIT_ANCHOR_SYSLOG = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        got: list[bytes] = []

        def take() -> None:
            with server.accept()[0] as sender:
                got.append(sender.recv(4096))

        taker = threading.Thread(target=take)
        taker.start()
        anchor_now()
        taker.join(5)
        server.close()
        length, _, text = got[0].decode().partition(" ")
        assert int(length) == len(text)
    else:
        family = socket.AF_INET if kind == "udp" else socket.AF_UNIX
        with socket.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.settimeout(5)
            receiver.bind(("127.0.0.1", 0) if kind == "udp" else str(tmp_path / "log"))
            name = receiver.getsockname()
            settings.AUDIT_ANCHOR_SYSLOG = f"udp://127.0.0.1:{name[1]}" if kind == "udp" else name
            anchor_now()
            text = receiver.recv(4096).decode()
    assert text.startswith("<110>1 20")
    assert json.loads(text.partition(" - audit-anchor - ")[2]) == last(file)
    assert not Incident.objects.open().exists()


@pytest.mark.req("S-57")
@pytest.mark.req("S-60")
def test_an_http_receiver_gets_the_anchor_and_one_that_refuses_stops_nothing(
    settings: Settings, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, got, status = Authority(tmp_path, "throw-away"), [], ["200 OK"]

    def take(connection: Connection, closing: threading.Event) -> None:
        request = read_request(connection)
        while not request.endswith(b"}"):
            request += connection.recv(4096)
        got.append(request)
        connection.sendall(f"HTTP/1.1 {status[0]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    settings.OUTGOING_CA_FILE = str(authority.file)
    settings.TEST_ENDPOINTS = 1  # names below .localhost are this machine
    with tls_server(authority.context(), take) as server:
        settings.AUDIT_ANCHOR_URL = Secret(f"https://{HOST}:{server.port}/collect/canary-key")
        assert anchor_now() == "entry 1 anchored"
        status[0] = "503 Busy"
        assert anchor_now() == "entry 2 anchored; not taken by AUDIT_ANCHOR_URL"
    assert b"POST /collect/canary-key" in got[0]
    assert json.loads(file.read_text().splitlines()[0])["seal"].encode() in got[0]
    incident = Incident.objects.open().get()
    assert incident.about == "AUDIT_ANCHOR_URL"
    assert "it answered 503" in incident.words
    anchor_now()  # nobody listens any more
    assert "it cannot be reached" in Incident.objects.open().get().words
    assert "canary" not in caplog.text + repr(Incident.objects.values())
