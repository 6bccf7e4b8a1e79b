from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.sandbox import server
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import Reply, Vendor, Wire
from tests.sandbox.world import Fault


def discovery(vendor: Vendor, tenant: str = "organizations") -> str:
    return f"{vendor.cloud.authority}/{tenant}/v2.0/.well-known/openid-configuration"


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


class InThread:
    """One call that may be held, in a thread of its own."""

    def __init__(self, call: Callable[[], Reply]) -> None:
        self.replies: list[Reply] = []
        self._thread = threading.Thread(target=lambda: self.replies.append(call()), daemon=True)
        self._thread.start()

    def wait(self) -> Reply:
        self._thread.join(5)
        return self.replies[0]


# --- hosts --------------------------------------------------------------------------------------------------------


def test_the_sandbox_listens_on_the_loopback_interface_only(sandbox: Sandbox) -> None:
    assert server.LOOPBACK == "127.0.0.1"
    for listening in (sandbox._socket, sandbox._browser_socket):
        assert listening.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("cloud", ["global", "usgov", "china"])
def test_every_cloud_answers_at_its_own_hosts(wire: Wire, sandbox: Sandbox, cloud: str) -> None:
    hosts = sandbox.clouds[cloud]

    metadata = wire.get(f"{hosts.authority}/organizations/v2.0/.well-known/openid-configuration")
    assert metadata.json()["issuer"] == f"{hosts.authority}/{{tenantid}}/v2.0"
    assert wire.get(f"{hosts.partner_center}/v1/customers").status == 401
    assert wire.get(f"{hosts.graph}/v1.0/me").status == 401
    challenge = wire.get(f"https://any{hosts.vault_suffix}/secrets/one/?api-version=7.5")
    assert challenge.status == 401
    assert hosts.authority in challenge.headers["WWW-Authenticate"]


@pytest.mark.parametrize("host", ["localhost", "graph.mars.localhost", "example.com", "a.b.vault.global.localhost"])
def test_hosts_that_are_nobodys_are_refused(wire: Wire, sandbox: Sandbox, host: str) -> None:
    url = f"http://control.localhost:{sandbox.browser_port}/state"

    assert wire.get(url, headers={"Host": host}).status == 421


def test_the_plain_port_serves_the_sign_in_pages_and_control_but_no_api(wire: Wire, sandbox: Sandbox) -> None:
    plain = f"http://{{}}:{sandbox.browser_port}"

    assert wire.get(plain.format("login.global.localhost") + "/organizations/discovery/v2.0/keys").status == 200
    assert wire.get(plain.format("control.localhost") + "/counters").status == 200
    for host in ("graph.global.localhost", "partnercenter.global.localhost", "x.vault.global.localhost"):
        assert wire.get(plain.format(host) + "/v1.0/me").status == 421


def test_unknown_paths_and_wrong_methods_are_refused_per_host(wire: Wire, vendor: Vendor) -> None:
    assert wire.get(f"{vendor.cloud.authority}/v1/customers").status == 404
    assert wire.call("DELETE", discovery(vendor)).status == 405


def test_tls_needs_the_sandboxs_own_ca(sandbox: Sandbox) -> None:
    pool = urllib3.HTTPSConnectionPool(
        "127.0.0.1", sandbox.port, server_hostname="login.global.localhost", assert_hostname="login.global.localhost"
    )

    with pool, pytest.raises(urllib3.exceptions.SSLError):
        pool.urlopen("GET", "/", retries=False)


def test_a_taken_port_is_an_error_at_once(tmp_path: Path, sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match="in use"):
        Sandbox(tmp_path, port=sandbox.port)
    with pytest.raises(OSError, match="in use"):
        Sandbox(tmp_path, browser_port=sandbox.port)


def test_an_unknown_scenario_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="unheard of"):
        Sandbox(tmp_path, scenario="unheard of")


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_scripted_answer_replaces_status_body_and_headers_for_so_many_calls(
    wire: Wire, vendor: Vendor, sandbox: Sandbox
) -> None:
    sandbox.world.faults.append(
        Fault(service="login", path="openid-configuration", times=2, status=503, body="<p>", headers={"X-Odd": "1"})
    )

    replies = [wire.get(discovery(vendor)) for _ in range(3)]

    assert [one.status for one in replies] == [503, 503, 200]
    assert (replies[0].text, replies[0].headers["X-Odd"]) == ("<p>", "1")


def test_a_fault_skips_the_calls_it_is_told_to_skip_and_leaves_them_to_others(
    wire: Wire, vendor: Vendor, sandbox: Sandbox
) -> None:
    sandbox.world.faults += [Fault(service="login", skip=1, status=500), Fault(service="*", status=502)]

    assert [wire.get(discovery(vendor)).status for _ in range(3)] == [502, 500, 200]


def test_a_fault_can_be_for_one_tenant_by_path_or_by_token(wire: Wire, vendor: Vendor, sandbox: Sandbox) -> None:
    mine = vendor.tenant_of("service@northwind.example.com")[0].tenant_id
    other = vendor.tenant_of("service@southridge.example.com")[0].tenant_id
    token = vendor.access_token()
    sandbox.world.faults += [
        Fault(service="login", tenant=mine, status=500, times=9),
        Fault(service="partnercenter", tenant=mine, status=500),
    ]

    assert wire.get(discovery(vendor, other)).status == 200
    assert wire.get(discovery(vendor, mine)).status == 500
    assert wire.get(f"{vendor.cloud.partner_center}/v1/customers").status == 401
    assert wire.get(f"{vendor.cloud.partner_center}/v1/customers", token=token).status == 500


