// A player's own account: points, tier, promotions, notifications, history.

import {
  announce, byId, copy, date, element, inDigits, inWords, once, points, showProblem, time,
} from "./dom.js";
import { listen } from "./live.js";
import { Ended, call, get, newKey } from "./session.js";

const LOOK_EVERY_MS = 5_000;
/** How soon the account is looked at again while a change is expected, and how often. */
const EXPECT_EVERY_MS = 400;
const EXPECT_TIMES = 50;

export function player(content, session, fail) {
  content.append(copy("player"));
  const part = content.querySelector(".own");
  const trouble = (error) => {
    // What was under way when this was left is nobody's concern.
    if (!part.isConnected) return;
    if (error instanceof Ended) fail(error);
    else showProblem(part, error);
  };

  const history = historyOf(session.userId, trouble);
  const account = accountOf(session.userId, history.changed, part, trouble);
  const promotions = promotionsOf(session.userId, account, trouble);
  const notifications = notificationsOf(trouble, () => {
    promotions.load();
    account.look();
  });
  account.look();
  promotions.load();
  notifications.begin();
  const looking = setInterval(() => { if (!document.hidden) account.look(); }, LOOK_EVERY_MS);

  return () => {
    clearInterval(looking);
    notifications.end();
  };
}

/** Points and tier. */
function accountOf(userId, changed, part, trouble) {
  let shown = null;
  let asked = 0;

  function show(now) {
    const before = shown;
    if (before && before.available === now.available && before.held === now.held && before.tier === now.tier) return;
    shown = now;
    const place = byId("points");
    place.textContent = inDigits(now.available);
    byId("held").hidden = now.held === 0;
    byId("held").textContent = `${points(now.held)} more held for redemptions under way`;
    byId("tier").textContent = inWords(now.tier);
    byId("tier").parentElement.dataset.tier = now.tier;
    if (before) {
      announce(`You have ${points(now.available)} to spend.`);
      if (now.available > before.available) {
        place.classList.remove("risen");
        requestAnimationFrame(() => place.classList.add("risen"));
      }
      if (before.tier !== now.tier) announce(`You are ${inWords(now.tier)} now.`);
    }
    if (now.exists) changed();
    else byId("no-history").hidden = false;
  }

  async function look(fresh = false) {
    const question = ++asked;
    try {
      const [loyalty, rewards] = await Promise.all([
        get("loyalty", { fresh }),
        // Of somebody to whom nothing has happened yet, one of a list is told without an error.
        call("POST", "rewards/query", { body: [{ customerId: userId }], fresh }),
      ]);
      // A later question may have been answered earlier.
      if (question !== asked || !part.isConnected) return shown;
      const [own] = rewards.document;
      const available = own.totalPoints ?? 0;
      showProblem(part, null);
      show({
        available,
        held: Math.max(0, loyalty.currentPoints - available),
        tier: loyalty.tier,
        exists: own.totalPoints !== undefined,
      });
    } catch (error) {
      trouble(error);
    }
    return shown;
  }

  /** Looks until the points have changed: what changes them may still be under way. */
  async function expectChange() {
    const before = shown?.available;
    for (let times = 0; times < EXPECT_TIMES; times += 1) {
      const now = await look(true);
      if (now?.available !== before) return;
      await new Promise((resume) => { setTimeout(resume, EXPECT_EVERY_MS); });
    }
  }

  return { look, expectChange };
}

/** What happened to the points, newest first. */
function historyOf(userId, trouble) {
  const list = byId("history");
  const older = byId("older");
  const first = `customers/${encodeURIComponent(userId)}/transactions?limit=8`;
  let next = null;

  const entry = (transaction) => {
    const { leg, points: change, held, merchantId } = transaction;
    const at = merchantId && merchantId !== "meed" ? ` at ${merchantId}` : "";
    const title = {
      hold: "Held for a redemption",
      settle: `Redeemed${at}`,
      release: "Given back",
    }[leg] ?? inWords(transaction.reason);
    const signed = change === 0 ? `${inDigits(-held)} paid` : `${change > 0 ? "+" : "−"}${inDigits(Math.abs(change))}`;
    return element("li", {},
      element("div", { class: "text" }, element("h3", {}, title), time(transaction.postedAt)),
      element("p", { class: change > 0 ? "change plus" : "change" }, signed));
  };

  async function load(path, take) {
    try {
      const page = await get(path, { fresh: true });
      next = page.next ?? null;
      older.hidden = !next;
      byId("no-history").hidden = page.transactions.length > 0;
      take(page.transactions.map(entry));
    } catch (error) {
      trouble(error);
    }
  }

  older.addEventListener("click", () => once(older, () => load(next, (entries) => {
    list.append(...entries);
    // The button goes with the last page; whoever used it goes on where it led.
    if (older.hidden) {
      entries[0]?.setAttribute("tabindex", "-1");
      entries[0]?.focus();
    }
  })));

  return { changed: () => load(first, (entries) => list.replaceChildren(...entries)) };
}

