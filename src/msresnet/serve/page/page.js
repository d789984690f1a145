/* The page: ways to give a picture, and the answers of one model or of two beside each other. */

import { COARSE } from "./answer.js";
import { examples, models, useKey } from "./ask.js";
import { Board } from "./board.js";
import { Slot, words } from "./slot.js";

const at = (id) => document.getElementById(id);
const show = (id, shown) => (at(id).hidden = !shown);

let known = [], slots = [], mode = "", picture = null, stream = null;

/* What is said to those who do not see the page, and, of two answers, whether they are the same. */
function compare() {
  at("status").textContent = slots.map((slot) => slot.said).filter(Boolean).join(" ");
  const said = slots.map((slot) => slot.headline);
  const both = said.length === 2 && said.every((label) => label !== undefined);
  show("verdict", slots.length === 2);
  at("verdict").textContent = "Two models, one picture";
  if (!both) return;
  at("verdict").textContent = said[0] === said[1] ? `Both say ${said[0]}.` : `They disagree: ${said[0]} and ${said[1]}.`;
}

function ask(given, done = true) {
  picture = given;
  for (const slot of slots) slot.ask(given, done);
}

function forget(text) {
  picture = null;
  for (const slot of slots) slot.rest(text);
}

function problem(text) {
  show("problem", text);
  at("problem").textContent = text ?? "";
}

/* Drawing */

const toBlob = (canvas, ...kind) => new Promise((resolve) => canvas.toBlob(resolve, ...kind));

const board = new Board(at("board"), (done) => {
  show("invitation", board.empty);
  at("undo").disabled = at("clear").disabled = board.empty;
  if (board.empty) return forget("The answer appears here.");
  ask({ make: drawing }, done);
});

const USUAL = { fill: 0.8, stroke: 0.1, dark: false };

async function drawing({ drawing: pen }) {
  const chosen = pen ?? USUAL, blob = await toBlob(board.prepared(chosen));
  return { blob, url: board.prepared(chosen, 280).toDataURL(), words: "your drawing" };
}

/* Files, whatever way they come */

function give(blob, text) {
  problem();
  stopCamera();
  setMode("file");
  const url = URL.createObjectURL(blob), preview = at("preview");
  if (preview.src.startsWith("blob:")) URL.revokeObjectURL(preview.src);
  preview.onload = () => {
    preview.classList.toggle("coarse", preview.naturalWidth < COARSE);
    stage("preview");
  };
  preview.onerror = () => {
    at("blank").textContent = "This browser cannot show the file; the model may still read it.";
    stage("blank");
  };
  preview.alt = text;
  preview.src = url;
  ask({ make: async () => ({ blob, url, words: text }) });
}

function file(list, otherwise) {
  const found = [...list].find((one) => one.type.startsWith("image/")) ?? list[0];
  if (found) give(found, found.name || "a picture");
  else problem(otherwise);
}

for (const id of ["file", "shot"])
  at(id).addEventListener("change", ({ target }) => {
    if (target.files.length) file(target.files);
    target.value = "";
  });
for (const id of ["choose", "another"]) at(id).addEventListener("click", () => at("file").click());

addEventListener("paste", (event) => {
  if (event.target.matches("input:not([type=file])")) return;
  file(event.clipboardData.files, "What was pasted is not a picture.");
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("stage").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("stage").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  at("stage").classList.remove("over");
  file(event.dataTransfer.files, "What was dropped is not a file. Save the picture first, then drop its file.");
});

/* The camera */

async function startCamera() {
  if (!navigator.mediaDevices) return at("shot").click(); // pages that came without encryption may only ask for a photograph
  setMode("camera");
  problem();
  at("blank").textContent = "Waiting for the camera …";
  stage("blank");
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (mode !== "camera") return opened.getTracks().forEach((track) => track.stop());
    stream = opened;
    at("camera").srcObject = stream;
    await at("camera").play();
    stage("camera");
  } catch (error) {
    if (mode !== "camera") return;
    at("blank").textContent =
      error.name === "NotAllowedError" ? "The browser was not allowed to use the camera." : "No camera was found.";
  }
}

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  at("camera").srcObject = null;
}

