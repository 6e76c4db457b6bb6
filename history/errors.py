"""What can go wrong with the past.

HistoryError
├── ArchiveBusy    another archiver writes these files
├── NotRecorded    the log and the archive hold nothing that answers
├── WrongRoot      the archive's place cannot be used
└── WrongTime      the text is no moment
"""


class HistoryError(Exception):
    """Root of this room's errors."""


class ArchiveBusy(HistoryError):
    """Another process holds the archive's lock; the text names the file."""


class NotRecorded(HistoryError):
    """Nothing that was kept answers the question; the text says what is missing."""


class WrongRoot(HistoryError):
    """``history.root`` names no storage, or holds a secret; the text says what to write instead."""


class WrongTime(HistoryError):
    """The text is not a moment; it says which form would be."""
