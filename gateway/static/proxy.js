// Responses that are not from the gateway: error pages of a proxy or load balancer in front of it.

import { bytes } from "./format.js";
import { t } from "./text.js";

/** Return a problem like those of the gateway, for a proxy's response to an upload of `size` bytes. */
export function describeProxyError(status, size) {
  const [title, detail] = explain(status, size);
  return { title, detail, status, isBroken: status >= 500 }; // the next image would fail in the same way
}

function explain(status, size) {
  if (status === 413 && size < 1000) return [t("proxy.large"), t("proxy.large_text", { bytes: size })];
  if (status === 413) return [t("proxy.large"), t("proxy.large_size", { bytes: size, size: bytes(size) })];
  if (status === 429) return [t("proxy.many"), t("proxy.many_text")];
  if (status === 504 || status === 524) return [t("proxy.late"), t("proxy.late_text", { status })];
  if (status >= 500) return [t("proxy.down"), t("proxy.down_text", { status })];
  return [t("proxy.other"), t("proxy.other_text", { status })];
}
