/** From a result of the service to items: objects and areas, with the elements that show them. */

// M. Okabe and K. Ito, "Color Universal Design" (2008), as in keras_maskrcnn/drawing/colours.py.
const PALETTE = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [0, 114, 178], [213, 94, 0]];

/** An HTML element with properties and children. */
export function html(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

/** An SVG element with attributes and children. */
export function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/**
 * The items of a result, in its order. Each has the `object` of the result, `index`, `name` of the class, `label` to
 * draw, `colour`, `path` (of SVG), `size` in pixels, and its elements `area`, `mark` and `row`.
 */
export function itemsOf({ objects = [], semantic = [] }) {
  const found = [...objects, ...semantic];
  const oneClass = new Set(found.map(nameOf)).size < 2;
  return found.map((object, index) => itemOf(object, index, oneClass));
}

/** The elements of an item. */
export const nodesOf = ({ area, mark, row }) => [area, mark, row];

/** Items from the largest to the smallest, so that none hides a smaller one. */
export const largestFirst = (items) => items.toSorted((one, other) => other.size - one.size);

/** Where the label of a box begins, with sides of a text pixel in pixels of the photo: above the box if there is space. */
export const labelPlace = ([x, y], pixel) => [x, y < 16 * pixel ? y + 13 * pixel : y - 4 * pixel];

/** Class, score and area of an item in words; the area also as a share of the photo, if its pixels are given. */
export function describe({ object, name }, whole) {
  const share = whole ? ` (${((100 * object.area) / whole).toFixed(1)} %)` : "";
  const score = object.score === undefined ? [] : [`score ${object.score.toFixed(2)}`];
  return [name, ...score, `area ${pixels(object.area)}${share}`];
}

/** Key points that are sure, which have a logit above 2, as in keras_maskrcnn/drawing/skeletons.py. */
export const pointsOf = ({ keypoints = [], keypoint_scores: scores }) =>
  keypoints.filter(([, , visible], index) => visible > 0 && !(scores?.[index] <= 2));

const nameOf = (object) => object.class ?? `class ${object.label}`;

const pixels = (area) => `${Math.round(area).toLocaleString("en")} px`;

function itemOf(object, index, oneClass) {
  const name = nameOf(object), score = object.score?.toFixed(2);
  const label = [oneClass && score ? "" : name, score].filter(Boolean).join(" ");
  const item = { object, index, name, label, colour: colourOf(index), path: pathOf(object), size: object.area, shown: true };
  item.area = svg("path", { d: item.path, class: "area" });
  item.mark = markOf(item);
  item.row = rowOf(item);
  for (const node of nodesOf(item)) {
    node.dataset.index = index;
    node.style.setProperty("--colour", item.colour);
  }
  return item;
}

/** Box, key points and label. */
function markOf({ object, label }) {
  const points = pointsOf(object).map(([x, y]) => svg("circle", { cx: x, cy: y, class: "point" }));
  if (!object.box) return svg("g", { class: "mark" });
  const [x1, y1, x2, y2] = object.box;
  const box = svg("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: "box" });
  return svg("g", { class: "mark" }, box, ...points, svg("text", { class: "label" }, label));
}

/** The button in the list. */
function rowOf(item) {
  const { object, name, index } = item;
  const numbers = [object.score?.toFixed(2) ?? "", pixels(object.area)];
  return html(
    "button",
    { type: "button", tabIndex: -1, ariaPressed: "false", ariaLabel: `${index + 1}: ${describe(item).join(", ")}` },
    html("span", { className: "swatch" }),
    html("span", { className: "name", textContent: name }),
    ...numbers.map((text) => html("span", { className: "number muted", textContent: text })),
  );
}

function colourOf(index) {
  const shade = Math.floor(index / PALETTE.length) % 3; // the palette, then the same hues darker and lighter
  const tint = (channel) => Math.round([channel, channel * 0.62, (channel + 255) / 2][shade]);
  return `rgb(${PALETTE[index % PALETTE.length].map(tint).join(" ")})`;
}

/** SVG path of a segmentation (polygons or run lengths of COCO), or else of a box. */
function pathOf({ segmentation, box }) {
  if (Array.isArray(segmentation)) return segmentation.map((ring) => `M${ring.join(" ")}Z`).join("");
  return segmentation ? pathOfRuns(segmentation) : pathOfBox(box);
}

export const pathOfBox = ([x1, y1, x2, y2]) => `M${x1} ${y1}H${x2}V${y2}H${x1}Z`;

/** SVG path of run lengths: one rectangle for each part of a run in a column. */
function pathOfRuns({ size: [height], counts }) {
  const parts = [];
  let start = 0;
  runLengths(counts).forEach((count, index) => {
    const end = start + count;
    while (index % 2 && start < end) {
      const row = start % height, length = Math.min(end - start, height - row);
      parts.push(`M${Math.floor(start / height)} ${row}h1v${length}h-1z`);
      start += length;
    }
    start = end;
  });
  return parts.join("");
}

/** Counts of COCO's compressed run lengths: signed numbers of five bits a character, see rleFrString in maskApi.c. */
function runLengths(text) {
  const counts = [];
  for (let place = 0; place < text.length; ) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(place++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    counts.push(counts.length > 2 ? value + counts.at(-2) : value); // a difference from the count two places before
  }
  return counts;
}
