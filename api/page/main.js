// The page: who is there decides what is shown.

import { byId } from "./dom.js";
import { entrance } from "./entrance.js";
import { player } from "./player.js";
import { Ended, logOut, resume } from "./session.js";
import { staff } from "./staff.js";

const content = byId("content");
/** Ends what the part that is shown has begun. */
let leavePart = () => {};

/** Puts a part in the place of the last one; `enter` returns what is to be done when it is left. */
function show(enter, ...values) {
  leavePart();
  leavePart = () => {};
  content.replaceChildren();
  const left = enter(content, ...values);
  leavePart = left ?? leavePart;
  content.querySelector("h1")?.focus();
}

function showWhoever(session) {
  byId("whoever").hidden = !session;
  byId("sections").hidden = true;
  byId("name").textContent = session?.name ?? "";
}

function enterAs(session) {
  showWhoever(session);
  const works = session.roles.includes("staff") || session.roles.includes("admin");
  show(works ? staff : player, session, fail);
}

function leave(message) {
  showWhoever(null);
  show(entrance, enterAs, message);
}

/** What a part could not do. Where the session has ended, everything else has. */
function fail(error) {
  if (error instanceof Ended) leave(error.message);
  else console.warn(error);
}

byId("leave").addEventListener("click", async () => {
  leave("");
  // Without the server the session ends by itself in the end; here it is forgotten.
  await logOut().catch(() => {});
});

const session = await resume().catch(() => null);
if (session) enterAs(session);
else leave("");
