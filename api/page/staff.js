// What those who work for the programme do: promotions, and looking at redemptions.

import {
  announce, byId, copy, date, element, firstWrong, inDigits, inWords, once, showProblem, time,
} from "./dom.js";
import { worth } from "./player.js";
import { Ended, call, get, newKey } from "./session.js";

const SECTIONS = [
  { hash: "#promotions", name: "Promotions", enter: promotions },
  { hash: "#redemptions", name: "Redemptions", enter: redemption },
];
/** How often a job that assigns is looked at. */
const LOOK_EVERY_MS = 500;

/** The section follows the address, so that each can be linked to: `#redemptions/R-1001` is a redemption's story. */
export function staff(content, session, fail) {
  let leave = () => {};

  function go(focus = true) {
    leave();
    const [hash, subject] = location.hash.split("/");
    const section = SECTIONS.find((one) => one.hash === hash) ?? SECTIONS[0];
    const nav = byId("sections");
    nav.replaceChildren(...SECTIONS.map((one) => element("a", {
      href: one.hash,
      "aria-current": one === section ? "page" : null,
    }, one.name)));
    nav.hidden = false;
    content.replaceChildren();
    document.title = `${section.name} – Meed`;
    leave = section.enter(content, fail, decoded(subject)) ?? (() => {});
    if (focus) content.querySelector("h1").focus();
  }

  const follow = () => go();
  addEventListener("hashchange", follow);
  go(false);
  return () => {
    removeEventListener("hashchange", follow);
    document.title = "Meed";
    leave();
  };
}

function decoded(text) {
  try {
    return text ? decodeURIComponent(text) : "";
  } catch {
    return text;
  }
}

/** Making promotions and assigning them. */
function promotions(content, fail) {
  content.append(copy("staff-promotions"));
  const form = byId("create");
  const list = byId("all");
  const more = byId("more");
  const jobs = new Set();
  let next = null;
  let key = newKey();

  const trouble = (within, error) => {
    if (error instanceof Ended) fail(error);
    else showProblem(within, error);
  };

  const nextMonth = new Date();
  nextMonth.setMonth(nextMonth.getMonth() + 1);
  form.starts.value = local(new Date());
  form.ends.value = local(nextMonth);
  form.addEventListener("input", () => { key = newKey(); });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (firstWrong(form)) return;
    once(form.querySelector("button"), async () => {
      showProblem(form, null);
      const body = {
        title: form.title.value.trim(),
        description: form.description.value.trim(),
        type: form.type.value.trim(),
        amount: form.amount.value.trim().replace(",", "."),
        startDate: new Date(form.starts.value).toISOString(),
        endDate: new Date(form.ends.value).toISOString(),
        isActive: true,
      };
      try {
        const { document: made } = await call("POST", "promotions", { body, key });
        key = newKey();
        announce(`${made.title} is created.`);
        for (const field of [form.title, form.description, form.amount]) field.value = "";
        await load("promotions?limit=20", (cards) => list.replaceChildren(...cards));
        list.querySelector("h3")?.focus();
      } catch (error) {
        trouble(form, error);
      }
    });
  });

  function card(promotion) {
    const made = element("li", { "data-promotion": promotion.id });
    const assign = element("button", { type: "button", class: "quiet", "aria-expanded": "false" }, "Assign");
    assign.addEventListener("click", () => {
      const open = made.querySelector(".assign");
      if (open) open.remove();
      else {
        made.append(assignment(promotion));
        made.querySelector("textarea").focus();
      }
      assign.setAttribute("aria-expanded", String(!open));
    });
    made.append(element("div", { class: "promotion" },
      element("div", { class: "text" },
        element("h3", { tabindex: "-1" }, promotion.title),
        promotion.description && element("p", {}, promotion.description),
        element("p", { class: "facts" },
          element("span", { class: "worth" }, worth(promotion)),
          element("span", {}, inWords(promotion.type)),
          element("span", {}, `${date(promotion.startDate)} to ${date(promotion.endDate)}`),
          !promotion.isActive && element("span", {}, "inactive"))),
      assign));
    return made;
  }

  /** Who is to have a promotion, and how far that has come. */
  function assignment(promotion) {
    const id = `players-${promotion.id}`;
    const made = element("form", { class: "assign", novalidate: true },
      element("p", { class: "problem", role: "alert", hidden: true }),
      element("div", {},
        element("label", { for: id }, `Players who get “${promotion.title}”`),
        element("textarea", { id, rows: "3", required: true, spellcheck: "false", "aria-describedby": `${id}-hint` }),
        element("p", { id: `${id}-hint`, class: "hint" }, "Ids, one a line or between commas, up to 10,000.")),
      element("div", { class: "buttons" }, element("button", { type: "submit" }, "Assign to them")));
    let own = newKey();
    made.addEventListener("input", () => { own = newKey(); });
    made.addEventListener("submit", (event) => {
      event.preventDefault();
      if (firstWrong(made)) return;
      const playerIds = [...new Set(made.querySelector("textarea").value.split(/[\s,]+/).filter(Boolean))];
      once(made.querySelector("button"), async () => {
        showProblem(made, null);
        try {
          const path = `promotions/${encodeURIComponent(promotion.id)}/assign`;
          const { headers } = await call("POST", path, { body: { playerIds }, key: own });
          follow(made, headers.get("location"));
        } catch (error) {
          trouble(made, error);
        }
      });
    });
    return made;
  }

  /** Shows a job until it has ended. */
  function follow(within, path) {
    const bar = element("progress", { "aria-label": "Players looked at" });
    const words = element("p", { role: "status" }, "Accepted.");
    const cancel = element("button", { type: "button", class: "quiet" }, "Cancel");
    const problem = element("p", { class: "problem", role: "alert", hidden: true });
    within.replaceChildren(problem, bar, words, element("div", { class: "buttons" }, cancel));
    cancel.focus();
    const watch = { over: false };
    jobs.add(watch);
    cancel.addEventListener("click", () => once(cancel, async () => {
      try {
        await call("POST", `${path}/cancel`, { key: newKey() });
        cancel.textContent = "Cancelling";
      } catch (error) {
        trouble(within, error);
      }
    }));

    (async () => {
      while (!watch.over) {
        try {
          const job = await get(path);
          const { players, assigned, already, unknown } = job;
          bar.max = players;
          bar.value = job.done;
          const ended = { DONE: "Done", CANCELLED: "Cancelled" }[job.status];
          const parts = [
            `${inDigits(assigned)} assigned`,
            already > 0 && `${inDigits(already)} had it already`,
            unknown > 0 && `${inDigits(unknown)} without an account (${named(job)})`,
          ].filter(Boolean).join(", ");
          const said = `${ended ?? "Under way"}: ${parts}, of ${inDigits(players)}.`;
          if (words.textContent !== said) words.textContent = said;
          showProblem(within, null);
          if (ended) {
            if (document.activeElement === cancel) {
              words.setAttribute("tabindex", "-1");
              words.focus();
            }
            cancel.remove();
            jobs.delete(watch);
            return;
          }
        } catch (error) {
          trouble(within, error);
          if (error instanceof Ended) return;
        }
        await new Promise((resume) => { setTimeout(resume, LOOK_EVERY_MS); });
      }
    })();
  }

  async function load(path, take) {
    try {
      const page = await get(path);
      next = page.next ?? null;
      more.hidden = !next;
      byId("none").hidden = page.promotions.length > 0;
      take(page.promotions.map(card));
    } catch (error) {
      trouble(form, error);
    }
  }

  more.addEventListener("click", () => once(more, () => load(next, (cards) => {
    list.append(...cards);
    cards[0]?.querySelector("h3").focus();
  })));
  load("promotions?limit=20", (cards) => list.replaceChildren(...cards));

  return () => { for (const watch of jobs) watch.over = true; };
}