/** What was assigned to the player, and claiming it. */
function promotionsOf(userId, account, trouble) {
  const list = byId("promotions");
  /** A claim that is sent again is the same request. */
  const keys = new Map();

  function standing(promotion) {
    const { status, points: credited, startDate } = promotion;
    if (status === "CLAIMED") return credited ? `Claimed: ${points(credited)}` : "Claimed";
    if (status === "CLAIMING") return "On its way";
    return new Date(startDate) > new Date() ? `From ${date(startDate)}` : "Over";
  }

  function card(promotion) {
    const { id, title, description, endDate } = promotion;
    const heading = `promotion-${id}`;
    const made = element("li", { class: "promotion", "data-promotion": id },
      element("div", { class: "text" },
        element("h3", { id: heading }, title),
        description && element("p", {}, description),
        element("p", { class: "facts" },
          element("span", { class: "worth" }, worth(promotion)),
          element("span", {}, `until ${date(endDate)}`))),
      element("p", { class: "problem", role: "alert", hidden: true }));
    made.append(promotion.canBeClaimed
      ? element("button", {
        type: "button",
        "aria-describedby": heading,
        click: (event) => once(event.currentTarget, () => claim(promotion, made)),
      }, "Claim")
      : element("p", { class: promotion.status === "UNCLAIMED" ? "facts" : "done" }, standing(promotion)));
    return made;
  }

  async function claim({ id, title }, claimed) {
    const key = keys.get(id) ?? newKey();
    keys.set(id, key);
    showProblem(claimed, null);
    try {
      await call("POST", "promotions/claim", { body: { promotionId: id }, key });
      announce(`${title} is claimed.`);
      const changed = account.expectChange();
      await load(id);
      await changed;
      // It may have been on its way before.
      await load();
    } catch (error) {
      if (error instanceof Ended) trouble(error);
      else {
        // What was refused may be tried anew; what was not answered is asked again.
        if (error.status >= 400 && error.status < 500) keys.delete(id);
        const shown = Array.from(list.children).find(({ dataset }) => dataset.promotion === id);
        showProblem(shown ?? claimed, error);
      }
    }
  }

  /** Shows them; the one of this id, which has just been used, keeps the focus. */
  async function load(used) {
    try {
      const { promotions } = await get(`promotions/players/${encodeURIComponent(userId)}?limit=50`);
      const focused = document.activeElement?.closest("[data-promotion]")?.dataset.promotion ?? used;
      list.replaceChildren(...promotions.map(card));
      byId("no-promotions").hidden = promotions.length > 0;
      const again = Array.from(list.children).find(({ dataset }) => dataset.promotion === focused);
      const place = again?.querySelector("button") ?? again?.querySelector("h3");
      place?.setAttribute("tabindex", place.matches("button") ? "0" : "-1");
      place?.focus({ preventScroll: true });
    } catch (error) {
      trouble(error);
    }
  }

  return { load };
}

/** What a promotion is worth, in words. */
export const worth = ({ amount, currency }) => (currency ? `${amount} ${currency}` : `${amount} bonus`);

/** What was told to the player, newest first, and what is being told. */
function notificationsOf(trouble, arrived) {
  const list = byId("notifications");
  const live = byId("live");
  let leave = () => {};

  const told = ({ type, content }) => ({
    title: content.title ?? inWords(type),
    text: content.description ?? "",
  });

  function entry(notification) {
    const { title, text } = told(notification);
    return element("li", {
      class: notification.read ? "" : "unread",
      "data-notification": notification.id,
    },
    element("h3", {}, !notification.read && element("span", { class: "unseen" }, "Unread: "), title),
    text && element("p", {}, text),
    time(notification.createdAt));
  }

  function changed() {
    byId("no-notifications").hidden = list.children.length > 0;
    byId("read-all-line").hidden = !list.querySelector(".unread");
  }

  function tell(notification) {
    const made = entry(notification);
    made.classList.add("arrived");
    list.prepend(made);
    changed();
    const { title, text } = told(notification);
    announce(`New notification: ${title}. ${text}`);
    arrived();
  }

  function say(stands) {
    live.dataset.state = stands ? "on" : "off";
    live.textContent = stands ? "Live" : "Connecting";
  }

  async function begin() {
    try {
      const { notifications } = await get("notifications?limit=20");
      list.replaceChildren(...notifications.map(entry));
      changed();
      leave = listen(notifications[0]?.id ?? 0, tell, say, trouble);
    } catch (error) {
      trouble(error);
    }
  }

  const readAll = byId("read-all");
  readAll.addEventListener("click", () => once(readAll, async () => {
    try {
      await call("POST", "notifications/read-all", { key: newKey() });
      for (const unread of list.querySelectorAll(".unread")) {
        unread.classList.remove("unread");
        unread.querySelector(".unseen")?.remove();
      }
      byId("notifications-title").setAttribute("tabindex", "-1");
      byId("notifications-title").focus();
      changed();
      announce("All notifications are marked as read.");
    } catch (error) {
      trouble(error);
    }
  }));

  return { begin, end: () => leave() };
}
