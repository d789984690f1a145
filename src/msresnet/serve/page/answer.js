/* An answer and its reasons as elements. What is shown depends on what the answer contains, not on the model's task. */

export function make(tag, settings = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name in made && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const HEAT = "Heat map", LONG = 6;

/* Pixels across below which a picture's own pixels are to be seen. */
export const COARSE = 100;

export const percent = (share) => {
  const value = 100 * share;
  return `${value >= 99.95 || value < 0.05 ? value.toFixed(0) : value.toFixed(1)} %`;
};

export const time = (ms) => (ms < 1000 ? `${ms.toPrecision(ms < 10 ? 2 : 3)} ms` : `${(ms / 1000).toFixed(1)} s`);

/* Hues that are this far apart never come close to each other, however many there are. */
const hue = (place) => `hsl(${(210 + 222.5 * place) % 360} 75% 62%)`;

/* The rows of an answer: [{label, share, colour}], its headline, and how sure it is in words. */
function read(result) {
  if (result.top) {
    const rows = result.top.map(({ label, probability }) => ({ label, share: probability }));
    return { headline: result.label, words: `${percent(result.probability)} sure`, rows };
  }
  if (result.detections) {
    const names = [...new Set(result.detections.map(({ label }) => label))];
    const rows = result.detections.map(({ label, score }) => ({ label, share: score, colour: hue(names.indexOf(label)) }));
    const count = rows.length;
    return { headline: count ? `${count} found` : "Nothing found", words: names.join(", "), rows };
  }
  if (result.shares) {
    const rows = result.shares.map(({ label, share }) => ({ label, share, colour: result.mask?.colours[label] }));
    return { headline: rows[0]?.label ?? "Nothing", words: rows[0] ? `${percent(rows[0].share)} of the picture` : "", rows };
  }
  return { headline: "Answered", words: "", rows: [] };
}

function track(share, colour) {
  const fill = make("span", { className: "fill" });
  fill.style.width = `${Math.max(0.4, 100 * Math.min(1, share))}%`;
  if (colour) fill.style.background = colour;
  return make("span", { className: "track" }, fill);
}

function bar({ label, share, colour }, why) {
  const name = make("span", { className: "name" }, label);
  if (colour) {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = colour;
    name.prepend(swatch);
  }
  const parts = [name, track(share, colour), make("span", { className: "value" }, percent(share))];
  if (!why) return make("li", {}, make("div", { className: "bar" }, ...parts));
  const button = make("button", { type: "button", className: "bar", title: `Where is ${label}?` }, ...parts);
  button.dataset.label = label;
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => why(label));
  return make("li", {}, button);
}

function boxes(result, image) {
  const { detections } = result, names = [...new Set(detections.map(({ label }) => label))];
  const layer = make("div", { className: "layer boxes" });
  const place = () => {
    const width = result.width ?? image.naturalWidth, height = result.height ?? image.naturalHeight;
    const made = detections.map(({ label, score, box: [left, top, right, bottom] }) => {
      const frame = make("div", { className: "box" }, make("span", {}, `${label} ${percent(score)}`));
      Object.assign(frame.style, {
        left: `${(100 * left) / width}%`,
        top: `${(100 * top) / height}%`,
        width: `${(100 * (right - left)) / width}%`,
        height: `${(100 * (bottom - top)) / height}%`,
      });
      frame.style.setProperty("--hue", hue(names.indexOf(label)));
      return frame;
    });
    layer.replaceChildren(...made.reverse()); // the surest lies on top
  };
  if (image.complete && image.naturalWidth) place();
  else image.addEventListener("load", place, { once: true });
  return layer;
}

/* Layers over a picture, of which one or none is shown, and a button for each. */
class Layers {
  constructor(view) {
    this.view = view;
    this.buttons = make("div", { className: "layers", role: "group", "aria-label": "Over the picture" });
    this.known = new Map();
  }

  add(name, layer) {
    this.known.get(name)?.button.remove();
    this.known.get(name)?.layer.remove();
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => this.show(layer.hidden ? name : null));
    this.known.set(name, { button, layer });
    this.view.append(layer);
    this.buttons.append(button);
  }

  get shown() {
    return [...this.known].find(([, { layer }]) => !layer.hidden)?.[0] ?? null;
  }

  show(wanted) {
    for (const [name, { button, layer }] of this.known) {
      layer.hidden = name !== wanted;
      button.setAttribute("aria-pressed", name === wanted);
    }
    this.view.classList.toggle("dimmed", wanted === HEAT);
    if (this.caption) this.caption.hidden = this.known.has(HEAT) && wanted !== HEAT;
  }
}

export class Answer {
  /* A place for the answers of one model; `why(label)` asks for the reasons of another class. */
  constructor(model, why) {
    this.model = model;
    this.why = model.explains ? why : null;
    this.element = make("article", { "aria-label": `Answer of ${model.name}` });
    this.invite("The answer appears here.");
  }

  head() {
    const { name, architecture, parameters, classes } = this.model;
    const facts = `${architecture} · ${parameters.toLocaleString("en")} parameters · ${classes} classes`;
    return make("header", {}, make("h3", {}, name), make("p", { className: "soft" }, facts));
  }

  invite(words) {
    this.kept = null;
    this.element.classList.remove("waiting");
    this.element.replaceChildren(this.head(), make("p", { className: "soft empty" }, words));
  }

