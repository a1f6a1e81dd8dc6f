/** Photos -> records, one after the other, beside the page: decoded here, answered by ONNX Runtime in WebAssembly. */

import { describe } from "./answers.js";
import * as ort from "./ort.wasm.min.mjs";
import { decode } from "./pixels.js";

ort.env.wasm.numThreads = 1; // more would need headers that static hosts do not send
ort.env.wasm.wasmPaths = new URL(".", import.meta.url).href;

const opened = open();
let last = Promise.resolve();

async function open() {
    const [model, network] = await Promise.all([read("model.json"), read("model.onnx")]);
    const session = await ort.InferenceSession.create(new Uint8Array(network), { executionProviders: ["wasm"], logSeverityLevel: 3 });
    return { model: JSON.parse(new TextDecoder().decode(model)), session };
}

async function read(name) {
    const response = await fetch(new URL(`../${name}`, import.meta.url));
    if (!response.ok) throw new Error(`${name} is missing beside this page`);
    return response.arrayBuffer();
}

/** Answer about a Blob, or {square}, pixels as the network takes them; with `raw`, by numbers alone. */
async function answer({ photo, explain, raw }) {
    const { model, session } = await opened, started = performance.now(), { size, fit } = model.image;
    const decoded = photo.square ? { square: photo.square, width: size, height: size } : await decode(photo, size, fit);
    const given = { image: new ort.Tensor("uint8", decoded.square, [1, size, size, 3]) };
    const told = await session.run(given, ["probabilities", "features", ...(explain ? ["heat"] : [])]);
    const milliseconds = performance.now() - started;
    if (raw) return { probabilities: [...told.probabilities.data], features: [...told.features.data], milliseconds };
    return describe(model, told, decoded, { milliseconds });
}

self.addEventListener("message", ({ data: { id, ...question } }) => {
    last = last.then(async () => {
        try {
            self.postMessage({ id, answer: await answer(question) });
        } catch ({ message, code = "internal", hint = "" }) {
            self.postMessage({ id, error: { message, code, hint } });
        }
    });
});
