// One upload and the events that answer it (text/event-stream on POST): read as they come, file taken out of base64.

const SILENCE_LIMIT_MS = 30_000; // the gateway sends a comment line every 5 s
const SLICE_CHARS = 1_048_576; // of base64 at a time; a multiple of 4

export class Refused extends Error {
  /** An answer that is no stream: a problem of RFC 9457, or whatever a proxy made up. */
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** Yield {name, data} for each event that answers the form; throw Refused, or what fetch throws. */
export async function* send(url, body, stop) {
  const response = await fetch(url, {
    method: "POST",
    body,
    headers: { Accept: "text/event-stream, application/problem+json;q=0.9" },
    signal: stop.signal,
  });
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new Refused(await readProblem(response));
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
      title: "An answer that is not understood",
      detail: `Something between here and the gateway answered with status ${response.status}. Try again in a while.`,
      retry_after_s: retry,
    };
  }
}

async function* lines(body, stop) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = []; // of a line that is not whole yet: a file may come as one line of many megabytes
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

/** Return the Blob of a base64 text, slice by slice, with a turn for the page between: a large file takes a second or more. */
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
