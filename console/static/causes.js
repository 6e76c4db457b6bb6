// The chain of causes of one record: everything that names the same opportunity, intent, order or group.

const IDS = ["id", "opportunity_id", "intent_id", "order_id", "target_id", "group_id"];
const TOPICS = ["derived.opportunity", "orders.intent", "orders.shadow", "orders.risk", "orders.journal", "orders.event", "orders.fill"];

/** The records that belong to it, oldest first: [{topic, record, ms, says}]. */
export function related(topic, record, logs) {
  const ids = new Set(idsOf(record));
  const found = new Map([[record, topic]]);
  // Until nothing more is found: an opportunity names intents, an intent its orders, an order its fills.
  for (let before = -1; before !== found.size; ) {
    before = found.size;
    for (const name of TOPICS) {
      for (const one of logs[name] ?? []) {
        if (!found.has(one) && idsOf(one).some((id) => ids.has(id))) {
          found.set(one, name);
          for (const id of idsOf(one)) ids.add(id);
        }
      }
    }
  }
  return [...found].map(([one, name]) => ({ topic: name, record: one, ns: time(one), ms: Number(time(one) / 1000000n), says: say(name, one) }))
    .sort((a, b) => (a.ns < b.ns ? -1 : a.ns > b.ns ? 1 : 0));
}

function idsOf(record) {
  return IDS.map((name) => record[name]).filter((id) => id !== undefined && id !== null && id !== "");
}

function time(record) {
  return BigInt(record.ts_ns || record.created_ns || 0);
}

function books(record) {
  return (record.input_keys ?? []).map((key, i) => `${String(key).replace("|", " ")} ${record.input_states?.[i] ?? ""} at ${record.input_epochs?.[i] ?? "?"}/${record.input_indexes?.[i] ?? "?"}`).join(", ");
}

function say(topic, r) {
  switch (topic) {
    case "derived.opportunity": return `${r.strategy} saw ${r.edge} ${r.edge_asset} in ${r.group}: ${books(r)}`;
    case "orders.intent":
    case "orders.shadow": return `${r.action ?? ""} ${r.side} ${r.size} ${r.symbol} at ${r.price} on ${r.venue}: ${books(r)}`;
    case "orders.risk": return `${r.verdict}${r.rule ? `: ${r.rule}, ${r.measured} against ${r.bound}` : ""} (limits ${r.limits_version})`;
    case "orders.journal": return `${r.step} ${r.state ?? ""} ${r.cause ?? ""}`;
    case "orders.event": return `${r.previous} → ${r.state}${r.cause ? `: ${r.cause}` : ""}`;
    case "orders.fill": return `${r.side} ${r.size} at ${r.price}, fee ${r.fee} ${r.fee_asset}`;
    default: return "";
  }
}
