// The results that a reloaded page finds again. The tab's storage holds their addresses; the gateway has the images until they expire.

const KEY = "superres.results";

/** Return what the tab knows of results that are still stored. */
export function loadKept() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY));
    return Array.isArray(kept) ? kept.filter(({ expires }) => expires > Date.now()) : [];
  } catch {
    return []; // storage is blocked, or has something else
  }
}

/** Remember the results of these jobs, and no others. */
export function storeKept(jobs) {
  const kept = jobs.filter((job) => job.kept).map((job) => ({ ...job.kept, isSaved: job.isSaved }));
  try {
    if (kept.length) sessionStorage.setItem(KEY, JSON.stringify(kept));
    else sessionStorage.removeItem(KEY);
  } catch {
    // storage is blocked: a reload loses the results
  }
}

/** Return what to remember of a job with this result; null if the gateway has not stored it with its upload. `expires` is in ms. */
export function describeKept({ file, isExample, header, orientation, changes }, result, expires) {
  if (!result.url || !result.upload_url) return null;
  return { name: file.name, uploadBytes: file.size, isExample, header, orientation, changes, result, expires };
}