def test_close_before_has_no_effect_and_no_answer(vendor: Vendor, sandbox: Sandbox) -> None:
    refresh = vendor.refresh_token()
    issued = sandbox.world.token_numbers
    sandbox.world.faults.append(Fault(service="login", path="token$", close="before"))

    with pytest.raises(urllib3.exceptions.ProtocolError):
        vendor.refresh(refresh)
    assert sandbox.world.token_numbers == issued


def test_close_after_has_the_effect_but_no_answer(vendor: Vendor, sandbox: Sandbox) -> None:
    refresh = vendor.refresh_token()
    issued = sandbox.world.token_numbers
    sandbox.world.faults.append(Fault(service="login", path="token$", close="after"))

    with pytest.raises(urllib3.exceptions.ProtocolError):
        vendor.refresh(refresh)
    assert sandbox.world.token_numbers == issued + 1


def test_a_held_request_has_had_its_effect_and_waits_for_the_release(vendor: Vendor, sandbox: Sandbox) -> None:
    refresh = vendor.refresh_token()
    issued = sandbox.world.token_numbers
    for _ in range(2):  # a release counts once: the next fault holds again
        sandbox.world.faults.append(Fault(service="login", path="token$", hold=True))
        call = InThread(lambda: vendor.refresh(refresh))
        wait_until(lambda: sandbox.faults.holding == 1)
        assert not call.replies

        sandbox.faults.release()

        assert call.wait().status == 200
        assert sandbox.faults.holding == 0
    assert sandbox.world.token_numbers == issued + 2


def test_a_held_request_does_not_hold_the_others(wire: Wire, vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.world.faults.append(Fault(service="login", path="openid-configuration", hold=True))
    call = InThread(lambda: wire.get(discovery(vendor)))
    wait_until(lambda: sandbox.faults.holding == 1)

    assert wire.get(discovery(vendor)).status == 200

    sandbox.faults.release()
    call.wait()


def test_delay_and_slow_bytes_take_their_time_and_lose_nothing(wire: Wire, vendor: Vendor, sandbox: Sandbox) -> None:
    plain = wire.get(discovery(vendor)).body
    sandbox.world.faults += [
        Fault(service="login", delay=0.2),
        Fault(service="login", slow_bytes=0.0005),
    ]
    started = time.monotonic()
    assert wire.get(discovery(vendor)).body == plain
    assert time.monotonic() - started >= 0.2

    started = time.monotonic()
    assert wire.get(discovery(vendor)).body == plain
    assert time.monotonic() - started >= 0.0005 * len(plain)


def test_a_body_can_be_compressed_and_large(wire: Wire, vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.world.faults.append(Fault(service="login", status=200, body="a" * 3_000_000, gzip=True))
    pool = wire._pool("https", "login.global.localhost")

    answer = pool.request(
        "GET", "/x", headers={"Host": "login.global.localhost", "Accept-Encoding": "gzip"}, decode_content=False
    )

    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.data) < 10_000
    assert len(gzip.decompress(answer.data)) == 3_000_000


def test_a_broken_fault_leaves_the_server_running(wire: Wire, vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.world.faults.append(Fault(service="login", path="("))

    assert wire.get(discovery(vendor)).status == 500
    sandbox.world.faults.clear()
    assert wire.get(discovery(vendor)).status == 200


# --- books --------------------------------------------------------------------------------------------------------


def test_the_ledger_says_whose_token_did_what_and_never_a_value(vendor: Vendor, wire: Wire, sandbox: Sandbox) -> None:
    correlation = "11111111-2222-4333-8444-555555555555"
    answer = vendor.tokens()
    again = vendor.refresh(answer["refresh_token"], headers={"client-request-id": correlation}).json()

    lines: list[dict[str, Any]] = [one for one in sandbox.world.ledger if one["operation"] == "token"]
    tenant, user = vendor.tenant_of("service@northwind.example.com")
    assert [(one["grant"], one["status"]) for one in lines] == [("authorization_code", 200), ("refresh_token", 200)]
    assert lines[1]["correlation"] == correlation
    assert {(one["home"], one["user"], one["client"]) for one in lines} == {
        (tenant.tenant_id, user.oid, vendor.application.app_id)
    }
    assert lines[1]["token"] == lines[0]["issued"]
    assert lines[1]["issued"] == lines[0]["issued"] + 1
    assert sandbox.world.counters["entra token 200"] == 2
    written = json.dumps(list(sandbox.world.ledger)) + json.dumps(sandbox.world.crossings)
    for secret in (answer["refresh_token"], again["refresh_token"], answer["access_token"], vendor.secret):
        assert secret not in written


def test_a_token_used_at_another_partners_tenant_or_customer_is_a_crossing(vendor: Vendor, sandbox: Sandbox) -> None:
    refresh = vendor.refresh_token()
    mine = vendor.tenant_of("service@northwind.example.com")[0]
    other = vendor.tenant_of("service@southridge.example.com")[0]
    own_customer, foreign_customer = vendor.customers_of(mine)[0], vendor.customers_of(other)[0]

    for tenant in (own_customer, other.tenant_id, foreign_customer):
        vendor.refresh(refresh, tenant, vendor.graph)

    assert [(one["home"], one["asked"]) for one in sandbox.world.crossings] == [
        (mine.tenant_id, other.tenant_id),
        (mine.tenant_id, foreign_customer),
    ]


def test_a_stopped_sandbox_answers_nobody_and_closes_its_sockets(tmp_path: Path) -> None:
    with Sandbox(tmp_path) as short:
        port = short.port
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        pass
