// Exact decimals: texts become big integers in units of 10^-24. Numbers with a fraction are for drawing only.

const DIGITS = 24;
const ONE = 10n ** BigInt(DIGITS);

/** "58710.20" → its value × 10^24, exactly. */
export function exact(text) {
  const negative = text.startsWith("-");
  const [whole, fraction = ""] = (negative ? text.slice(1) : text).split(".");
  const value = BigInt(whole) * ONE + BigInt(fraction.slice(0, DIGITS).padEnd(DIGITS, "0"));
  return negative ? -value : value;
}

/** (sell − buy) / buy in hundredths of a basis point, rounded down; fees are texts in basis points, taken from both. */
export function edge(sell, buy, feeSell = "0", feeBuy = "0") {
  const s = exact(sell) * (10000n * ONE - exact(feeSell));
  const b = exact(buy) * (10000n * ONE + exact(feeBuy));
  if (b === 0n) return null;
  const scaled = (s - b) * 1000000n;
  const whole = scaled / b;
  return Number(scaled % b !== 0n && scaled < 0n ? whole - 1n : whole);
}

/** Hundredths of a basis point as text: 1234 → "12.34". */
export function bps(hundredths) {
  if (hundredths === null) return "–";
  const n = Math.abs(hundredths);
  return `${hundredths < 0 ? "−" : ""}${Math.floor(n / 100)}.${String(n % 100).padStart(2, "0")}`;
}

export function compare(a, b) {
  const x = exact(a), y = exact(b);
  return x < y ? -1 : x > y ? 1 : 0;
}
