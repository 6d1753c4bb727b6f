// Posts the page's height to the page that frames it, if `frame_ancestors` names the origin of that page.

const MIN_WIDTH_PX = 120; // before layout, a frame is nearly 0 wide and the page in it 20,000 high

/** Start posting if this page is in a frame; `ancestors` is the setting, in the syntax of CSP. */
export function postHeight(ancestors) {
  if (window.parent === window) return;
  document.documentElement.classList.add("is-framed");
  const named = ancestors.split(/\s+/).map((word) => (word === "'self'" ? location.origin : word));
  const known = location.ancestorOrigins?.[0]; // not in every browser; where it exists, only this origin is tried
  const origins = named.filter((word) => /^https?:\/\/[^*]+$/.test(word) && (!known || word === known));
  let posted = 0;
  const post = () => {
    const height = Math.ceil(document.body.getBoundingClientRect().height);
    if (height === posted || window.innerWidth < MIN_WIDTH_PX) return;
    posted = height;
    for (const origin of origins) window.parent.postMessage({ type: "superres:height", height }, origin);
  };
  new ResizeObserver(post).observe(document.body);
  window.addEventListener("message", (event) => {
    if (event.source !== window.parent || !origins.includes(event.origin) || event.data?.type !== "superres:hello") return;
    posted = 0;
    post();
  });
  post();
}
