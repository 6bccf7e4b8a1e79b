"""The configuration of Microsoft's sample becomes lines for ``.env``, and no secret of it is repeated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from consent.doctor.sample import KEYS, NoSample, env_lines
from tests.support.commands import run
from tests.support.source import ROOT, variables

APPLICATION = "11111111-2222-3333-4444-555555555555"
VAULT_CLIENT = "21111111-2222-3333-4444-555555555555"
VAULT_TENANT = "31111111-2222-3333-4444-555555555555"
SECRETS = ("canary~of.the-application", "canary~of.the-vault")
CPV = {
    "ida:CPVApplicationId": APPLICATION,
    "ida:CPVApplicationSecret": SECRETS[0],
    "KeyVaultEndpoint": "https://panel-tokens.vault.azure.net/",
    "ida:KeyVaultTenantId": VAULT_TENANT,
    "ida:KeyVaultClientId": VAULT_CLIENT,
    "ida:KeyVaultClientSecret": SECRETS[1],
    "ida:AADInstance": "https://login.microsoftonline.com/",
}


def as_xml(values: dict[str, str]) -> str:
    lines = "".join(f'<add key="{key}" value="{value}" />' for key, value in values.items())
    return (
        f'<?xml version="1.0"?>\n<configuration><appSettings><!-- {SECRETS[0]} -->{lines}</appSettings></configuration>'
    )


def lines_of(folder: Path, content: str, name: str = "web.config") -> list[str]:
    file = folder / name
    file.write_text(content, encoding="utf-8")
    return list(env_lines(file))


def settings_in(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_cpv_sample_becomes_settings_and_steps_by_hand(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, as_xml(CPV))
    assert settings_in(lines) == {
        "VAULT_CLOUD": "global",
        "VAULT_URL": "https://panel-tokens.vault.azure.net",
        "VAULT_TENANT_ID": VAULT_TENANT,
        "VAULT_CLIENT_ID": VAULT_CLIENT,
        "VAULT_IDENTITY": "client-secret",
    }
    assert settings_in(lines).keys() <= set(variables())
    said = "\n".join(lines)
    assert f"application id {APPLICATION}" in said
    assert "kind CPV" in said
    assert "VAULT_CREDENTIAL_FILE" in said


@pytest.mark.parametrize("kind", ["xml", "json", "nested json"])
def test_no_secret_is_repeated(tmp_path: Path, kind: str) -> None:
    nested = {"ida": {key.removeprefix("ida:"): value for key, value in CPV.items()}}
    content = {"xml": as_xml(CPV), "json": json.dumps(CPV), "nested json": json.dumps(nested)}[kind]
    said = "\n".join(lines_of(tmp_path, content))
    assert not [one for one in SECRETS if one in said]
    assert APPLICATION in said


def test_a_secret_in_the_place_of_an_id_is_not_repeated_either(tmp_path: Path) -> None:
    moved = dict.fromkeys(CPV, SECRETS[0])
    assert SECRETS[0] not in "\n".join(lines_of(tmp_path, as_xml(moved)))


def test_the_csp_sample_without_a_vault_says_what_is_missing(tmp_path: Path) -> None:
    """The page that the sample belongs to names neither the vault nor its tenant."""
    seed = {
        "ida:CSPApplicationId": APPLICATION,
        "ida:CSPApplicationSecret": "x",
        "ida:KeyVaultClientId": VAULT_CLIENT,
        "ida:KeyVaultClientSecret": "y",
        "ida:AADInstance": "https://login.chinacloudapi.cn/",
    }
    lines = lines_of(tmp_path, as_xml(seed))
    said = "\n".join(lines)
    assert settings_in(lines)["VAULT_CLOUD"] == "china"
    assert "VAULT_URL=https://<name>.vault.azure.cn" in said
    assert "VAULT_TENANT_ID=<" in said
    assert "kind CSP, cloud China (21Vianet)" in said


def test_an_appsettings_file_of_net_names_the_home_tenant(tmp_path: Path) -> None:
    content = {
        "AzureAd": {
            "Instance": "https://login.microsoftonline.us/",
            "ClientId": APPLICATION,
            "TenantId": VAULT_TENANT,
            "ClientSecret": SECRETS[0],
        }
    }
    lines = lines_of(tmp_path, json.dumps(content), "appsettings.json")
    assert settings_in(lines) == {"VAULT_CLOUD": "usgov"}
    assert any(f"home tenant id {VAULT_TENANT}" in line for line in lines)
    assert any("CPV or CSP (the file does not say which)" in one for one in lines)


@pytest.mark.parametrize(
    ("instance", "says"),
    [("https://login.microsoftonline.de/", "Germany was closed"), ("https://login.example.com/", "no sign-in host")],
)
def test_a_cloud_that_is_closed_or_unknown_is_said(tmp_path: Path, instance: str, says: str) -> None:
    assert says in "\n".join(lines_of(tmp_path, as_xml(CPV | {"ida:AADInstance": instance})))


def test_a_vault_of_another_cloud_is_not_taken(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, as_xml(CPV | {"KeyVaultEndpoint": "https://x.vault.azure.net.example.com/"}))
    assert "VAULT_URL" not in settings_in(lines)


@pytest.mark.parametrize(
    "content",
    [
        f'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><configuration>{SECRETS[0]}&b;</configuration>',
        '<!DOCTYPE a [<!ENTITY b "xx">]><a><appSettings><add key="ida:AADInstance" value="&b;"/></appSettings></a>',
        "<configuration><appSettings>",
        "just words " + SECRETS[0],
        '{"ida": ',
        "{" * 100_000,
        '{"a":' * 50 + "1" + "}" * 50,
        "{}",
        as_xml({"other": SECRETS[0]}),
        " " * 1_100_000,
        "",
    ],
    ids=[
        "external entity",
        "entity",
        "cut off",
        "text",
        "cut json",
        "deep",
        "nested",
        "empty",
        "other keys",
        "large",
        "nothing",
    ],
)
def test_what_is_no_sample_is_refused_without_repeating_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(NoSample) as refused:
        lines_of(tmp_path, content)
    assert SECRETS[0] not in str(refused.value)


def test_the_command_prints_the_lines_and_looks_at_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "app.config"
    file.write_text(as_xml(CPV))
    ran = run("doctor", "--from-sample", file)
    assert ran.code == 0
    assert settings_in(ran.out.splitlines()) == settings_in(list(env_lines(file)))
    assert not [one for one in SECRETS if one in ran.out + ran.err]


@pytest.mark.parametrize("content", [None, "<a>"])
def test_the_command_ends_with_2_for_a_file_that_is_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "app.config"
    if content is not None:
        file.write_text(content)
    ran = run("doctor", "--from-sample", file)
    assert (ran.code, ran.out) == (2, "")
    assert str(file) in ran.err


def test_the_documented_map_has_exactly_the_keys_that_are_read() -> None:
    page = (ROOT / "docs/seed-map.md").read_text()
    rows = re.findall(r"^\| `([\w:]+)` \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(key.name, key.here) for key in KEYS]
