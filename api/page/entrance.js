// Logging in and registering.

import { announce, byId, copy, firstWrong, once, showProblem } from "./dom.js";
import { logIn, newKey, register } from "./session.js";

const LOG_IN = { title: "Log in", question: "New here?", other: "Register", autocomplete: "current-password" };
const REGISTER = { title: "Register", question: "Registered already?", other: "Log in", autocomplete: "new-password" };

/** `enter` is called with the session; `message` says why somebody is back here. */
export function entrance(content, enter, message) {
  content.append(copy("entrance"));
  const form = byId("entrance-form");
  const submit = form.querySelector("button");
  let mode = LOG_IN;
  let key = newKey();

  const take = (next) => {
    mode = next;
    byId("entrance-title").textContent = mode.title;
    submit.textContent = mode.title;
    byId("entrance-question").textContent = mode.question;
    byId("entrance-switch").textContent = mode.other;
    const registers = mode === REGISTER;
    for (const hint of form.querySelectorAll(".hint")) hint.hidden = !registers;
    form.password.autocomplete = mode.autocomplete;
    form.password.minLength = registers ? 12 : 0;
    showProblem(form, null);
  };
  take(LOG_IN);
  if (message) {
    showProblem(form, { message });
    announce(message);
  }

  byId("entrance-switch").addEventListener("click", () => {
    take(mode === LOG_IN ? REGISTER : LOG_IN);
    form.username.focus();
  });
  // Another registration is another request.
  form.addEventListener("input", () => { key = newKey(); });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (firstWrong(form)) return;
    once(submit, async () => {
      showProblem(form, null);
      const [username, password] = [form.username.value.trim(), form.password.value];
      try {
        if (mode === REGISTER) await register(username, password, key);
        enter(await logIn(username, password));
      } catch (error) {
        showProblem(form, error);
        form.password.focus();
        form.password.select();
      }
    });
  });
}
