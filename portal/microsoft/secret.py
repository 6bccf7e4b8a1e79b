"""A value that never prints.

Most leaks are accidental conversions: an f-string, a log record, a dataclass ``repr``, an exception's
arguments. A :class:`Secret` refuses all of them, and :meth:`Secret.reveal` is allowed in a few sink modules
only; ``tests/test_source_rules.py`` holds that list (S-31).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, NoReturn, final

_MASK = "Secret(***)"


@final
class Secret:
    """Wrap one secret text: a token, a code, a key, a password.

    Converting it to text or bytes, iterating, pickling, copying or serialising shows nothing or raises
    ``TypeError``. Two secrets compare only with :meth:`same_as`; ``==`` is identity, so that a secret cannot be
    probed through a set, a dict or an assertion message.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("a Secret wraps text")
        object.__setattr__(self, "_Secret__value", value)

    def reveal(self) -> str:
        """Return the value. Only for the last step before it leaves the process (see the module's docstring)."""
        value: str = self.__value  # type: ignore[attr-defined]
        return value

    def same_as(self, other: Secret) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self._bytes(), other._bytes())

    def fingerprint(self, key: bytes) -> str:
        """Return 16 hex characters of HMAC-SHA256 under ``key``: tells versions apart, tells nothing else (S-30)."""
        return hmac.new(key, self._bytes(), hashlib.sha256).hexdigest()[:16]

    def byte_length(self) -> int:
        """Return the size in UTF-8 bytes; a vault accepts 25,000."""
        return len(self._bytes())

    def is_unicode(self) -> bool:
        """Whether it can be written as UTF-8, that is, holds no half of a surrogate pair."""
        return not any("\ud800" <= letter <= "\udfff" for letter in self.reveal())

    def _bytes(self) -> bytes:
        # Half a surrogate pair must not raise here: a UnicodeEncodeError carries the whole text with it.
        return self.reveal().encode(errors="surrogatepass")

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __repr__(self) -> str:
        return _MASK

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return _MASK

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError("a Secret cannot be converted, copied or stored; call reveal() in a sink module")

    __bytes__ = __iter__ = __len__ = __reduce__ = __reduce_ex__ = __copy__ = __deepcopy__ = __getstate__ = _refuse

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret does not change")
