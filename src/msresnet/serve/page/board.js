/* A board to draw a character on, with a mouse, a finger, a pen or the keyboard.

Strokes are kept as lines of points, in 0 to 1 of the board's side. A model gets them as the digits that it learnt from
were prepared: in the middle of a square, of a certain size, with strokes of a certain width and softness, wherever and
however large they were drawn. Strokes 2.4 pixels wide are as soft as scanned ones; sharper ones cost a model of
scikit-learn's digits 12 points in 100 on drawings, and one of MNIST nothing. */

const STEP = 1 / 24, LARGEST = 3, SOFT = 2.4, CURSOR = "#4f9cf0";
const ARROWS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
const LINE = 0.085;

export class Board {
  /* `changed(done)` is called with whether a stroke is finished. */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    this.cursor = null;
    this.lowered = false;
    this.dark = false;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.end(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.lift());
  }

  get empty() {
    return this.strokes.length === 0;
  }

  get paper() {
    return this.dark ? "#ffffff" : "#000000";
  }

  get ink() {
    return this.dark ? "#000000" : "#ffffff";
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  begin(event) {
    if (event.button !== 0 || this.pointer !== undefined) return;
    this.lift();
    this.cursor = null;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.strokes.push([this.point(event)]);
    this.update(false);
  }

  go(event) {
    if (event.pointerId !== this.pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    this.strokes.at(-1).push(...(all.length ? all : [event]).map((one) => this.point(one)));
    this.update(false);
  }

  end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = undefined;
    this.update(true);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key === "z" && !event.altKey) this.undo();
      return;
    }
    const acts = { " ": () => this.toggle(), Backspace: () => this.undo(), Delete: () => this.clear() };
    const act = ARROWS[event.key] ? () => this.move(...ARROWS[event.key]) : acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  move(across, down) {
    const within = (value) => Math.min(1, Math.max(0, value));
    const [x, y] = this.cursor ?? [0.5, 0.5];
    this.cursor = [within(x + across * STEP), within(y + down * STEP)];
    if (this.lowered) this.strokes.at(-1).push(this.cursor);
    this.update(false, this.lowered);
  }

  toggle() {
    if (this.lowered) return this.lift();
    this.cursor ??= [0.5, 0.5];
    this.lowered = true;
    this.strokes.push([this.cursor]);
    this.update(false);
  }

  lift() {
    if (!this.lowered) return;
    this.lowered = false;
    this.update(true);
  }

  undo() {
    this.lowered = false;
    this.strokes.pop();
    this.update(true);
  }

  clear() {
    this.lowered = false;
    this.strokes = [];
    this.update(true);
  }

  update(done, told = true) {
    this.paint();
    if (told) this.changed(done);
  }

  paint() {
    const { canvas } = this, side = canvas.width, brush = canvas.getContext("2d");
    lines(brush, this, (x, y) => [x * side, y * side], LINE * side, side);
    if (!this.cursor) return;
    brush.strokeStyle = CURSOR;
    brush.lineWidth = this.lowered ? 8 : 3;
    brush.beginPath();
    brush.arc(this.cursor[0] * side, this.cursor[1] * side, 0.035 * side, 0, 7);
    brush.stroke();
  }

  /* The drawing as a canvas for a model's pen, {fill, stroke, dark}; for people, of so many pixels a side. */
  prepared(pen, side = Math.round(SOFT / pen.stroke)) {
    const points = this.strokes.flat(), xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = Math.min(LARGEST, (pen.fill - pen.stroke) / Math.max(right - left, bottom - top, 1e-6));
    const place = (x, y) => [
      side * (0.5 + scale * (x - (left + right) / 2)),
      side * (0.5 + scale * (y - (top + bottom) / 2)),
    ];
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const colours = { strokes: this.strokes, paper: pen.dark ? "#fff" : "#000", ink: pen.dark ? "#000" : "#fff" };
    lines(canvas.getContext("2d"), colours, place, pen.stroke * side, side);
    return canvas;
  }
}

function lines(brush, { strokes, paper, ink }, place, width, side) {
  brush.fillStyle = paper;
  brush.fillRect(0, 0, side, side);
  Object.assign(brush, { strokeStyle: ink, lineWidth: width, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    brush.beginPath();
    brush.moveTo(...place(...stroke[0]));
    for (const point of stroke.slice(1)) brush.lineTo(...place(...point));
    if (stroke.length === 1) brush.lineTo(...place(...stroke[0]));
    brush.stroke();
  }
}
