// The page's sentences in the language of the page, from the catalogue that the server uses too.

const KEY = "superres.language";

export const language = document.documentElement.lang;

// Another language was chosen at an earlier visit: the address carries it, because the page has no cookies.
const chosen = load();
const isElsewhere = chosen && chosen !== language && !new URLSearchParams(location.search).has("lang");
if (isElsewhere && document.querySelector(`a[hreflang="${CSS.escape(chosen)}"]`)) {
  const address = new URL(location.href);
  address.searchParams.set("lang", chosen);
  location.replace(address);
}
for (const link of document.querySelectorAll("a[hreflang]")) {
  link.addEventListener("click", () => {
    try {
      localStorage.setItem(KEY, link.hreflang);
    } catch {
      // storage is blocked: the address has the language
    }
  });
}

const texts = await fetch(new URL(`text-${language}.json`, import.meta.url)).then((response) => response.json());
const plurals = new Intl.PluralRules(language);

const beforeUnit = new RegExp(`(?<=\\d) (?=(?:${texts["unit.joined"]})(?![\\p{L}\\p{N}]))`, "gu");

/** Return a text in which no line ends between a number and its unit: "79 kB". */
export const joinUnits = (text) => text.replace(beforeUnit, "\u00a0");

/** Return a sentence of the catalogue with these values. Numbers are formatted; `count` selects a plural. */
export function t(key, values = {}) {
  const text = texts[key];
  const sentence = typeof text === "string" ? text : text[plurals.select(values.count)];
  const whole = sentence.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? values[name].toLocaleString(language) : values[name]));
  return joinUnits(whole);
}

function load() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
