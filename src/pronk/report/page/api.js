/** What the page asks -> what the server answers; the token, busy servers and lost connections are dealt with here. */

import { at, show } from "./dom.js";
import { ServerError } from "./trouble.js";

const KEY = "pronk-token";
const MOST_WAITS = 60; // times a busy server is asked again
const LONGEST_WAIT = 20; // seconds between two of them

let token = takeToken();
let asking = null; // the dialog, while it is open: everybody waits for the same answer

/** Whether requests carry a token, so that plain links would be refused. */
export const hasToken = () => token !== "";

/** Ask; returns the Response, or throws a ServerError. `onWait` hears for how many seconds a busy server wants peace. */
export async function call(method, path, { body = null, json = null, keepalive = false, onWait = () => {} } = {}) {
    for (let waits = 0; ; waits += 1) {
        const used = token, headers = {};
        if (used) headers.Authorization = `Bearer ${used}`;
        if (json) headers["Content-Type"] = "application/json";
        let response;
        try {
            response = await fetch(path, { method, headers, keepalive, body: json ? JSON.stringify(json) : body });
        } catch {
            throw new ServerError("the server does not answer", { code: "offline", hint: "see whether `pronk serve` still runs, then try again" });
        }
        if (response.ok) return response;
        if (response.status === 401) {
            await askForToken(used);
            continue;
        }
        const pause = Number(response.headers.get("Retry-After"));
        if (response.status === 503 && pause > 0 && waits < MOST_WAITS) {
            const seconds = Math.min(pause, LONGEST_WAIT);
            onWait(seconds);
            await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
            continue;
        }
        throw await readError(response);
    }
}

/** Ask for JSON. */
export const get = async (path) => (await call("GET", path)).json();

/** Ask for a file, as a Blob. */
export const fetchBlob = async (path) => (await call("GET", path)).blob();

/** Wrap one photo for sending. Its name stays here: the server needs none, and names from strangers can be anything. */
export function wrap(file) {
    const form = new FormData();
    form.append("photo", file, "photo");
    return form;
}

async function readError(response) {
    try {
        const told = await response.json();
        return new ServerError(told.error, { hint: told.hint ?? "", code: told.code, status: response.status });
    } catch {
        return new ServerError(`the server answered ${response.status}`, { status: response.status });
    }
}

/** Take the token out of the address, where others could read it over a shoulder, and remember it for this tab. */
function takeToken() {
    const words = new URLSearchParams(location.hash.slice(1)), found = words.get("token");
    words.delete("token");
    if (found) history.replaceState(null, "", `${location.pathname}${words.size ? `#${words}` : ""}`);
    try {
        if (found) sessionStorage.setItem(KEY, found);
        return found ?? sessionStorage.getItem(KEY) ?? "";
    } catch { // storage may be forbidden; then the token lives as long as the page
        return found ?? "";
    }
}

function askForToken(refused) {
    if (token !== refused) return Promise.resolve(); // another question has got a new one meanwhile
    asking ??= new Promise((resolve) => {
        const dialog = at("token-dialog");
        show(at("token-problem"), refused !== "");
        at("token").value = "";
        dialog.oncancel = (event) => event.preventDefault(); // nothing works without
        dialog.querySelector("form").onsubmit = (event) => {
            event.preventDefault();
            token = at("token").value.trim();
            try {
                sessionStorage.setItem(KEY, token);
            } catch { /* see takeToken */ }
            dialog.close();
            asking = null;
            resolve();
        };
        dialog.showModal();
        at("token").focus();
    });
    return asking;
}
