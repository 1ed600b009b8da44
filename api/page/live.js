// Notifications as they arrive: a socket that comes back by itself and goes on where it was.

import { Ended, distrust, token } from "./session.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
/** How the server closes a socket: 4000 and the status that a request would have been answered with. */
const TOKEN_REFUSED = 4401;
const ROLE_REFUSED = 4403;

/**
 * Listens from after the notification `lastSeenId` on. `tell` gets each notification once, `say` whether the socket
 * stands, `fail` why it cannot be had any more. Returns what ends it.
 */
export function listen(lastSeenId, tell, say, fail) {
  const address = new URL("/api/v1/notifications/ws", location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  let socket = null;
  let timer = 0;
  let pause = FIRST_PAUSE_MS;
  let over = false;

  async function connect() {
    clearTimeout(timer);
    let current;
    try {
      current = await token();
    } catch (error) {
      if (error instanceof Ended) fail(error);
      else again();
      return;
    }
    if (over || socket) return;
    const opened = new WebSocket(address);
    socket = opened;
    opened.addEventListener("open", () => {
      opened.send(JSON.stringify({ type: "authenticate", token: current, lastSeenId }));
    });
    opened.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "ready") {
        // Fewer than were seen, where a backup was restored.
        lastSeenId = message.lastSeenId;
        pause = FIRST_PAUSE_MS;
        say(true);
      } else if (message.type === "notifications") {
        for (const notification of message.notifications) {
          if (notification.id <= lastSeenId) continue;
          lastSeenId = notification.id;
          tell(notification);
        }
      }
    });
    opened.addEventListener("close", ({ code }) => {
      socket = null;
      say(false);
      if (code === TOKEN_REFUSED) distrust();
      if (code === ROLE_REFUSED) fail(new Error("Only players are told things as they happen."));
      else again();
    });
  }

  function again() {
    if (over) return;
    // Not all pages at once after a restart of the server.
    timer = setTimeout(connect, pause * (0.5 + Math.random() / 2));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }

  const atOnce = () => {
    if (document.hidden || socket) return;
    pause = FIRST_PAUSE_MS;
    connect();
  };
  addEventListener("online", atOnce);
  document.addEventListener("visibilitychange", atOnce);
  connect();

  return () => {
    over = true;
    clearTimeout(timer);
    removeEventListener("online", atOnce);
    document.removeEventListener("visibilitychange", atOnce);
    socket?.close();
  };
}
