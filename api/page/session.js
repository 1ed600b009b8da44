// Who is logged in, and calls in their name. The access token is in memory alone; what renews it is in a cookie that no
// script can read.

const API = "/api/v1";
/** Where the name of whoever logged in here last is kept: a reminder to look for a session, and no secret. */
const REMINDER = "meed.name";
/** An access token is renewed so many milliseconds before its end. */
const AHEAD_MS = 30_000;

let session = null;
let renewing = null;

/** What the API said in place of an answer (RFC 9457). */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `The server answered ${status}.`);
    this.status = status;
    this.code = document.code || "";
    this.requestId = document.requestId || "";
  }
}

/** The session has ended; whoever wants more logs in again. */
export class Ended extends Error {}

async function send(method, path, { body, headers = {} } = {}) {
  const request = { method, headers: { accept: "application/json", ...headers } };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers["content-type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path.startsWith("/") ? path : `${API}/${path}`, request);
  } catch {
    throw new Problem(0, { detail: "The server cannot be reached. Try again in a moment." });
  }
  const text = await answer.text();
  let document = {};
  try {
    document = text ? JSON.parse(text) : {};
  } catch {
    // A proxy in between has its own way to say no.
  }
  if (!answer.ok) throw new Problem(answer.status, document);
  return { document, headers: answer.headers };
}

function begin(tokens, name) {
  session = {
    accessToken: tokens.accessToken,
    until: Date.now() + tokens.expiresIn * 1000 - AHEAD_MS,
    userId: tokens.userId,
    roles: tokens.roles,
    name,
  };
  localStorage.setItem(REMINDER, name);
  return session;
}

function end() {
  session = null;
  localStorage.removeItem(REMINDER);
}

/** A key that no other request has. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function register(username, password, key) {
  await send("POST", "auth/register", {
    body: { username, password },
    headers: { "idempotency-key": key },
  });
}

export async function logIn(username, password) {
  const { document } = await send("POST", "auth/login", {
    body: { username, password, tokenDelivery: "cookie" },
  });
  return begin(document, username);
}

/** The session that the cookie goes on with, if there is one. */
export async function resume() {
  if (!localStorage.getItem(REMINDER)) return null;
  try {
    return await renew();
  } catch (error) {
    if (error instanceof Ended) return null;
    throw error;
  }
}

export async function logOut() {
  end();
  await send("POST", "auth/logout", { body: {} });
}

/** The next access token. Whoever asks meanwhile waits for the same one. */
function renew() {
  renewing ??= (async () => {
    try {
      const { document } = await send("POST", "auth/refresh", { body: {} });
      if (session && session.userId !== document.userId) {
        // Somebody else has logged in, in another tab: what this page shows is not theirs.
        session = null;
        throw new Ended("Somebody else has logged in. Load the page anew.");
      }
      return begin(document, localStorage.getItem(REMINDER) || "");
    } catch (error) {
      if (error instanceof Ended || (error.status !== 401 && error.status !== 403)) throw error;
      end();
      throw new Ended("Your session has ended. Log in again.");
    } finally {
      renewing = null;
    }
  })();
  return renewing;
}

/** An access token that is valid for a while yet. */
export async function token() {
  if (!session) throw new Ended("You are logged out.");
  if (Date.now() >= session.until) await renew();
  return session.accessToken;
}

/** The access token was refused before its time; the next one is asked for. */
export function distrust() {
  if (session) session.until = 0;
}

/** A call in the name of whoever is logged in. Resolves to the answer's document and headers. */
export async function call(method, path, { body, key, fresh } = {}) {
  const attempt = async () => {
    const headers = { authorization: `Bearer ${await token()}` };
    if (key) headers["idempotency-key"] = key;
    if (fresh) headers["cache-control"] = "no-cache";
    return send(method, path, { body, headers });
  };
  try {
    return await attempt();
  } catch (error) {
    if (error.code !== "INVALID_TOKEN") throw error;
    await renew();
    return attempt();
  }
}

export const get = async (path, options) => (await call("GET", path, options)).document;
