// Tells the page around us how high we are: only an origin that `frame_ancestors` names is told.

const LEAST_WIDTH_PX = 120; // a frame that is not laid out yet is nearly 0 wide, and the page in it 20,000 high

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
    if (height === told || window.innerWidth < LEAST_WIDTH_PX) return;
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
