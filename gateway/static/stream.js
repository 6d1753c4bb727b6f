// Uploads one image and reads the response as an event stream (text/event-stream on POST).

const SILENCE_LIMIT_MS = 30_000; // the gateway sends a heartbeat every 5 s
const SLICE_CHARS = 1_048_576; // base64 characters decoded at a time; a multiple of 4

export class ProblemError extends Error {
  /** A response that is not a stream: an RFC 9457 problem, or an error page of a proxy. */
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** Yield {name, data} for each event of the response; throw ProblemError, or what fetch throws. */
export async function* send(url, body, stop) {
  const response = await fetch(url, {
    method: "POST",
    body,
    headers: { Accept: "text/event-stream, application/problem+json;q=0.9" },
    signal: stop.signal,
  });
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new ProblemError(await readProblem(response));
  for await (const line of lines(response.body, stop)) {
    yield line;
  }
}

async function readProblem(response) {
  const retry = Number(response.headers.get("Retry-After")) || null;
  try {
    const problem = await response.json();
    return { retry_after_s: retry, ...problem, detail: String(problem.detail) };
  } catch {
    return {
      title: "Unexpected response",
      detail: `A proxy in front of the gateway returned status ${response.status}. Try again later.`,
      retry_after_s: retry,
    };
  }
}

async function* lines(body, stop) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = []; // of an incomplete line: a result is one line of many megabytes
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
  }
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
