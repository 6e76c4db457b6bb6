"""What `demo` and `live` say of books that are not LIVE."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from cli.screen import Sample, doubts, line, screen


def book(state: str, reason: str = "") -> dict[str, object]:
    return {
        "venue": "okx", "symbol": "BTC/USDT", "state": state, "reason": reason, "bid": None, "ask": ["2", "1"], "age_ms": 3,
    }  # fmt: skip


def sample(*books: dict[str, object]) -> Sample:
    return Sample(at_s=1.0, venues={}, processed=0, lag=0, keyframes_ok=0, mismatches=0, dead_letters=0, books=list(books))


def test_each_state_is_told_with_its_count_and_the_reason_that_most_give() -> None:
    books = [book("LIVE"), book("GAP", "a"), book("GAP", "b"), book("GAP", "b"), book("SYNCING", "waits"), book("STALE")]
    assert doubts(books) == "3 GAP: b; 1 SYNCING: waits"
    assert doubts([book("LIVE")]) == ""


def test_the_line_and_the_screen_say_why_and_a_reason_is_no_markup() -> None:
    now = sample(book("SYNCING", "refused: [/] not [bold] here"))
    assert line(now, None, 1.0).endswith("1 SYNCING: refused: [/] not [bold] here")
    console = Console(width=120, record=True, file=StringIO())
    console.print(screen(now, None, 1.0, {}))
    assert "1 SYNCING: refused: [/] not [bold] here" in console.export_text()
