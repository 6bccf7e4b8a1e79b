"""Staff sessions, found by a hash of their key: a copy of the table opens no session (S-30).

The cookie holds the key, the column ``session_key`` its hash, so Django's own table serves. Everything else is Django's
database store: ``SessionStore.clear_expired()`` and ``manage.py clearsessions`` remove what is over, and
``Session.objects.filter(expire_date__lt=...)`` counts it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.base_session import AbstractBaseSession
from django.contrib.sessions.models import Session
from django.utils import timezone


def stored_key(session_key: str) -> str:
    """Return what the table knows a session by: the first 160 bits of the SHA-256 of its key, in hexadecimal.

    The key is 32 random characters, so its hash needs neither salt nor secret.
    """
    return hashlib.sha256(session_key.encode()).hexdigest()[:40]


class SessionStore(DatabaseStore):
    """Django's store with a hash wherever its column meets a key, by the synchronous and the asynchronous door."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def _current(self) -> Any:
        return Session.objects.filter(session_key=stored_key(self.session_key or ""), expire_date__gt=timezone.now())

    def _get_session_from_db(self) -> Session | None:
        found: Session | None = self._current().first()
        if found is None:
            self._session_key = None
        return found

    async def _aget_session_from_db(self) -> Session | None:
        found: Session | None = await self._current().afirst()
        if found is None:
            self._session_key = None
        return found

    def exists(self, session_key: str) -> bool:
        return bool(super().exists(stored_key(session_key)))

    async def aexists(self, session_key: str) -> bool:
        return bool(await super().aexists(stored_key(session_key)))

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        session = super().create_model_instance(data)
        session.session_key = stored_key(session.session_key)
        return session

    async def acreate_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        session = await super().acreate_model_instance(data)
        session.session_key = stored_key(session.session_key)
        return session

    def delete(self, session_key: str | None = None) -> None:
        if key := session_key or self.session_key:
            super().delete(stored_key(key))

    async def adelete(self, session_key: str | None = None) -> None:
        if key := session_key or self.session_key:
            await super().adelete(stored_key(key))
