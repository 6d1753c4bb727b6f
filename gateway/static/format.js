// Formats numbers, sizes and times for people.

export const number = (value) => value.toLocaleString("en");

export function bytes(value) {
  if (value < 1000) return `${value} bytes`;
  return value < 999_500 ? `${Math.round(value / 1000)} kB` : `${(value / 1e6).toFixed(1)} MB`;
}

/** A duration: in tenths of a second if short, in minutes if long. */
export function seconds(value) {
  if (value < 0.1) return "less than 0.1 s";
  if (value < 9.95) return `${value < 0.95 || value % 1 > 0.05 ? value.toFixed(1) : Math.round(value)} s`;
  return value < 100 ? `${Math.round(value)} s` : `${Math.round(value / 60)} min`;
}

/** A duration in whole seconds, for running clocks. */
export const ticking = (value) => (value < 120 ? `${Math.floor(value)} s` : `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`);

export const count = (value, one, many) => (value === 1 ? `1 ${one}` : `${number(value)} ${many}`);
