// Downloads a stored result, and continues after an interruption where it ended (Range, If-Range).

import { ProblemError, parseProblem } from "./stream.js";

const SILENCE_LIMIT_MS = 30_000;
const MAX_FAILURES = 5; // in a row without a byte
const PAUSE_MS = 1_000; // doubles with each failure

/**
 * Return the file as a Blob. `progress` is called with the bytes received, their total (null if unknown), and true once
 * the connection broke, until more arrives.
 */
export async function download(url, { stop, progress }) {
  const file = { slices: [], size: 0, total: null, etag: null, type: "" };
  for (let failures = 0; ; failures += 1) {
    const before = file.size;
    try {
      await receive(url, file, stop, progress);
      return new Blob(file.slices, { type: file.type });
    } catch (error) {
      if (stop.signal.aborted || error instanceof ProblemError) throw error;
      if (file.size > before) failures = 0;
      if (failures >= MAX_FAILURES) throw error;
      progress(file.size, file.total, true);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * 2 ** failures));
    }
  }
}

/** Receive the rest of a file; throw what fetch throws if the connection breaks. */
async function receive(url, file, stop, progress) {
  const attempt = new AbortController();
  const end = () => attempt.abort(stop.signal.reason);
  stop.signal.addEventListener("abort", end);
  let silence;
  const wait = () => {
    clearTimeout(silence);
    silence = setTimeout(() => attempt.abort(new Error("silence")), SILENCE_LIMIT_MS);
  };
  try {
    wait();
    const headers = file.size ? { Range: `bytes=${file.size}-`, "If-Range": file.etag } : {};
    const response = await fetch(url, { headers, signal: attempt.signal });
    if (!response.ok) {
      const problem = parseProblem(await response.text(), response.status, response.headers.get("Retry-After"), 0);
      if (response.status >= 500 || response.status === 429) throw new TypeError(problem.detail);
      throw new ProblemError(response.status === 404 ? { ...problem, gone: true } : problem);
    }
    if (response.status !== 206) {
      const { headers: facts } = response;
      const total = Number(facts.get("Content-Length")) || null;
      Object.assign(file, { slices: [], size: 0, total, etag: facts.get("ETag"), type: facts.get("Content-Type") ?? "" });
    }
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      wait();
      file.slices.push(value);
      file.size += value.length;
      progress(file.size, file.total);
    }
    if (file.total !== null && file.size !== file.total) throw new TypeError("the download ended early");
  } finally {
    clearTimeout(silence);
    stop.signal.removeEventListener("abort", end);
  }
}
