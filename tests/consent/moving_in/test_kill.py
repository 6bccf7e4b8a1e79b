"""An import of tokens is killed at half, and the next one goes on; nothing is done twice (R-02, R-26).

Three hundred of them, forty bad in ten ways, where slow tests run; else seventy-five.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import PartnerConsent
from consent.vault.base import SecretName
from portal.audit.models import AuditEvent
from portal.runs.models import Run, RunItem
from tests.conftest import make_portal, use_local_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.support.children import ROOT, database
from tests.support.moving_in import BAD, Input, adopted, bring

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]
WAYS = [way for way in BAD if way != "damaged"]


def start(sandbox: Sandbox, brought: Path, out: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "DATABASE_URL": database(),
        "TEST_ENDPOINTS": str(sandbox.port),
        "TEST_CA_FILE": str(sandbox.ca_file),
        "VAULT_URL": django_settings.VAULT_URL,
        "VAULT_KEY_FILE": django_settings.VAULT_KEY_FILE,
    }
    command = [sys.executable, "manage.py", "import_tokens", "--json"]
    with brought.open("rb") as content, out.open("wb") as printed, out.with_suffix(".log").open("wb") as errors:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=content, stdout=printed, stderr=errors)


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def reasons(*outputs: Path) -> dict[str, str]:
    """Return the classes by tenant id, and by place for lines without one, of everything that is not adopted."""
    found = {}
    for output in outputs:
        for text in output.read_text().splitlines():
            line = json.loads(text)
            if line.get("class", "ok") not in {"ok", "already_connected"}:
                assert line["message"]
                found[line.get("where") or line["tenant_id"]] = line["class"]
    return found


def enabled_versions() -> Counter[str]:
    """Return how many enabled versions each secret of a partner has in the vault."""
    names = PartnerConsent.objects.values_list("secret_name", flat=True)
    inventory = clients.inventory()
    return Counter({name: sum(one.enabled for one in inventory.versions(SecretName(name))) for name in names if name})


@pytest.mark.req("R-02")
@pytest.mark.req("R-26")
@pytest.mark.parametrize(("good", "of_each"), [(65, 1), pytest.param(260, 4, marks=pytest.mark.release)])
def test_tokens_of_an_import_that_is_killed_at_half_are_adopted_once_or_refused_with_a_reason(
    settings: Settings, sandbox: Sandbox, tmp_path: Path, good: int, of_each: int
) -> None:
    use_sandbox(settings, sandbox)
    use_local_vault(settings, tmp_path)
    portal = make_portal(sandbox)
    brought: Input = bring(portal, good, of_each, WAYS)
    assert (len(brought.brought), len(brought.good())) == (good + 10 * of_each, good)
    before = dict(Counter(AuditEvent.objects.values_list("action", flat=True)))
    content, outputs = tmp_path / "tokens", [tmp_path / name for name in ("first", "second", "third")]
    content.touch(mode=0o600)
    content.write_bytes(brought.lines())

    first = start(sandbox, content, outputs[0])
    until(lambda: len(adopted()) >= good // 2)
    first.kill()
    first.wait(10)
    time.sleep(0.2)  # what was on its way has arrived
    at_half = len(adopted())
    assert good // 2 <= at_half < good
    # Two and a half minutes later: the leases of the process that died are over.
    PartnerConsent.objects.exclude(lease_owner="").update(lease_until=timezone.now() - timedelta(seconds=1))
    second = start(sandbox, content, outputs[1])
    assert second.wait(120) == 1, outputs[1].read_text()

    assert adopted() == set(brought.good())
    assert set(PartnerConsent.objects.filter(state="connected").values_list("generation", flat=True)) == {1}
    assert Run.objects.get().state == "done"
    assert set(RunItem.objects.values_list("state", flat=True)) == {"done"}

    # One usable version for each adopted token, none for the others, and one line of each kind in the trail.
    connected = set(PartnerConsent.objects.filter(state="connected").values_list("secret_name", flat=True))
    assert enabled_versions() == Counter(dict.fromkeys(connected, 1))
    events = Counter(AuditEvent.objects.values_list("action", flat=True))
    assert (events["token.stored"] - before.get("token.stored", 0), events["token.imported"]) == (good, good)
    assert events["token.import_refused"] == of_each * (len(WAYS) - 2)
    assert events["run.started"] == 1

    told = Counter(reasons(*outputs[:2]).values())
    expected = Counter(one.why for one in brought.brought if one.why)
    # What was refused before the kill stands in the run, whether it was printed or not.
    items = Counter(RunItem.objects.exclude(failure_class="ok").values_list("failure_class", flat=True))
    assert items + Counter({why: told[why] for why in ("malformed", "unknown_partner", "duplicate")}) == expected
    assert sum(expected.values()) == 10 * of_each

    third = start(sandbox, content, outputs[2])
    assert third.wait(120) == 1
    assert adopted() == set(brought.good())
    assert enabled_versions() == Counter(dict.fromkeys(connected, 1))
    assert AuditEvent.objects.filter(action="token.imported").count() == good
    assert Counter(reasons(outputs[2]).values()) == expected
    printed = "".join(one.read_text() for out in outputs for one in (out, out.with_suffix(".log")))
    assert not [token for token in brought.tokens() if token in printed]
    print(f"killed with {at_half} adopted")  # noqa: T201
