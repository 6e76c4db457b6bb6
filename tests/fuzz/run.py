"""Fuzz everything that reads what others write, for so long.

    python -m tests.fuzz.run --seconds 60 --seed 1 --only "frames of"

Failures are printed with their shortest input; ``--save`` adds them to tests/fuzz/corpus/found.json, whose inputs are tried
by every test run from then on, and what reached new lines to tests/fuzz/corpus/kept.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time

from tests.fuzz.engine import Outcome, fuzz
from tests.fuzz.targets import CORPUS, targets

KEPT_EACH = 4
KEPT_BYTES = 600


def main() -> int:
    """The command; 0 when nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="over all targets")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--only", default="", help="targets whose names hold this")
    parser.add_argument("--save", action="store_true", help="write what was found to tests/fuzz/corpus")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    sys.set_int_max_str_digits(4300)
    chosen = [target for target in targets() if given.only in target.name]
    print(f"seed {given.seed}: {len(chosen)} targets, {given.seconds / max(1, len(chosen)):.1f} s each", flush=True)
    outcomes = [fuzz(target, given.seconds / len(chosen), given.seed) for target in chosen]
    for group in ("frames", "answers", "record", "node", "web"):
        mine = [o for o in outcomes if o.target.startswith(group)]
        runs, lines, kept = sum(o.runs for o in mine), sum(o.lines for o in mine), sum(len(o.kept) for o in mine)
        print(f"{group:8} {len(mine):3} targets {runs:9} inputs {lines:6} lines reached {kept:5} inputs that reached new ones")
    failures = [failure for outcome in outcomes for failure in outcome.failures.values()]
    for failure in failures:
        print(f"FAILED {failure.target}: {failure.error}\n  input {failure.data[:400]!r}\n{failure.trace}")
    if given.save:
        save(outcomes)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


def save(outcomes: list[Outcome]) -> None:
    """Add to the corpus: every failure's input, and a few small inputs of each target that reached new lines."""
    found = {o.target: [f.data for f in o.failures.values()] for o in outcomes if o.failures}
    kept = {o.target: sorted((k for k in o.kept if len(k) <= KEPT_BYTES), key=len)[-KEPT_EACH:] for o in outcomes if o.kept}
    for name, new in (("found", found), ("kept", kept)):
        path = CORPUS / f"{name}.json"
        old: dict[str, list[str]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        for target, inputs in new.items():
            texts = [data.decode("latin-1") for data in inputs]
            old[target] = list(dict.fromkeys([*old.get(target, []), *texts]))[: KEPT_EACH if name == "kept" else None]
        path.write_text(json.dumps(dict(sorted(old.items())), indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
