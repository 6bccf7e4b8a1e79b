"""A secret turns into nothing but its mask, whatever is done with it (S-31)."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import logging
import marshal
import pickle
import pprint
import reprlib
import string
import sys
import traceback
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.microsoft.secret import Secret

MASK = "Secret(***)"
# Any text at all; the canary makes sure that finding it in an output is no accident.
any_text = st.text(st.characters(exclude_categories=()), max_size=60)  # half surrogate pairs too
secrets = any_text.map(lambda text: f"CANARY-{text}-END")

pytestmark = pytest.mark.req("S-31")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    name: str
    token: Secret


def percent(secret: Any, form: str) -> str:
    text: str = form % secret
    return text


def printed(secret: Secret) -> str:
    out = io.StringIO()
    print(secret, [secret], {"token": secret}, file=out)
    return out.getvalue()


def logged(secret: Secret) -> str:
    out = io.StringIO()
    logger = logging.getLogger("tests.portal.microsoft.secret")
    logger.propagate = False
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(message)s %(token)s"))
    logger.addHandler(handler)
    logger.warning("%s %r", secret, secret, extra={"token": secret})
    logger.warning("%(token)s", {"token": secret}, extra={"token": [secret]})
    logger.removeHandler(handler)
    return out.getvalue()


def fail_with(secret: Secret) -> None:
    local = secret
    raise ValueError("failed with", local, {"token": secret})


def raised(secret: Secret) -> str:
    try:
        fail_with(secret)
    except ValueError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        return f"{error!s} {error!r} {error.args!r} {''.join(told.format())}"
    return ""


def pickled(protocol: int) -> Callable[[object], bytes]:
    return lambda secret: pickle.dumps(secret, protocol)


# What gives a text: every one shows the mask at most.
SHOWN: dict[str, Callable[[Secret], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": format,
    "format with a spec": lambda secret: format(secret, ">80"),
    "f-string": lambda secret: f"{secret} {secret!s} {secret!r} {secret!a} {secret:>80}",
    "str.format": lambda secret: str.format("{0} {0!r} {0:^90}", secret),
    "format_map": lambda secret: "{token}".format_map({"token": secret}),
    "percent s": lambda secret: percent(secret, "%s"),
    "percent r": lambda secret: percent((secret,), "%r %%"),
    "percent a": lambda secret: percent({"token": secret}, "%(token)a"),
    "template": lambda secret: string.Template("$token").substitute(token=secret),
    "in a list": lambda secret: str([secret, (secret,), {1: secret}]),
    "pprint": lambda secret: pprint.pformat({"token": [secret]}),
    "reprlib": reprlib.repr,
    "print": printed,
    "logging": logged,
    "exception": raised,
    "json with a default": lambda secret: json.dumps({"token": secret}, default=str),
    "json with repr": lambda secret: json.dumps([secret], default=repr),
    "urlencode": lambda secret: urllib.parse.urlencode({"token": secret}),
    "dataclass repr": lambda secret: repr(Holder(name="x", token=secret)),
    "type": lambda secret: repr(type(secret)),
    "documentation": lambda secret: str(secret.__doc__),
    "hash": lambda secret: str(hash(secret)),
    "names": lambda secret: str(dir(secret)),
    "size": lambda secret: str(sys.getsizeof(secret)),
    "truth": lambda secret: str(bool(secret)),
}
# What would copy, spell or store it: every one refuses.
REFUSED: dict[str, Callable[[Any], object]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "list": list,
    "tuple": tuple,
    "set": set,
    "dict": dict,
    "iter": iter,
    "reversed": reversed,
    "unpacking": lambda secret: [*secret],
    "len": len,
    "containment": lambda secret: "C" in secret,
    "index": lambda secret: secret[0],
    "slice": lambda secret: secret[:3],
    "join": lambda secret: "".join([secret]),
    "join over it": "-".join,
    "concatenation": lambda secret: "x" + secret,
    "concatenation from the left": lambda secret: secret + "x",
    "repetition": lambda secret: secret * 2,
    "comparison": lambda secret: secret < "x",
    "sorting": lambda secret: sorted([secret, secret]),
    "int": int,
    "float": float,
    "percent d": lambda secret: "%d" % secret,  # noqa: UP031
    "ord": ord,
    "json": json.dumps,
    "json in a dict": lambda secret: json.dumps({"token": secret}),
    "json as a key": lambda secret: json.dumps({secret: 1}),
    "marshal": marshal.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy of a list": lambda secret: copy.deepcopy([secret]),
    "dataclass asdict": lambda secret: dataclasses.asdict(Holder(name="x", token=secret)),
    "dataclass astuple": lambda secret: dataclasses.astuple(Holder(name="x", token=secret)),
    "vars": vars,
    "reduce": lambda secret: secret.__reduce__(),
    "reduce_ex": lambda secret: object.__reduce_ex__(secret, 2),
    "getstate": lambda secret: secret.__getstate__(),
    "base64": base64.b64encode,
    "quote": urllib.parse.quote,
    "path": Path,
    "open": open,
    "write": lambda secret: io.StringIO().write(secret),
    "write bytes": lambda secret: io.BytesIO().write(secret),
    **{f"pickle {protocol}": pickled(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
    "pickle of a dataclass": lambda secret: pickle.dumps(Holder(name="x", token=secret)),
}


@pytest.mark.parametrize("name", SHOWN)
@given(value=secrets)
def test_what_gives_a_text_shows_the_mask_at_most(name: str, value: str) -> None:
    shown = SHOWN[name](Secret(value))
    assert "CANARY" not in shown
    assert value not in shown


@pytest.mark.parametrize("name", REFUSED)
@given(value=secrets)
def test_what_would_spell_or_copy_it_refuses_without_telling(name: str, value: str) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        REFUSED[name](Secret(value))
    assert "CANARY" not in f"{caught.value!s}{caught.value!r}{caught.value.args!r}"


@pytest.mark.parametrize("name", ["str", "repr", "format", "percent s", "f-string"])
def test_the_mask_tells_that_there_was_a_secret(name: str) -> None:
    assert MASK in SHOWN[name](Secret("x"))


@given(value=secrets)
def test_equality_is_identity_so_that_nothing_probes_for_the_value(value: str) -> None:
    secret, twin = Secret(value), Secret(value)
    others: list[object] = [twin, value, value.encode(errors="surrogatepass"), MASK, None, 0]
    assert secret not in others
    assert secret not in set(others)
    assert secret in {secret, twin}


@given(value=secrets, other=secrets)
def test_two_secrets_are_compared_on_purpose_only(value: str, other: str) -> None:
    assert Secret(value).same_as(Secret(value))
    assert Secret(value).same_as(Secret(other)) is (value == other)


@given(value=any_text)
def test_reveal_gives_back_exactly_what_was_put_in(value: str) -> None:
    secret = Secret(value)
    assert secret.reveal() == value
    assert bool(secret) is bool(value)
    assert secret.byte_length() == len(value.encode(errors="surrogatepass"))


@pytest.mark.req("S-30")
@given(value=secrets, other=secrets, key=st.binary(min_size=16, max_size=32))
def test_a_fingerprint_tells_values_apart_under_a_key_and_tells_nothing_else(
    value: str, other: str, key: bytes
) -> None:
    fingerprint = Secret(value).fingerprint(key)
    assert len(fingerprint) == 16
    assert set(fingerprint) <= set("0123456789abcdef")
    assert (fingerprint == Secret(other).fingerprint(key)) is (value == other)
    assert fingerprint != Secret(value).fingerprint(key + b"x")


@pytest.mark.parametrize("value", [None, b"bytes", 7, ["x"], Secret("x")])
def test_only_text_is_wrapped_and_the_refusal_shows_none(value: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Secret(value)
    assert "bytes" not in str(caught.value)


def test_a_secret_does_not_change() -> None:
    secret: Any = Secret("x")
    for name in ("_Secret__value", "value", "reveal"):
        with pytest.raises(AttributeError):
            setattr(secret, name, "y")
        with pytest.raises(AttributeError):
            delattr(secret, name)
    assert secret.reveal() == "x"
