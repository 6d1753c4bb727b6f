// Sends a POST and reads the response while it arrives. XMLHttpRequest, because fetch does not report how much was sent.

const SILENCE_LIMIT_MS = 120_000; // before the response begins; system buffers take a part of a slow upload at once

/**
 * Resolve to {status, type, retryAfter, chunks} once the headers have arrived; `chunks` is a ReadableStream of text.
 * `sent` is called with the bytes that were sent and their total. Rejects with the reason of `stop`, or with a TypeError.
 */
export function post(url, body, { accept, stop, sent }) {
  const request = new XMLHttpRequest();
  let [resolve, reject] = [];
  const response = new Promise((...both) => ([resolve, reject] = both));
  let controller;
  let passed = 0; // characters; the request keeps the whole text until it ends
  let silence;
  const chunks = new ReadableStream({ start: (it) => (controller = it) });
  const pass = () => {
    if (request.responseText.length === passed) return;
    controller.enqueue(request.responseText.slice(passed));
    passed = request.responseText.length;
  };
  const abort = () => request.abort();
  const wait = () => {
    clearTimeout(silence);
    silence = setTimeout(() => stop.abort(new Error("silence")), SILENCE_LIMIT_MS);
  };
  const end = () => {
    clearTimeout(silence);
    stop.signal.removeEventListener("abort", abort);
  };
  const fail = () => {
    end();
    const error = stop.signal.reason ?? new TypeError("the connection failed");
    controller.error(error);
    reject(error);
  };
  request.open("POST", url);
  request.setRequestHeader("Accept", accept);
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    wait();
    sent(loaded, total);
  });
  request.addEventListener("readystatechange", () => {
    if (request.readyState !== XMLHttpRequest.HEADERS_RECEIVED) return;
    clearTimeout(silence);
    resolve({
      status: request.status,
      type: request.getResponseHeader("Content-Type") ?? "",
      retryAfter: request.getResponseHeader("Retry-After"),
      chunks,
    });
  });
  request.addEventListener("progress", pass);
  request.addEventListener("load", () => {
    end();
    pass();
    controller.close();
  });
  request.addEventListener("error", fail);
  request.addEventListener("abort", fail);
  stop.signal.addEventListener("abort", abort);
  wait();
  request.send(body);
  return response;
}