  fail(words) {
    this.kept = null;
    this.element.classList.remove("waiting");
    this.element.replaceChildren(this.head(), make("p", { className: "problem" }, words));
  }

  wait() {
    this.element.classList.add("waiting");
  }

  /* Show an answer; the picture is {url, words}. Returns it in words. */
  show({ result, timing }, picture) {
    const { headline, words, rows } = read(result);
    const image = make("img", { src: picture.url, alt: picture.words, className: "base" });
    image.addEventListener("load", () => image.classList.toggle("coarse", image.naturalWidth < COARSE));
    const view = make("div", { className: "view" }, image), caption = make("figcaption", { className: "soft" });
    const layers = new Layers(view), reasons = make("div");
    this.kept = { view, image, layers, caption, reasons };
    layers.caption = caption;
    if (result.mask) {
      const source = { src: result.mask.image, alt: "the class of each pixel, in colours", className: "layer mask" };
      layers.add("Mask", make("img", source));
      layers.show("Mask");
    }
    if (result.detections) {
      layers.add("Boxes", boxes(result, image));
      layers.show("Boxes");
    }
    const list = make("ul", { className: "bars", "aria-label": "Probabilities" }, ...rows.map((row) => bar(row, this.why)));
    const facts = make("div", { className: "facts" },
      make("p", { className: headline.length > LONG ? "headline long" : "headline" }, headline),
      make("p", { className: "sure" }, words && `${words} · `,
        make("span", { className: "soft", title: `${time(timing.compute_ms)} of it in the network` }, `answered in ${time(timing.total_ms)}`)),
      list,
      this.why && make("p", { className: "soft hint" }, "Choose a row to see what speaks for it."));
    if (!rows.length) facts.append(make("pre", {}, JSON.stringify(result, null, 1)));
    const figure = make("figure", {}, view, layers.buttons, caption);
    image.addEventListener("error", () => view.classList.add("hidden"), { once: true });
    this.element.classList.remove("waiting");
    this.element.replaceChildren(this.head(), make("div", { className: "first" }, facts, figure), this.kept.reasons);
    return `${headline}, ${words}`;
  }

  looking(label) {
    this.press(label);
    this.kept.caption.hidden = false;
    this.kept.caption.textContent = "Looking for where that is …";
  }

  press(label) {
    for (const button of this.element.querySelectorAll("button.bar"))
      button.setAttribute("aria-pressed", button.dataset.label === label);
  }

  /* Show the reasons; over the picture too, where they were asked for or nothing else is. Returns them in words. */
  explain(found, asked) {
    const { view, image, layers, caption, reasons } = this.kept, before = layers.shown;
    this.press(found.class);
    if (view.classList.contains("hidden")) {  // a picture that this browser cannot show
      image.src = found.seen;
      view.classList.remove("hidden");
      found.box = [0, 0, 1, 1];
    }
    const [left, top, right, bottom] = found.box.map((value) => 100 * value);
    const heat = make("img", { src: found.heat, alt: `bright where it speaks for ${found.class}`, className: "layer heat" });
    Object.assign(heat.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    layers.add(HEAT, heat);
    layers.show(asked || layers.known.size === 1 ? HEAT : before);
    caption.replaceChildren(
      make("span", { className: "scale", "aria-hidden": "true" }),
      `The brighter a place, the more it speaks for ${found.class} (${found.method.replaceAll("-", " ")}, ${time(found.ms)}).`);
    reasons.replaceChildren(this.details(found), this.seen(found));
    return found.words;
  }

  unexplained(words) {
    this.kept.caption.hidden = false;
    this.kept.caption.textContent = words;
  }

  details({ scales, blocks, words, class: label }) {
    if (!scales.length) return "";
    const row = ({ name, pixels, share }, place) => make("li", {}, make("div", { className: "bar" },
      make("span", { className: "name" },
        make("span", { className: `dot size-${scales.length - place}`, "aria-hidden": "true" }), name,
        make("span", { className: "soft" }, `${pixels} px`)),
      track(share), make("span", { className: "value" }, percent(share))));
    const cells = blocks.map(({ block, shares }) => make("tr", {}, make("th", { scope: "row" }, block),
      ...shares.map((share) => {
        const cell = make("td", {}, percent(share));
        cell.style.setProperty("--s", share);
        return cell;
      })));
    const table = make("table", {}, make("caption", {}, "Share of each size in each block, from the picture's side to the answer's"),
      make("thead", {}, make("tr", {}, ...["block", ...scales.map(({ name }) => name)].map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...cells));
    return make("section", { className: "details" },
      make("h4", {}, `What it looked at for ${label}`),
      make("p", {}, words),
      make("ul", { className: "bars scales", "aria-label": "Share of the details of each size" }, ...scales.map(row)),
      make("details", {}, make("summary", {}, "Block by block"), make("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": "Block by block" }, table)));
  }

  seen({ seen }) {
    const { height, width, channels } = this.model.input;
    const kind = channels === 1 ? "grey" : "colour";
    return make("section", { className: "seen" },
      make("img", { src: seen, alt: "the picture as the network saw it", className: width < COARSE ? "coarse" : "" }),
      make("p", { className: "soft" }, `What reached the network: ${width} × ${height} pixels, ${kind}.`));
  }
}
