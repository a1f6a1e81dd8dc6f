/** What the page asks -> what the model in this browser answers: the same questions as to a server, without one. */

import { ServerError } from "./trouble.js";

const MOST_BYTES = 100 * 2 ** 20;

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // number of a question -> what takes its answer
let number = 0;

worker.addEventListener("message", ({ data: { id, answer, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error) reject(new ServerError(error.message, error));
    else resolve(answer);
});
worker.addEventListener("error", (event) => {
    event.preventDefault();
    const trouble = new ServerError("the model does not open here", { code: "offline", hint: "load the page again, in a browser of 2023 or later" });
    for (const { reject } of waiting.values()) reject(trouble);
    waiting.clear();
});

/** Ask the worker about a photo; see there. */
export function ask(photo, { explain = false, raw = false } = {}) {
    return new Promise((resolve, reject) => {
        number += 1;
        waiting.set(number, { resolve, reject });
        worker.postMessage({ id: number, photo, explain, raw });
    });
}

/** Answer as the server does, with the same records. */
export async function call(method, path, { body = null } = {}) {
    const record = await ask(body, { explain: path.includes("explain=true") });
    return { json: async () => [record] };
}

/** Tell what is known without a photo. */
export async function get(path) {
    if (path === "/v1/server") return { version: "", model: true, teach: false, limits: { body_bytes: MOST_BYTES } };
    return (await fetch("page.json")).json();
}

/** A photo goes as it is: it stays in this browser. */
export const wrap = (file) => file;
