/** What the network gives -> the record that the page shows: names, the distance from what it knows, the heat map. */

const STRONG = 0.97; // see model/heat_maps.py for these
const STRONGEST = 0.62;
const ANCHORS = [[13, 8, 135], [76, 2, 161], [126, 3, 168], [170, 35, 149], [204, 71, 120], [230, 108, 92], [248, 149, 64], [253, 197, 39]];
const LEAST_LENGTH = 1e-12;

let novelty = null; // decoded once

/** Describe one photo, as `pronk predict` does. */
export async function describe(model, { probabilities, features, heat }, { width, height }, { milliseconds }) {
    const given = [...probabilities.data], order = given.map((_, i) => i).sort((a, b) => given[b] - given[a] || a - b);
    const { classes, unknown: known } = model, [best] = order;
    const distance = known ? measureDistance(known.distance, features.data) : null;
    const unknown = known ? distance > known.threshold : false;
    return {
        path: "",
        label: unknown ? "unknown" : classes[best],
        score: given[best],
        scores: order.map((i) => ({ label: classes[i], score: given[i] })),
        unknown,
        distance,
        error: null,
        milliseconds,
        heatmap: heat ? await drawHeat(heat, best, classes[best], model.image, width, height) : null,
    };
}

/** How far pooled features lie from those of the training photos; see analysis/novelty.py. */
export function measureDistance(record, features) {
    novelty ??= Object.fromEntries(["centre", "basis", "points"].map((name) => [name, readHalves(record[`${name}_f2`])]));
    const { components, points, neighbours } = record, unit = toUnit(Float64Array.from(features));
    const away = toUnit(unit.map((value, i) => value - novelty.centre[i])), d = away.length;
    const seen = Float64Array.from({ length: components }, (_, r) => dot(novelty.basis, r * d, away));
    const alike = Float64Array.from({ length: points }, (_, m) => dot(novelty.points, m * components, seen)).sort();
    return 1 - alike.subarray(points - neighbours).reduce((a, b) => a + b, 0) / neighbours;
}

function dot(rows, start, vector) {
    let total = 0;
    for (let i = 0; i < vector.length; i += 1) total += rows[start + i] * vector[i];
    return total;
}

function toUnit(vector) {
    const length = Math.sqrt(dot(vector, 0, vector));
    return length > LEAST_LENGTH ? vector.map((value) => value / length) : vector;
}

/** Little-endian half-precision numbers in base64 -> Float32Array. */
export function readHalves(text) {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0)), view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
        const half = view.getUint16(2 * i, true), sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
        return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
    });
}

/** Where the network looked, and a picture of what spoke for a class, as a `data:` address. */
async function drawHeat(heat, index, label, { size, fit }, width, height) {
    const [, rows, columns, classes] = heat.dims, positive = new Float32Array(rows * columns);
    for (let i = 0; i < positive.length; i += 1) positive[i] = Math.max(0, heat.data[i * classes + index]);
    const sorted = positive.slice().sort();
    const strong = sorted[Math.ceil(STRONG * (sorted.length - 1))] || sorted.at(-1) || 1;
    const image = new ImageData(size, size);
    for (let y = 0; y < size; y += 1) {
        for (let x = 0; x < size; x += 1) {
            paint(image.data, 4 * (y * size + x), Math.min(1, between(positive, rows, columns, y / size, x / size, 0.5 / size) / strong));
        }
    }
    const canvas = new OffscreenCanvas(size, size);
    canvas.getContext("2d").putImageData(image, 0, 0);
    const picture = await canvas.convertToBlob();
    return { label, image: new FileReaderSync().readAsDataURL(picture), box: findBox(fit, width, height) };
}

/** Interpolate between the four nearest places. */
function between(map, rows, columns, y, x, half) {
    const v = Math.min(Math.max((y + half) * rows - 0.5, 0), rows - 1), u = Math.min(Math.max((x + half) * columns - 0.5, 0), columns - 1);
    const top = Math.floor(v), left = Math.floor(u), down = Math.min(top + 1, rows - 1), right = Math.min(left + 1, columns - 1);
    const upper = map[top * columns + left] * (1 - (u - left)) + map[top * columns + right] * (u - left);
    const lower = map[down * columns + left] * (1 - (u - left)) + map[down * columns + right] * (u - left);
    return upper * (1 - (v - top)) + lower * (v - top);
}

function paint(data, at, level) {
    const place = level * (ANCHORS.length - 1), low = Math.min(Math.floor(place), ANCHORS.length - 2), share = place - low;
    for (let i = 0; i < 3; i += 1) data[at + i] = ANCHORS[low][i] * (1 - share) + ANCHORS[low + 1][i] * share + 0.5;
    data[at + 3] = 255 * STRONGEST * level + 0.5;
}

/** The network's square in the photo: left, top, width and height as shares of its sides. */
function findBox(fit, width, height) {
    if (fit === "squash") return [0, 0, 1, 1];
    const side = fit === "crop" ? Math.min(width, height) : Math.max(width, height);
    const left = Math.floor((width - side) / 2), top = Math.floor((height - side) / 2);
    return [left / width, top / height, side / width, side / height];
}
