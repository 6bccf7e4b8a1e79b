from __future__ import annotations

import stat
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.sandbox import certificates


def test_the_key_is_readable_by_its_owner_only_and_no_ca_key_is_kept(tmp_path: Path) -> None:
    ca, leaf, key = certificates.make(tmp_path / "new")

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert {path.name for path in key.parent.iterdir()} == {ca.name, leaf.name, key.name}
    assert b"PRIVATE" not in ca.read_bytes() + leaf.read_bytes()


def test_the_certificate_names_every_host_of_every_cloud_and_is_signed_by_the_ca(tmp_path: Path) -> None:
    ca_file, leaf_file, _ = certificates.make(tmp_path)
    ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
    leaf = x509.load_pem_x509_certificate(leaf_file.read_bytes())

    leaf.verify_directly_issued_by(ca)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert {"*.global.localhost", "*.usgov.localhost", "*.china.localhost", "*.vault.china.localhost"} <= set(names)
    assert {"localhost", "portal.localhost", "control.localhost"} <= set(names)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_certificate_is_thrown_away_soon(tmp_path: Path) -> None:
    _, leaf_file, _ = certificates.make(tmp_path)
    leaf = x509.load_pem_x509_certificate(leaf_file.read_bytes())

    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days <= 30


def test_a_second_start_in_the_same_folder_makes_a_new_ca(tmp_path: Path) -> None:
    first = certificates.make(tmp_path)[0].read_bytes()

    assert certificates.make(tmp_path)[0].read_bytes() != first
