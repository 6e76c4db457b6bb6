# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The gate that keeps every schema readable by all older and newer readers (FULL_TRANSITIVE).

``python -m schemas.compatibility`` checks; with ``--accept`` it adds today's schemas to the committed history.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastavro.schema import to_parsing_canonical_form

from schemas.codec import RECORD_NAMES, fingerprint_id, schema_text
from schemas.errors import CompatibilityError

HISTORY = Path(__file__).parent / "history"
PROMOTIONS = {("int", "long"), ("string", "bytes"), ("bytes", "string")}


def unreadable(writer: Any, reader: Any, path: str = "") -> list[str]:
    """Why data of ``writer`` cannot be read as ``reader`` by Avro's resolution rules; empty when it can."""
    if isinstance(writer, dict) and isinstance(writer.get("type"), dict | list):
        writer = writer["type"]
    if isinstance(writer, list) or isinstance(reader, list):
        writers = writer if isinstance(writer, list) else [writer]
        readers = reader if isinstance(reader, list) else [reader]
        bad = [w for w in writers if all(unreadable(w, r) for r in readers)]
        return [f"{path}: the reader has no branch for {b}" for b in bad]
    kind_w = writer["type"] if isinstance(writer, dict) else writer
    kind_r = reader["type"] if isinstance(reader, dict) else reader
    if kind_w != kind_r:
        return [] if (kind_w, kind_r) in PROMOTIONS else [f"{path}: {kind_w} cannot be read as {kind_r}"]
    if kind_w == "array":
        return unreadable(writer["items"], reader["items"], f"{path}[]")
    if kind_w == "enum":
        missing = [s for s in writer["symbols"] if s not in reader["symbols"]]
        return [f"{path}: the reader does not know {missing}"] if missing and "default" not in reader else []
    if kind_w == "record":
        if writer["name"] != reader["name"]:
            return [f"{path}: record {writer['name']} is not {reader['name']}"]
        theirs = {f["name"]: f for f in writer["fields"]}
        problems: list[str] = []
        for field in reader["fields"]:
            where = f"{path}.{field['name']}"
            if field["name"] in theirs:
                problems += unreadable(theirs[field["name"]]["type"], field["type"], where)
            elif "default" not in field:
                problems.append(f"{where}: new without a default")
        return problems
    return []


def check(name: str, schema: Any, versions: list[Any]) -> None:
    """Raise CompatibilityError when ``schema`` and any committed version could not read each other's data."""
    for number, old in enumerate(versions, 1):
        problems = [f"reading version {number}: {p}" for p in unreadable(old, schema, name)]
        problems += [f"read by version {number}: {p}" for p in unreadable(schema, old, name)]
        if problems:
            raise CompatibilityError("; ".join(problems))


def main(argv: list[str]) -> int:
    """Check every record; ``--accept`` appends changed schemas to the history after they passed."""
    failed = False
    ids: dict[int, str] = {}
    for name in RECORD_NAMES:
        schema, file = json.loads(schema_text(name)), HISTORY / f"{name}.json"
        versions: list[Any] = json.loads(file.read_text("utf-8")) if file.exists() else []
        try:
            check(name, schema, versions)
        except CompatibilityError as error:
            print(f"BREAKING {name}: {error}")
            failed = True
            continue
        for version in [*versions, schema]:
            if ids.setdefault(fingerprint_id(version), name) != name:
                print(f"{name} has the schema id of {ids[fingerprint_id(version)]}: change a field's name")
                failed = True
        form = to_parsing_canonical_form(schema)
        if any(to_parsing_canonical_form(v) == form for v in versions):
            continue
        if "--accept" in argv:
            file.write_text(json.dumps([*versions, schema], indent=1, ensure_ascii=False) + "\n", "utf-8")
            print(f"accepted {name} version {len(versions) + 1}")
        else:
            print(f"{name} is not in its history; add it: python -m schemas.compatibility --accept")
            failed = True
    print("schemas: FAILED" if failed else f"schemas: {len(RECORD_NAMES)} records compatible with their history")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
