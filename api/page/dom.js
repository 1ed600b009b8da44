// Making elements, and saying things to people.

/** A copy of a template of the page. */
export const copy = (id) => document.getElementById(id).content.cloneNode(true);

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a property that is a function listens to the event of that name. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const number = new Intl.NumberFormat();
const instant = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric",
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export const inDigits = (value) => number.format(value);
export const points = (value) => `${number.format(value)} ${Math.abs(value) === 1 ? "point" : "points"}`;
export const date = (text) => day.format(new Date(text));

/** A `time` element of an RFC 3339 text. */
export function time(text, toTheMillisecond = false) {
  const format = toTheMillisecond ? exact : instant;
  return element("time", { datetime: text }, format.format(new Date(text)));
}

/** `HOTEL_STAY` in words. */
export function inWords(name) {
  const words = name.toLowerCase().replaceAll(/[_.-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** How many of the things said stay, the newest last. */
const ANNOUNCEMENTS_KEPT = 8;

/** Says something to whoever listens to the page. What is said next does not cut it off. */
export function announce(text) {
  const place = byId("announcer");
  place.append(element("p", {}, text));
  while (place.children.length > ANNOUNCEMENTS_KEPT) place.firstChild.remove();
}

/** Shows what went wrong in the `.problem` of a form or card, or takes it away. */
export function showProblem(within, error) {
  const place = within.querySelector(".problem");
  place.replaceChildren();
  place.hidden = !error;
  if (!error) return;
  place.append(error.message);
  const reference = [error.code, error.requestId && `request ${error.requestId}`].filter(Boolean).join(", ");
  if (reference) place.append(element("small", {}, reference));
}

/** The first field that the browser finds wrong, which is then shown and entered; undefined when all are right. */
export function firstWrong(form) {
  for (const field of form.elements) field.removeAttribute("aria-invalid");
  const wrong = Array.from(form.elements).find((field) => field.willValidate && !field.checkValidity());
  if (wrong) {
    const label = wrong.labels?.[0]?.textContent ?? "";
    wrong.setAttribute("aria-invalid", "true");
    showProblem(form, { message: `${label}: ${wrong.validationMessage}` });
    wrong.focus();
  }
  return wrong;
}

/** Lets a button start something that is not to be started twice. It keeps the focus meanwhile. */
export async function once(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
  }
}
