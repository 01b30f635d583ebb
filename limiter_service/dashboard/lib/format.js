// Figures as people read them. Pure.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const long = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const hand = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const MINUS = "\u2212";

const UNITS = { requests: "requests", tokens: "tokens", input_tokens: "input tokens", output_tokens: "output tokens", cost_usd: "dollars", concurrency: "calls at once" };
const PERIODS = { 1: "s", 60: "min", 3600: "h", 86400: "day" };

/** A count: 12,340. */
export function count(value) {
  return whole.format(value).replace("-", MINUS);
}

/** A count where space is short: 12.3K. */
export function compact(value) {
  return (Math.abs(value) < 10_000 ? whole : short).format(value).replace("-", MINUS);
}

/** Dollars: cents, and more digits where cents say nothing. */
export function money(value) {
  const size = Math.abs(value);
  const digits = size === 0 || size >= 0.01 ? 2 : 6;
  const text = size.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return `${value < 0 ? MINUS : ""}$${text}`;
}

/** So much of a meter; of millions the first digits. */
export function amount(meter, value) {
  if (meter === "cost_usd") return money(value);
  return Math.abs(value) < 1e6 ? count(value) : long.format(value).replace("-", MINUS);
}

/** Dollars per hour. */
export function pace(meter, value) {
  if (meter !== "cost_usd") return `${compact(value)}/h`;
  return value > 0 && value < 0.005 ? "<$0.01/h" : `${money(value)}/h`;
}

/** What a limit counts, and per what: "tokens/min"; *per* is a calendar's period. */
export function meaning(limit, per = null) {
  const unit = UNITS[limit.meter] ?? limit.meter;
  const period = per ?? (limit.per && (PERIODS[limit.per] ?? duration(limit.per)));
  return !period || limit.meter === "concurrency" ? unit : `${unit}/${period}`;
}

/** How often in a second, on an axis. */
export function tick(value) {
  return value >= 10_000 ? short.format(value) : String(value);
}

/** How often in a second. */
export function rate(value) {
  if (value === 0) return "0";
  if (value < 0.05) return "<0.1";
  return value < 100 ? tenth.format(value) : count(value);
}

/** A share: 41 %. */
export function percent(share) {
  const value = share * 100;
  if (value > 0 && value < 1) return "<1%";
  if (value < 0 && value > -1) return "<0%";
  return `${count(Math.trunc(value))}%`;
}

/** A time span: 40 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds) {
  if (seconds < 0) return duration(0);
  if (seconds < 10 && seconds % 1 >= 0.05) return `${tenth.format(seconds)} s`;
  let left = Math.round(seconds);
  const days = Math.floor(left / 86_400);
  left -= days * 86_400;
  const hours = Math.floor(left / 3600);
  left -= hours * 3600;
  const minutes = Math.floor(left / 60);
  left -= minutes * 60;
  const two = (big, bigUnit, small, smallUnit) => (small ? `${big} ${bigUnit} ${small} ${smallUnit}` : `${big} ${bigUnit}`);
  if (days) return two(days, "d", hours, "h");
  if (hours) return two(hours, "h", minutes, "min");
  return minutes ? two(minutes, "min", left, "s") : `${left} s`;
}

/** A time span in one unit, for what may change any second: 40 s, 3 min, 2 h, 3 d. */
export function about(seconds) {
  if (seconds < 60) return duration(seconds);
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return seconds < 36 * 3600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

/** A moment of today: 14:03:59. */
export function time(seconds) {
  return clock.format(seconds * 1000);
}

/** A moment on an axis: 14:03. */
export function minute(seconds) {
  return hand.format(seconds * 1000);
}

/** A moment in full. */
export function moment(seconds) {
  return date.format(seconds * 1000);
}

/** "1 call", "2 calls". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
