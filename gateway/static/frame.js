// Tells the page around us how high we are: only an origin that `frame_ancestors` names is told.

/** Start telling, where we are in a frame; `ancestors` is the setting, as in CSP. */
export function tellHeight(ancestors) {
  if (window.parent === window) return;
  document.documentElement.classList.add("is-framed");
  const named = ancestors.split(/\s+/).map((word) => (word === "'self'" ? location.origin : word));
  const known = location.ancestorOrigins?.[0]; // not in every browser; where it is, nobody else is even tried
  const origins = named.filter((word) => /^https?:\/\/[^*]+$/.test(word) && (!known || word === known));
  let told = 0;
  const tell = () => {
    const height = Math.ceil(document.body.getBoundingClientRect().height);
    if (height === told) return;
    told = height;
    for (const origin of origins) window.parent.postMessage({ type: "superres:height", height }, origin);
  };
  new ResizeObserver(tell).observe(document.body);
  window.addEventListener("message", (event) => {
    if (event.source !== window.parent || !origins.includes(event.origin) || event.data?.type !== "superres:hello") return;
    told = 0;
    tell();
  });
  tell();
}
