/** Files that are made in the browser: the overlay, cut-outs, and a ZIP archive of them. */

import { html, labelPlace, largestFirst, pathOfBox, pointsOf } from "./page_items.js";

/** Lets the browser save a file. */
export function save(name, blob) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * PNG of the photo in its full resolution with the items drawn on it.
 *
 * `picture` has `photo` (an image, or null), `width` and `height`; `layers` is a set of "masks", "boxes" and "labels".
 */
export function overlay(picture, items, layers, opacity) {
  const pen = penFor(picture.width, picture.height);
  const pixel = Math.max(picture.width, picture.height, 600) / 800;
  Object.assign(pen, { lineWidth: 1.5 * pixel, lineJoin: "round", font: `600 ${12 * pixel}px system-ui, sans-serif` });
  drawPhoto(pen, picture);
  for (const item of largestFirst(items)) drawItem(pen, item, layers, opacity);
  if (layers.has("labels")) for (const item of items) drawLabel(pen, item, pixel);
  return png(pen);
}

/** PNG of the pixels of an item, transparent outside its mask. The item must be visible. */
export function cutOut(picture, { area, path }) {
  const { x, y, width, height } = area.getBBox();
  const left = Math.max(0, Math.floor(x)), right = Math.min(picture.width, Math.ceil(x + width));
  const top = Math.max(0, Math.floor(y)), bottom = Math.min(picture.height, Math.ceil(y + height));
  const pen = penFor(right - left, bottom - top);
  pen.translate(-left, -top);
  pen.clip(new Path2D(path), "evenodd");
  drawPhoto(pen, picture);
  return png(pen);
}

/** ZIP archive, without compression, of a list of {name, blob}. */
export async function zip(files) {
  const parts = [], directory = [];
  let start = 0, directorySize = 0;
  for (const { name, blob } of files) {
    const content = new Uint8Array(await blob.arrayBuffer()), path = new TextEncoder().encode(name);
    const sizes = [[crc32(content), 4], [content.length, 4], [content.length, 4], [path.length, 2], [0, 2]];
    // Version 2.0, names in UTF-8, stored, 1 January 1980 (PKWARE APPNOTE 6.3, 4.3.7 and 4.3.12).
    const header = packed([20, 2], [0x800, 2], [0, 2], [0, 2], [0x21, 2], ...sizes);
    parts.push(packed([0x04034b50, 4]), header, path, content);
    directory.push(packed([0x02014b50, 4], [20, 2]), header, packed([0, 4], [0, 4], [0, 2], [start, 4]), path);
    start += 30 + path.length + content.length;
    directorySize += 46 + path.length;
  }
  const counts = [[files.length, 2], [files.length, 2]];
  const end = packed([0x06054b50, 4], [0, 4], ...counts, [directorySize, 4], [start, 4], [0, 2]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function penFor(width, height) {
  return html("canvas", { width, height }).getContext("2d");
}

async function png({ canvas }) {
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Error("the picture is too large for this browser");
  return blob;
}

function drawPhoto(pen, { photo, width, height }) {
  if (photo) pen.drawImage(photo, 0, 0, width, height);
}

function drawItem(pen, { object, path, colour }, layers, opacity) {
  pen.fillStyle = pen.strokeStyle = colour;
  if (layers.has("masks") && object.segmentation) {
    const area = new Path2D(path);
    pen.globalAlpha = opacity;
    pen.fill(area, "evenodd");
    pen.globalAlpha = 1;
    pen.stroke(area);
  }
  if (layers.has("boxes") && object.box) pen.stroke(new Path2D(pathOfBox(object.box)));
  for (const [x, y] of pointsOf(object)) {
    pen.beginPath();
    pen.arc(x, y, 2 * pen.lineWidth, 0, 2 * Math.PI);
    pen.fill();
  }
}

function drawLabel(pen, { object, label, covered }, pixel) {
  if (!object.box || covered) return;
  Object.assign(pen, { strokeStyle: "#000", fillStyle: "#fff", lineWidth: 3 * pixel });
  pen.strokeText(label, ...labelPlace(object.box, pixel));
  pen.fillText(label, ...labelPlace(object.box, pixel));
}

/** Little-endian integers, given as pairs of a value and its bytes, 2 or 4. */
function packed(...fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [, bytes]) => sum + bytes, 0)));
  let place = 0;
  for (const [value, bytes] of fields) {
    if (bytes === 2) view.setUint16(place, value, true);
    else view.setUint32(place, value, true);
    place += bytes;
  }
  return view.buffer;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
