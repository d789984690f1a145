/* The place of one model: it asks the server about one picture after another, and shows what comes back. */

import { Answer } from "./answer.js";
import { explain, predict, Refused } from "./ask.js";

const PAUSE = 250;

export class Slot {
  /* `changed()` is called when the answer, or what there is to say of it, is another. */
  constructor(model, changed) {
    this.model = model;
    this.changed = changed;
    this.answer = new Answer(model, (label) => this.explain(label));
  }

  /* Ask about what gives, by `make(model)`, a picture {blob, url, words}: a drawing is prepared for each model. Of those that
     come while one is asked about, only the latest is; `done` tells whether it stays, so that reasons are worth it. */
  async ask(given, done) {
    this.wanted = { given, done };
    this.leave();
    if (this.busy) return;
    this.busy = true;
    for (let now = null; this.wanted && this.wanted !== now; ) {
      now = this.wanted;
      await this.once(now).catch((error) => this.fail(error, now));
    }
    this.busy = false;
  }

  /* Wait for reasons no longer. */
  leave() {
    this.stop?.abort();
    this.stop = null;
  }

  /* For those who do not see the page. */
  tell(text) {
    this.said = text && `${this.model.name}: ${text}`;
    this.changed();
  }

  async once(now) {
    this.answer.wait();
    const made = await now.given.make(this.model);
    const found = await predict(this.model.name, made.blob);
    if (this.wanted !== now) return;
    this.given = made;
    this.headline = found.result.label;
    this.words = this.answer.show(found, made);
    if (!now.done) return this.changed();
    this.tell(`${this.words}.`);
    await new Promise((resolve) => setTimeout(resolve, PAUSE)); // the next stroke may follow
    if (this.model.explains && this.wanted === now) this.explain();
  }

  async explain(label) {
    this.leave();
    const stop = (this.stop = new AbortController());
    this.answer.looking(label ?? this.headline);
    try {
      const found = await explain(this.model.name, this.given.blob, label ?? this.headline, stop.signal);
      if (this.stop === stop) this.tell(`${this.words}. ${this.answer.explain(found, label !== undefined)}`);
    } catch (error) {
      if (this.stop === stop) this.answer.unexplained(words(error));
    }
  }

  fail(error, now) {
    if (this.wanted !== now) return;
    this.headline = undefined;
    this.answer.fail(words(error));
    this.tell(words(error));
  }

  rest(text) {
    this.wanted = null;
    this.leave();
    this.headline = undefined;
    this.answer.invite(text);
    this.tell("");
  }
}

export function words(error) {
  if (error instanceof Refused) return error.message;
  console.error(error);
  return "Something went wrong in the page itself.";
}