/** Those without an account, as far as they are named. */
function named({ unknown, unknownPlayers }) {
  const names = unknownPlayers.join(", ");
  return unknown > unknownPlayers.length ? `${names} and others` : names;
}

/** An instant as a field of the type `datetime-local` wants it. */
function local(instant) {
  const shifted = new Date(instant.getTime() - instant.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16);
}

/** The story of a redemption. */
function redemption(content, fail, id) {
  content.append(copy("staff-redemption"));
  const form = byId("find");
  const field = form.redemption;
  field.value = id;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (firstWrong(form)) return;
    const wanted = field.value.trim();
    const hash = `#redemptions/${encodeURIComponent(wanted)}`;
    if (location.hash === hash) show(wanted);
    else location.hash = hash;
  });

  async function show(wanted) {
    const place = byId("story");
    try {
      showProblem(form, null);
      const story = await get(`redeem/${encodeURIComponent(wanted)}/story`);
      place.replaceChildren(summary(story), timeline(story));
      announce(`Redemption ${wanted}: ${inWords(story.redemption.status)}.`);
      place.querySelector("h2").focus();
    } catch (error) {
      place.replaceChildren();
      if (error instanceof Ended) fail(error);
      else {
        showProblem(form, error);
        field.focus();
        field.select();
      }
    }
  }
  if (id) show(id);
}

function summary({ redemption: told, requestedPoints, partner, cancelRequested, holdExpiresAt, workflow }) {
  // Nothing is told of what is not there; a balance of 0 is there.
  const fact = (name, value, kind) => (value || value === 0) && element("div", {},
    element("dt", {}, name), element("dd", { class: kind }, value));
  const ended = { SUCCESS: "good", FAILED: "bad" }[told.status];
  const open = holdExpiresAt && !ended;
  return element("section", { class: "card", "aria-labelledby": "summary-title" },
    element("div", { class: "title" },
      element("h2", { id: "summary-title", tabindex: "-1" }, told.redeemRequestId),
      workflow.url && element("a", { href: workflow.url, target: "_blank", rel: "noreferrer" },
        "Open in Temporal", element("span", { class: "unseen" }, " (in a new tab)"))),
    element("dl", { class: "summary" },
      fact("Status", inWords(told.status), ended),
      fact("Reason", told.reason && inWords(told.reason)),
      fact("Points asked for", inDigits(requestedPoints)),
      fact("Points deducted", inDigits(told.pointsDeducted)),
      fact("Balance after", told.balanceAfter !== null && inDigits(told.balanceAfter)),
      fact("Customer", told.customerId),
      fact("Merchant", told.merchantContext.merchantId),
      fact("Order", told.merchantContext.orderId),
      fact("Merchant’s last word", partner.verdict
        && inWords(partner.verdict) + (partner.detail ? ` (${partner.detail})` : "")),
      fact("Said too late", partner.lateAnswer && inWords(partner.lateAnswer), "bad"),
      fact("Taken back", cancelRequested ? "Yes" : null),
      fact("Held until", open && time(holdExpiresAt)),
      fact("Workflow", element("code", {}, workflow.id))));
}

function timeline({ steps }) {
  return element("section", { class: "card", "aria-labelledby": "steps-title" },
    element("h2", { id: "steps-title" }, "What happened"),
    element("ol", { class: "timeline" }, ...steps.map((step) => element("li", { class: step.kind.toLowerCase() },
      element("p", {}, step.what),
      element("span", { class: "kind" }, `${inWords(step.kind)} · `, time(step.at, true))))));
}
