"""The spans of a strategy's decisions, when tracing is on: from the traced records of a batch to what was decided on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from bus.log_reader import LogRecord
from bus.tracing import Context, Tracer, carries, place
from schemas.codec import codec
from schemas.topics import INTENT, OPPORTUNITY, SHADOW
from strategies.loop import Output

RECORDS = {INTENT.name: "OrderIntent", SHADOW.name: "OrderIntent", OPPORTUNITY.name: "Opportunity"}


def carried(
    tracer: Tracer, strategy: str, batch: Sequence[LogRecord], out: Sequence[Output], began_ns: int
) -> Iterator[Output]:
    """Gives ``out`` in order; whoever sends each before taking the next sends it with its context.

    A decision belongs to the newest traced record of the batch with its trigger's key, up to the trigger: a book is
    decided on once a batch, with every update in it.
    """
    traced = [record for record in batch if record.context is not None]
    if not traced:
        yield from out
        return
    with contextlib.ExitStack() as spans:
        contexts = dict[tuple[str, int, int], Context]()
        for record in traced:
            attributes = place(record.topic, record.partition, record.offset, (record.key or b"").decode())
            attributes |= {"strategy": strategy, "batch.records": len(batch)}
            contexts[record[:3]] = spans.enter_context(tracer.span("decide", record.context, attributes, began_ns))
        keys = {record[:3]: record.key for record in batch}
        for output in out:
            context = _context(output, traced, keys, contexts)
            with carries(context):
                yield output


def _context(
    output: Output, traced: Sequence[LogRecord], keys: dict[tuple[str, int, int], bytes | None],
    contexts: dict[tuple[str, int, int], Context],
) -> Context | None:  # fmt: skip
    if (name := RECORDS.get(output.topic)) is None:
        return None
    value = codec(name).decode(output.value)
    trigger = (value["trigger_topic"], value["trigger_partition"], value["trigger_offset"])
    same = [r for r in traced if r[:2] == trigger[:2] and r.offset <= trigger[2] and r.key == keys.get(trigger)]
    return contexts[same[-1][:3]] if same else None
