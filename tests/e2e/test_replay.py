"""Captures through collector, Kafka and Faust, compared with a rebuild that shares nothing with the program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rebuild import Rebuilt

FILES = {
    "binance-usdm": "binance_usdm_btcusdt_20240808.gz",
    "binance-spot": "binance_spot_btcusdt_20240808.gz",
    "binance-coinm": "binance_cm_btcusd_perp_20240808.gz",
}
BBO = {"binance-usdm": 6547, "binance-spot": 3449, "binance-coinm": 26824}


@pytest.mark.broker
def test_three_captures_give_the_books_that_an_independent_rebuild_gives(captures: Path, run_cli, tmp_path: Path):
    out, digests = tmp_path / "books.jsonl", tmp_path / "digests.jsonl"
    files = [str(captures / name) for name in FILES.values()]
    result = run_cli("replay", *files, "--out", str(out), "--digests", str(digests), timeout_s=300)
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout.splitlines()[-1])

    assert summary["gaps"] == summary["resyncs"] == summary["dead_letters"] == 0
    assert (summary["bbo_ok"], summary["bbo_bad"]) == (sum(BBO.values()), 0)
    assert summary["keyframe_bad"] == 0
    assert summary["keyframe_ok"] > 300

    books = {book["venue"]: book for book in map(json.loads, out.read_text().splitlines())}
    assert books.keys() == FILES.keys()
    proofs: dict[str, dict[int, str]] = {}
    for proof in map(json.loads, digests.read_text().splitlines()):
        proofs.setdefault(proof["venue"], {})[proof["venue_seq"]] = proof["digest"]
    for venue, name in FILES.items():
        rebuilt, book, compared = Rebuilt(captures / name), books[venue], 0
        for seq in rebuilt.events():
            if seq in proofs[venue]:
                assert rebuilt.digest() == proofs[venue][seq], f"{venue} differs at {seq}"
                compared += 1
        assert compared == len(proofs[venue]) > 30
        assert book["state"] == "LIVE"
        assert book["venue_seq"] == rebuilt.seq
        assert (book["bids"], book["asks"]) == rebuilt.levels()


def test_a_file_that_is_no_capture_is_refused_with_its_name_and_line(run_cli, tmp_path: Path):
    wrong = tmp_path / "letter.txt"
    wrong.write_text("dear venue\n")
    result = run_cli("replay", str(wrong), "--out", str(tmp_path / "out"))
    assert result.returncode == 1
    assert "letter.txt, line 1" in result.stderr
    assert "Traceback" not in result.stderr
