"""Key pairs, self-signed certificates, requests for a certificate, and what people upload.

A key may be one of the vault that signs itself: all functions take it as an ``RSAPrivateKey``. Messages of errors
repeat nothing of what was read.

Source: Microsoft identity platform, "Application authentication certificate credentials"; RFC 2986 for requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from portal.microsoft.secret import Secret

KEY_BITS = 2048
_LONGEST_NAME = 64  # of a common name, X.520
_BEFORE = timedelta(minutes=5)  # clocks may differ that much


def new_key() -> rsa.RSAPrivateKey:
    """Return a new RSA key of 2,048 bits."""
    return rsa.generate_private_key(65537, KEY_BITS)


def self_signed(key: rsa.RSAPrivateKey, name: str, *, days: int) -> x509.Certificate:
    """Return a certificate of this key that it signed itself, for digital signatures only, valid for ``days``."""
    now = datetime.now(UTC)
    subject = _subject(name)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(_public(key))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(_CLIENT, critical=False)
        .sign(key, hashes.SHA256())
    )


def request_for(key: rsa.RSAPrivateKey, name: str) -> str:
    """Return a request for a certificate of this key (PKCS10) as PEM."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(name))
        .add_extension(_USAGE, critical=True)
        .add_extension(_CLIENT, critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def public_key_of(request: str) -> rsa.RSAPublicKey:
    """Return the public key of a request that :func:`request_for` made."""
    key = x509.load_pem_x509_csr(request.encode()).public_key()
    assert isinstance(key, rsa.RSAPublicKey)  # noqa: S101  # we made it so
    return key


def read_certificates(content: bytes, public: rsa.RSAPublicKey) -> list[x509.Certificate]:
    """Return the certificate of this key, and behind it those of its issuers that the file holds as well.

    Args:
        content: PEM, DER, or PKCS7 in either form, as certificate authorities hand out.

    Raises:
        ValueError: it is none of these, or holds no certificate of this key.
    """
    for load in _LOADERS:
        try:
            found = load(content)
            break
        except (ValueError, TypeError):
            continue
    else:
        raise ValueError("The file must hold a certificate: PEM, DER (.cer) or PKCS7 (.p7b)")
    own = next((one for one in found if one.public_key() == public), None)
    if own is None:
        raise ValueError("The certificate is of another key than this one. Nothing was changed")
    return [own, *(one for one in found if one is not own)]


def pem_of(certificates: Sequence[x509.Certificate]) -> str:
    """Return certificates as PEM, in this order."""
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def key_pair(key: rsa.RSAPrivateKey, certificates: Sequence[x509.Certificate] = ()) -> Secret:
    """Return the private key and its certificates as the PEM that the vault keeps; without one, a key that waits."""
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return Secret(pem_of(certificates) + text)


def read_key(value: Secret) -> rsa.RSAPrivateKey:
    """Return the key that :func:`key_pair` wrote.

    Raises:
        ValueError: it is no RSA key.
    """
    try:
        key = serialization.load_pem_private_key(value.reveal().encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("The vault's entry holds no RSA key")  # noqa: TRY004  # of the text, not of an argument
    return key


def unlocked(content: bytes, password: Secret) -> Secret:
    """Return key and certificates of an uploaded PEM or PKCS12 file as PEM without its password.

    Args:
        password: of the file; empty for none. It is used here and kept nowhere.

    Raises:
        ValueError: another password, or no such file.
    """
    phrase = password.reveal().encode() or None
    key: object
    try:
        if b"-----BEGIN" in content:
            # A password for a file without one is an error of the library, and harmless.
            key = serialization.load_pem_private_key(content, phrase if b"ENCRYPTED" in content else None)
            certificates = x509.load_pem_x509_certificates(content)
        else:
            key, certificate, others = pkcs12.load_key_and_certificates(content, phrase)
            certificates = [one for one in (certificate, *others) if one is not None]
    except (ValueError, TypeError):
        raise ValueError(
            "The file cannot be opened. It must hold an RSA private key and its certificate, as PEM or PFX (PKCS12), "
            "and the password must be the file's"
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey) or not certificates:
        raise ValueError("The file must hold an RSA private key and its certificate")
    return key_pair(key, certificates)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_LONGEST_NAME])])


def _public(key: rsa.RSAPrivateKey) -> rsa.RSAPublicKey:
    """Return the public half as the builders want it, also of a key in the vault."""
    return key.public_key().public_numbers().public_key()


_LOADERS: Sequence[Callable[[bytes], list[x509.Certificate]]] = (
    x509.load_pem_x509_certificates,
    lambda content: [x509.load_der_x509_certificate(content)],
    pkcs7.load_pem_pkcs7_certificates,
    pkcs7.load_der_pkcs7_certificates,
)
_CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