at("take").addEventListener("click", async () => {
  const video = at("camera"), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  give(await toBlob(canvas, "image/jpeg", 0.95), "your photograph");
  at("another").focus();
});

/* What the stage shows, and which buttons belong to it */

function stage(shown) {
  for (const id of ["board", "preview", "camera", "blank", "choose"]) show(id, id === shown);
  show("invitation", shown === "board" && board.empty);
  for (const id of ["undo", "clear"]) show(id, shown === "board");
  show("take", shown === "camera");
  show("another", mode === "file" && shown !== "choose");
}

function setMode(chosen) {
  mode = chosen;
  for (const button of at("modes").children) button.setAttribute("aria-pressed", button.dataset.mode === chosen);
}

function open(chosen) {
  problem();
  stopCamera();
  if (chosen === "camera") return startCamera();
  setMode(chosen);
  stage(chosen === "draw" ? "board" : "choose");
  forget("The answer appears here.");
  if (chosen === "draw" && !board.empty) ask({ make: drawing });
}

at("modes").addEventListener("click", ({ target }) => {
  if (target.dataset.mode) open(target.dataset.mode);
});
at("undo").addEventListener("click", () => board.undo());
at("clear").addEventListener("click", () => {
  board.clear();
  at("board").focus({ preventScroll: true });
});

/* Models */

function choose() {
  const chosen = [at("first").value, at("second").value].filter((name, place) => name && (!place || name !== at("first").value));
  for (const slot of slots) slot.rest("");
  slots = chosen.map((name) => new Slot(known.find((model) => model.name === name), compare));
  at("columns").replaceChildren(...slots.map((slot) => slot.answer.element));
  at("columns").dataset.count = slots.length;
  const pens = slots.map((slot) => slot.model.drawing).filter(Boolean);
  const how = pens.length ? "Draw, or give a picture" : "Give a picture";
  at("about").textContent = `${how}: ${slots.length > 1 ? "two models answer" : "the model answers"}, and you see why.`;
  compare();
  at("modes").querySelector("[data-mode=draw]").hidden = !pens.length;
  board.dark = pens[0]?.dark ?? false;
  at("stage").classList.toggle("light", board.dark);
  board.paint();
}

async function offer(model) {
  const found = await examples(model.name).catch(() => []);
  if (slots[0]?.model !== model) return;
  show("examples", found.length);
  at("example-list").replaceChildren(...found.map(({ source, words: text }) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = new Image();
    Object.assign(image, { src: source, alt: text });
    Object.assign(button, { type: "button" });
    button.append(image);
    button.addEventListener("click", async () => give(bytes(source), text));
    item.append(button);
    return item;
  }));
}

function bytes(source) {
  const text = atob(source.slice(source.indexOf(",") + 1));
  return new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], { type: "image/png" });
}

function changed() {
  choose();
  offer(slots[0].model);
  if (mode === "draw" && !slots[0].model.drawing) open("file");
  else if (picture) ask(picture);
}

async function start() {
  known = await models();
  show("key", false);
  show("main", true);
  const names = known.map(({ name }) => name);
  at("first").replaceChildren(...names.map((name) => new Option(name)));
  at("second").replaceChildren(new Option("none", ""), ...names.map((name) => new Option(name)));
  at("second").value = names.length > 1 ? names[1] : "";
  show("choosers", names.length > 1);
  for (const id of ["first", "second"]) at(id).addEventListener("change", changed);
  choose();
  open(slots[0].model.drawing ? "draw" : "file");
  offer(slots[0].model);
}

function begin(tried) {
  start().catch((error) => {
    if (error.status !== 401) return (at("about").textContent = words(error));
    show("key", true);
    at("about").textContent = "";
    show("key-problem", tried);
    at("key-problem").textContent = tried ? "That is not the key." : "";
    at("key-text").select();
  });
}

at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key-text").value);
  begin(true);
});

begin(false);
