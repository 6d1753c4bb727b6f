// Uploads one image and reads the response as an event stream (text/event-stream on POST).

import { describeProxyError } from "./proxy.js";
import { post } from "./upload.js";

const SILENCE_LIMIT_MS = 30_000; // the gateway sends a heartbeat every 5 s
const SLICE_CHARS = 1_048_576; // base64 characters decoded at a time; a multiple of 4
const ACCEPT = "text/event-stream, application/problem+json;q=0.9";

export class ProblemError extends Error {
  /** A response that is not a stream: an RFC 9457 problem, or an error page of a proxy. */
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/**
 * Yield {name, data} for each event of the response, and `receiving` events ({received, total} in bytes) while a result
 * within its event arrives. `sent` is called with the bytes sent and their total. Throws ProblemError, or what `post` throws.
 */
export async function* send(url, body, stop, sent) {
  const { status, type, retryAfter, chunks } = await post(url, body, { accept: ACCEPT, stop, sent });
  if (!type.startsWith("text/event-stream")) {
    let text = "";
    for (const reader = chunks.getReader(); ; ) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
    }
    throw new ProblemError(parseProblem(text, status, retryAfter, body.get("image").size));
  }
  yield* events(chunks, stop);
}

/** Return the problem that a text has; `size` is that of the upload in bytes. */
export function parseProblem(text, status, retryAfter, size) {
  let problem = null;
  try {
    problem = JSON.parse(text);
  } catch {
    // an HTML page of a proxy
  }
  const isOurs = typeof problem?.title === "string" && typeof problem.detail === "string";
  return { retry_after_s: Number(retryAfter) || null, ...(isOurs ? problem : describeProxyError(status, size)) };
}

async function* events(chunks, stop) {
  const reader = chunks.getReader();
  let parts = []; // of an incomplete line: a result that the gateway cannot store is one line of many megabytes
  let name = "message";
  let data = [];
  for (;;) {
    const silence = setTimeout(() => stop.abort(new Error("silence")), SILENCE_LIMIT_MS);
    const { value, done } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    const [first, ...others] = value.split("\n");
    parts.push(first);
    for (const next of others) {
      const line = parts.join("").replace(/\r$/, "");
      parts = [next];
      const colon = line.indexOf(":"); // 0 in comments
      const field = colon < 0 ? line : line.slice(0, colon);
      const text = line.slice(colon + 1).replace(/^ /, "");
      if (line === "" && data.length) yield { name, data: JSON.parse(data.join("\n")) };
      if (line === "") [name, data] = ["message", []];
      else if (field === "event") name = text;
      else if (field === "data") data.push(text);
    }
    if (name === "result" && parts.length > 1) yield { name: "receiving", data: measure(parts) };
  }
}

/** Return how much of the file has arrived in the parts of an incomplete line. Three bytes are four characters. */
function measure(parts) {
  const total = Number(/"bytes": (\d+)/.exec(parts[0])?.[1]) || null;
  const received = Math.floor(0.75 * parts.reduce((sum, part) => sum + part.length, 0));
  return { received: Math.min(received, total ?? received), total };
}

/** Return the Blob of a base64 text. Yields to the page between slices: a large file takes a second or more. */
export async function toBlob(base64, type) {
  const slices = [];
  for (let at = 0; at < base64.length; at += SLICE_CHARS) {
    if (at) await new Promise((resolve) => setTimeout(resolve));
    const text = atob(base64.slice(at, at + SLICE_CHARS));
    const slice = new Uint8Array(text.length);
    for (let index = 0; index < text.length; index += 1) slice[index] = text.charCodeAt(index);
    slices.push(slice);
  }
  return new Blob(slices, { type });
}
