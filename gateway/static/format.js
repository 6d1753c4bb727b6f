// Formats numbers, sizes and times for people, in the page's language.

import { joinUnits, language, t } from "./text.js";

export const number = (value) => value.toLocaleString(language);

const fixed = (value, digits) => value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** A number with one digit after the point, or none. */
export const decimal = (value) => fixed(value, 1);

/** Pixels in millions: "4.2", "12.5". */
export const megapixels = (value) => number(Number((value / 1e6).toPrecision(value < 1e7 ? 2 : 3)));

export function bytes(value) {
  if (value < 1000) return t("unit.bytes", { value });
  return joinUnits(value < 999_500 ? `${Math.round(value / 1000)} kB` : `${fixed(value / 1e6, 1)} MB`);
}

/** A part of a file and the whole, in the unit of the whole: "4.0" and "10.2 MB". */
export function share(part, whole) {
  return { part: whole < 999_500 ? String(Math.round(part / 1000)) : fixed(part / 1e6, 1), whole: bytes(whole) };
}

/** A duration: in tenths of a second if short, in minutes if long. */
export function seconds(value) {
  if (value < 0.1) return t("unit.instant");
  if (value < 9.95) return t("unit.s", { value: value < 0.95 || value % 1 > 0.05 ? fixed(value, 1) : Math.round(value) });
  return value < 100 ? t("unit.s", { value: Math.round(value) }) : t("unit.min", { value: Math.round(value / 60) });
}

/** A duration in whole seconds, for running clocks; in minutes from two hours on, and in days from two days on. */
export function ticking(value) {
  if (value < 120) return t("unit.s", { value: Math.floor(value) });
  if (value < 7_200) return t("unit.min_s", { min: Math.floor(value / 60), s: Math.floor(value % 60) });
  if (value < 172_800) return t("unit.h_min", { h: Math.floor(value / 3_600), min: Math.floor((value % 3_600) / 60) });
  return t("unit.days", { count: Math.floor(value / 86_400) });
}

/** The locale of dates: English ones have the day first, as the gateway writes them. */
const dates = language === "en" ? "en-GB" : language;

/** A date in UTC: "1 December 2026". */
export const day = (date) => date.toLocaleDateString(dates, { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });

/** A date of this or the next month in UTC: "1 Dec". */
export const shortDay = (date) => date.toLocaleDateString(dates, { day: "numeric", month: "short", timeZone: "UTC" });

/** A sentence that says when a wait of so many seconds ends: in a while, or from a date if that is days away. */
export function tryAgain(value, now = Date.now()) {
  return value < 86_400 ? t("job.try_in", { time: ticking(value) }) : t("job.try_from", { day: day(new Date(now + 1_000 * value)) });
}
