// What the checks of an output found, as a sentence.

import { decimal } from "./format.js";
import { t } from "./text.js";

/** Return the sentences as one text in a list; an empty list without checks. */
export function describeChecks(checked, isLarger) {
  if (!checked) return [];
  const more = checked.reruns ? t("output.reruns", { count: checked.reruns }) : "";
  const finite = checked.tiles ? t("output.tiles", { count: checked.tiles, more }) : t("output.finite", { more });
  // Only for enlarged results: at the same size, a variant that changes nothing would score best.
  const back = isLarger && Number.isFinite(checked.back_db) ? ` ${t("output.back", { db: decimal(checked.back_db) })}` : "";
  return [finite + back];
}
