// Asks the server. Whatever goes wrong becomes an error whose message is a sentence for people.

import { byId } from "/page/dom.js";

const KEY = "graphsys-token";
let asking = null; // the one dialog that all requests refused with 401 wait for
let declined = false; // nobody is asked twice

export class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

export const getJson = async (path, options) => parse(await (await ask(path, options)).text());
export const getText = async (path, options) => (await ask(path, options)).text();
export const getBinary = async (path, options) => (await ask(path, options)).arrayBuffer();
export const postJson = (path, body, options) =>
  getJson(path, { ...options, method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });

/** Ids are text from here on: an integer beyond 2^53 would lose its last digits as a number. */
function parse(text) {
  return JSON.parse(text, (key, value, context) =>
    key === "id" && typeof value === "number" ? (context?.source ?? String(value)) : value);
}

async function ask(path, { headers = {}, ...options } = {}) {
  for (;;) {
    const used = sessionStorage.getItem(KEY);
    const response = await send(path, { ...options, headers: used === null ? headers : { ...headers, authorization: `Bearer ${used}` } });
    if (response.ok) return response;
    const sentence = await reason(response);
    if (response.status !== 401 || declined) throw new Refusal(response.status, sentence);
    if (used === sessionStorage.getItem(KEY)) await newToken(used === null ? "" : sentence);
  }
}

async function send(path, options) {
  try {
    return await fetch(path, { ...options, credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer. It may have been stopped; the page tries again by itself.");
  }
}

async function reason(response) {
  const kind = response.headers.get("content-type") ?? "";
  if (kind.startsWith("application/problem+json")) return sentence((await response.json()).detail);
  return `The server refused with status ${response.status}.`;
}

/** Turn the detail of a problem into a sentence. */
function sentence(detail) {
  const text = detail.trim();
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
}

function newToken(why) {
  asking ??= showDialog(why).finally(() => { asking = null; });
  return asking;
}

async function showDialog(why) {
  const dialog = byId("ask"), input = byId("token");
  byId("ask-text").textContent = why;
  byId("ask-text").hidden = why === "";
  input.value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  input.focus();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const token = input.value.trim();
  input.value = "";
  if (dialog.returnValue !== "yes" || token === "") {
    declined = true;
    throw new Refusal(401, "Without a token this server shows nothing. Reload the page to be asked again.");
  }
  if (/[^\x21-\x7e]/.test(token)) return showDialog("A token is made of letters, digits and signs, without spaces.");
  sessionStorage.setItem(KEY, token);
  return undefined;
}
