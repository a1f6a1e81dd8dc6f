/** A photo's bytes -> the square that the network sees, by the same rules as photos/decoding.py.
 *
 * Browsers resize each in its own way, so only their decoder is used: the photo is reduced by a whole factor, then
 * resized by a triangle filter over the whole area that a pixel stands for, with Pillow's fixed-point numbers.
 */

const BITS = 22; // of a weight; 255 times the sum of them stays below 2 ** 31
const GREY = 127;

/** Decode a Blob: {square: uint8 [size * size * 3], width, height} of the upright photo. */
export async function decode(blob, size, fit) {
    let bitmap;
    try {
        bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", premultiplyAlpha: "none" });
    } catch {
        throw Object.assign(new Error("this browser cannot read the picture"), { code: "unsupported_format", hint: "save it as JPEG or PNG" });
    }
    const { width, height } = bitmap, canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff"; // transparency lies on white
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer()), isJpeg = first === 0xff && second === 0xd8;
    const picture = reduce(context.getImageData(0, 0, width, height).data, width, height, findFactor(width, height, size, isJpeg));
    return { square: makeSquare(picture, size, fit), width, height };
}

/** The whole factor by which a picture is made smaller first: what is left is at least twice the square.
 *
 * A JPEG is made smaller by a power of two, up to 8, while it is decoded; then by what is left of the factor.
 */
export function findFactor(width, height, size, isJpeg) {
    const factor = Math.max(1, Math.floor(Math.min(width, height) / (2 * size)));
    if (!isJpeg) return factor;
    const decoded = [8, 4, 2, 1].find((one) => one <= factor);
    return decoded * Math.max(1, Math.floor(Math.ceil(Math.min(width, height) / decoded) / (2 * size)));
}

/** RGBA pixels -> RGB pixels smaller by a whole factor, each the mean of those it stands for. */
export function reduce(pixels, width, height, factor) {
    const columns = Math.ceil(width / factor), rows = Math.ceil(height / factor), data = new Uint8Array(columns * rows * 3);
    for (let y = 0, at = 0; y < rows; y += 1) {
        const bottom = Math.min((y + 1) * factor, height);
        for (let x = 0; x < columns; x += 1, at += 3) {
            const right = Math.min((x + 1) * factor, width), n = (bottom - y * factor) * (right - x * factor);
            let r = 0, g = 0, b = 0;
            for (let row = y * factor; row < bottom; row += 1) {
                for (let i = 4 * (row * width + x * factor), end = 4 * (row * width + right); i < end; i += 4) {
                    r += pixels[i];
                    g += pixels[i + 1];
                    b += pixels[i + 2];
                }
            }
            data[at] = Math.floor(r / n + 0.5);
            data[at + 1] = Math.floor(g / n + 0.5);
            data[at + 2] = Math.floor(b / n + 0.5);
        }
    }
    return { data, width: columns, height: rows };
}

/** An RGB picture -> uint8 [size * size * 3]. */
export function makeSquare(picture, size, fit) {
    const { width, height } = picture;
    if (fit === "pad") return pad(picture, size);
    const side = fit === "crop" ? Math.min(width, height) : 0;
    const box = side ? [(width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2] : [0, 0, width, height];
    return resize(picture, box, size, size);
}

function pad(picture, size) {
    const scale = size / Math.max(picture.width, picture.height);
    const width = Math.max(1, roundHalfEven(picture.width * scale)), height = Math.max(1, roundHalfEven(picture.height * scale));
    const inner = resize(picture, [0, 0, picture.width, picture.height], width, height), square = new Uint8Array(size * size * 3).fill(GREY);
    const left = Math.floor((size - width) / 2), top = Math.floor((size - height) / 2);
    for (let y = 0; y < height; y += 1) square.set(inner.subarray(3 * y * width, 3 * (y + 1) * width), 3 * ((top + y) * size + left));
    return square;
}

/** Python's round. */
function roundHalfEven(value) {
    const low = Math.floor(value);
    return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

/** Resize a box of a picture: first along rows, then along columns, with 8 bits between, as Pillow does. */
export function resize({ data, width, height }, [left, top, right, bottom], columns, rows) {
    const across = makeFilter(left, right, width, columns), down = makeFilter(top, bottom, height, rows);
    const first = down[0].start, last = down.at(-1).start + down.at(-1).weights.length;
    const between = new Uint8Array(columns * (last - first) * 3), square = new Uint8Array(columns * rows * 3);
    for (let y = first; y < last; y += 1) {
        for (let x = 0; x < columns; x += 1) {
            sum(data, 3 * (y * width + across[x].start), 3, across[x].weights, between, 3 * ((y - first) * columns + x));
        }
    }
    for (let y = 0; y < rows; y += 1) {
        const { start, weights } = down[y];
        for (let x = 0; x < columns; x += 1) {
            sum(between, 3 * ((start - first) * columns + x), 3 * columns, weights, square, 3 * (y * columns + x));
        }
    }
    return square;
}

function sum(data, from, step, weights, target, at) {
    let r = 1 << (BITS - 1), g = r, b = r;
    for (let i = 0, place = from; i < weights.length; i += 1, place += step) {
        r += data[place] * weights[i];
        g += data[place + 1] * weights[i];
        b += data[place + 2] * weights[i];
    }
    target[at] = clip(r >> BITS);
    target[at + 1] = clip(g >> BITS);
    target[at + 2] = clip(b >> BITS);
}

const clip = (value) => (value < 0 ? 0 : value > 255 ? 255 : value);

/** The places of a row, [start of the first one, weights], that each new place is the mean of. */
function makeFilter(low, high, size, count) {
    const scale = (high - low) / count, reach = Math.max(scale, 1);
    return Array.from({ length: count }, (_, i) => {
        const centre = low + (i + 0.5) * scale;
        const start = Math.max(0, Math.trunc(centre - reach + 0.5)), end = Math.min(size, Math.trunc(centre + reach + 0.5));
        const shares = Array.from({ length: end - start }, (__, k) => Math.max(0, 1 - Math.abs((start + k - centre + 0.5) / reach)));
        const all = shares.reduce((a, b) => a + b, 0);
        return { start, weights: Int32Array.from(shares, (share) => Math.trunc(0.5 + (share / all) * (1 << BITS))) };
    });
}
