/* Questions to the server. What it refuses for being busy is asked again, as often and as late as it says. */

const PATIENCE = 4, KEPT = "msresnet-key";

export class Refused extends Error {
  constructor(words, status) {
    super(words);
    this.status = status;
  }
}

/* The server's key, for as long as the tab is open. */
let key = sessionStorage.getItem(KEPT) ?? "";

export function useKey(text) {
  key = text;
  sessionStorage.setItem(KEPT, text);
}

const rest = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

async function send(path, options) {
  try {
    return await fetch(path, { ...options, headers: key ? { Authorization: `Bearer ${key}` } : {} });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?");
  }
}

/* What a refusal says, in words; answers that are not JSON come from something in between. */
async function reason(response) {
  const said = await response.json().catch(() => ({}));
  const parts = [said.error ?? said.detail, said.why].filter((part) => typeof part === "string" && part);
  const words = parts.join(": ");
  if (words) return `${words[0].toUpperCase()}${words.slice(1)}.`;
  return `The server refuses with status ${response.status}.`;
}

async function json(path, options) {
  for (let tried = 1; ; tried++) {
    const response = await send(path, options);
    if (response.ok) return response.json();
    if (![429, 503].includes(response.status) || tried === PATIENCE) throw new Refused(await reason(response), response.status);
    await rest(1000 * (Number(response.headers.get("Retry-After")) || 1), options.signal);
  }
}

const post = (path, query, fields, signal) => {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  return json(`${path}?${new URLSearchParams(query)}`, { method: "POST", body, signal });
};

export const models = () => json("page/models", {});

export const examples = (model) => json(`page/examples?${new URLSearchParams({ model })}`, {});

export const predict = (model, image) => post("predict", { model, draw: true }, { image });

export const explain = (model, image, label, signal) =>
  post("explain", { model }, label === undefined ? { image } : { image, class: label }, signal);
