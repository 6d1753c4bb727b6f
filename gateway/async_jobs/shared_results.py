"""Results of event streams in Redis, so that each replica can send one that another has made."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets

from gateway.async_jobs.redis_data import RedisData
from gateway.async_jobs.store import JobStoreError
from gateway.jobs.result_store import StoredImage

# Bytes before an encoded image: the length of its facts, and the facts as JSON, follow.
_LENGTH_BYTES = 4

_log = logging.getLogger(__name__)


class SharedResults:
    """Results by unguessable id. Safe to use from several threads. What Redis cannot do now is logged, not raised."""

    def __init__(self, data: RedisData, max_age_s: float) -> None:
        self._data = data
        self._max_age_s = max_age_s

    def put(self, image: StoredImage) -> str | None:
        """Store a result and return its id; None if it does not fit, or Redis cannot be used."""
        result_id = secrets.token_urlsafe(16)
        facts = json.dumps([image.media_type, image.filename]).encode()
        packed = len(facts).to_bytes(_LENGTH_BYTES, "big") + facts + image.data
        try:
            return (
                result_id if self._data.write(packed, self._max_age_s, is_result=True, name=_name(result_id)) else None
            )
        except JobStoreError as error:
            _log.warning("a result cannot be stored in Redis: %s", error)
            return None

    def get(self, result_id: str) -> StoredImage | None:
        """Return a result; None if it has expired, was dropped or never existed, or Redis cannot be used."""
        try:
            packed = self._data.read(_name(result_id))
        except JobStoreError as error:
            _log.warning("a result cannot be read from Redis: %s", error)
            return None
        if packed is None:
            return None
        end = _LENGTH_BYTES + int.from_bytes(packed[:_LENGTH_BYTES], "big")
        media_type, filename = json.loads(packed[_LENGTH_BYTES:end])
        return StoredImage(packed[end:], media_type, filename)

    def delete(self, result_id: str) -> bool:
        """Forget a result at once; return whether there was one with this id."""
        try:
            return self._data.drop(_name(result_id))
        except JobStoreError as error:
            _log.warning("a result cannot be deleted from Redis: %s", error)
            return False


def _name(result_id: str) -> str:
    """Return the name of a result in Redis. Its id is the key to it and is not stored."""
    return "r" + hashlib.sha256(result_id.encode()).hexdigest()[:32]
