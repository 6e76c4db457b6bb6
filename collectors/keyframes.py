"""When a book's next key frame is due: often enough to prove the mirror, rarely enough to stay a small share of the bytes."""

from __future__ import annotations

import time

from config.settings import CollectorSettings


class KeyframePace:
    """One book's pace. ``keyframe_share`` of the levels sent may be key frames; the settings bound the pause between two."""

    __slots__ = ("_due_at", "_last_ns", "_levels", "_settings")

    def __init__(self, settings: CollectorSettings) -> None:
        self._settings = settings
        self._levels = 0
        self._due_at = 0
        self._last_ns = 0

    def due(self, levels: int, index: int, now_ns: int, *, live: bool) -> bool:
        """Count a delta's levels; gives whether a key frame should follow it."""
        self._levels += levels
        every = self._settings.keyframe_events
        if every:
            return index % every == 0
        return self._levels >= self._due_at and live and now_ns - self._last_ns >= self._settings.keyframe_min_s * 1e9

    def overdue(self, now_ns: int) -> bool:
        """Whether a quiet book's last key frame is too old."""
        return not self._settings.keyframe_events and now_ns - self._last_ns >= self._settings.keyframe_max_s * 1e9

    def written(self, depth: int) -> None:
        """A whole book of this many levels went out."""
        self._levels = 0
        self._due_at = int(depth / self._settings.keyframe_share)
        self._last_ns = time.time_ns()

    def put_off(self, now_ns: int) -> None:
        """Kafka did not take it: the next one is as good."""
        self._last_ns = now_ns
