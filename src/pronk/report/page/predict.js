/** Photos -> answers: the queue, the list of this session, and everything on the Predict tab. */

import { call, get, wrap } from "./api.js";
import { closeCamera, openCamera } from "./camera.js";
import { makeCard, paintCard, tellVerdict } from "./card.js";
import { announce, at, count, make, megabytes, nameOf, note, save, show, visible } from "./dom.js";
import { watchLive } from "./live.js";
import { askInWords, describeModel } from "./model.js";
import { takeChosen } from "./photos.js";
import { csvFile, makeRow } from "./table.js";
import { ServerError } from "./trouble.js";

const AT_ONCE = 2;
const ROWS_PAUSE = 250; // milliseconds between two paintings of the table
const QUIET = 700; // milliseconds without news before they are read out

const entries = []; // newest batch first, as shown
const waiting = []; // in the order of arrival
const news = [];
let running = 0, newsTimer = 0, rowsTimer = 0, form = "photos", model = null, server = null;
let round = { done: 0, total: 0 }; // since the queue was last empty

/** Set the tab up; `goTeach` leads to the other one. */
export function setUpPredict(facts, goTeach) {
    server = facts;
    at("choose").addEventListener("click", () => at("files").click());
    at("choose-folder").addEventListener("click", () => at("folder").click());
    for (const input of [at("files"), at("folder")]) input.addEventListener("change", () => addPhotos(takeChosen(input)));
    at("use-camera").addEventListener("click", useCamera);
    at("heat").addEventListener("input", setHeat);
    at("as-photos").addEventListener("click", () => showAs("photos"));
    at("as-table").addEventListener("click", () => showAs("table"));
    at("download").addEventListener("click", () => save(csvFile(entries), "pronk-answers.csv"));
    at("clear").addEventListener("click", clear);
    at("again").querySelector("button").addEventListener("click", askAgain);
    at("model").addEventListener("click", (event) => event.target.closest(".go-teach") && goTeach());
    setHeat();
}

/** Take photos in, [{file, path}], and ask about each. */
export function addPhotos(photos) {
    if (!photos.length) {
        note("There was no photo in that. A picture from another page has to be saved first: this page fetches nothing from elsewhere.");
        return;
    }
    if (!model) {
        note("No model is open yet: teach one first.");
        return;
    }
    const batch = photos.map(({ file, path }) => ({ file, path, url: URL.createObjectURL(file), state: "waiting", record: null, error: null }));
    for (const entry of batch) {
        entry.card = makeCard(entry, { remove, retry });
        paint(entry);
    }
    entries.unshift(...batch);
    waiting.push(...batch);
    round.total += batch.length;
    at("cards").prepend(...batch.map(({ card }) => card));
    pump();
    showAnswers();
}

/** Scroll where the answers come, unless they are in sight. */
function showAnswers() {
    const top = at("results").getBoundingClientRect().top;
    if (top > 0.6 * innerHeight || top < 0) at("results").scrollIntoView({ behavior: "smooth" });
}

/** Tell which model answers from now on. */
export async function refreshModel() {
    // Asking for a model that is not there would be an error, which the browser notes down.
    model = (await get("/v1/server")).model ? await get("/v1/model") : null;
    if (show(at("drop"), Boolean(model))) at("drop-title").replaceChildren(...askInWords(model));
    at("model-title").textContent = model ? "The model" : "No model yet";
    at("model-facts").replaceChildren(...(model ? describeModel(model) : describeNothing()));
    for (const entry of entries) paint(entry);
    showHeatControl();
    paintList();
    return model;
}

/** Turn the camera off, which the tab does when it is left. */
export const leavePredict = () => closeCamera();

function describeNothing() {
    if (!server.teach) return [make("p", {}, "The server was started without one. Name it: ", make("code", {}, "pronk serve MODEL"), ".")];
    return [make("p", {}, "Show it examples, and in a minute there is one."), make("p", {}, make("button", { type: "button", className: "primary go-teach" }, "Teach one"))];
}

// --- the queue

function pump() {
    while (running < AT_ONCE && waiting.length) {
        running += 1;
        ask(waiting.shift()).finally(() => {
            running -= 1;
            round.done += 1;
            pump();
        });
    }
    if (!running && !waiting.length) round = { done: 0, total: 0 };
    paintList();
}

async function ask(entry) {
    Object.assign(entry, { state: "asking", error: null, record: null, waiting: "" });
    paint(entry);
    try {
        const most = server.limits.body_bytes;
        if (entry.file.size > most) {
            const message = `the photo has ${megabytes(entry.file.size)}, and ${megabytes(most)} are allowed`;
            throw new ServerError(message, { code: "too_large", hint: "send a smaller copy of it" });
        }
        const onWait = (seconds) => {
            entry.waiting = `the server is busy, again in ${seconds} s`;
            paint(entry);
        };
        const response = await call("POST", "/v1/predict?explain=true", { body: wrap(entry.file), onWait });
        [entry.record] = await response.json();
        Object.assign(entry, { state: "done", model: model?.name ?? "" });
    } catch (error) {
        Object.assign(entry, { state: "failed", error: await blame(error, entry.file) });
    }
    paint(entry);
    if (entries.includes(entry)) tell(entry);
}

/** A file that was moved or changed since it was chosen looks like a lost connection. */
async function blame(error, file) {
    if (!(error instanceof ServerError)) return new ServerError(`the page stumbled: ${error.message}`);
    if (error.code !== "offline") return error;
    try {
        await file.slice(0, 1).arrayBuffer();
        return error;
    } catch {
        return new ServerError("the file is gone or has changed since it was chosen", { code: "vanished", hint: "choose it again" });
    }
}

function tell(entry) {
    news.push(entry);
    clearTimeout(newsTimer);
    newsTimer = setTimeout(() => {
        const told = news.splice(0).filter(({ error, record }) => error ?? record); // some may be asked again by now
        const some = told.slice(-3).map(sayEntry);
        announce(told.length > 3 ? `${count(told.length, "photo")} answered. The last: ${some.at(-1)}` : some.join(" "));
    }, QUIET);
}

function sayEntry({ path, record, error }) {
    const problem = error ?? record.error;
    return `${visible(path)}: ${problem ? visible(problem.message) : tellVerdict(record)}.`;
}

// --- the list

function paint(entry) {
    paintCard(entry.card, entry, { current: model?.name ?? "" });
}

function paintList() {
    const answered = entries.filter(({ state }) => state === "done" || state === "failed");
    const busy = running > 0 || waiting.length > 0;
    show(at("results"), entries.length > 0);
    document.body.classList.toggle("working", entries.length > 0);
    at("tally").replaceChildren(...tally(answered));
    if (show(at("queue"), busy && round.total > 1)) Object.assign(at("queue"), { max: round.total, value: round.done });
    at("download").disabled = !answered.length;
    const elsewhere = answered.filter((entry) => entry.record && model && entry.model !== model.name);
    if (show(at("again"), elsewhere.length > 0 && !busy)) {
        at("again").querySelector("span").textContent = `${count(elsewhere.length, "answer")} came from an earlier model.`;
    }
    // Hundreds of rows for each of hundreds of answers would keep the page from doing anything else.
    rowsTimer ||= setTimeout(paintRows, ROWS_PAUSE);
}

function paintRows() {
    clearTimeout(rowsTimer);
    rowsTimer = 0;
    if (!at("list").hidden) at("rows").replaceChildren(...entries.map((entry) => makeRow(entry, () => reveal(entry))));
}

function tally(answered) {
    const counts = new Map();
    for (const { record, error } of answered) {
        const key = error || record.error ? "no answer" : record.unknown ? "none of these" : record.label;
        counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const open = entries.length - answered.length;
    const parts = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name, n]) => [nameOf(name), `\u00a0${n}`]);
    if (open) parts.unshift([`${answered.length} of ${count(entries.length, "photo")}`]);
    return parts.flatMap((part, i) => (i ? [" · ", ...part] : part));
}

function remove(entry) {
    const place = entries.indexOf(entry), next = entries[place + 1] ?? entries[place - 1];
    const queued = waiting.indexOf(entry);
    if (queued >= 0) {
        waiting.splice(queued, 1);
        round.total -= 1;
    }
    entries.splice(place, 1);
    entry.card.remove();
    URL.revokeObjectURL(entry.url);
    paintList();
    (next?.card.querySelector(".remove") ?? at("choose")).focus(); // the keyboard must not fall off the page
}

function retry(entry) {
    Object.assign(entry, { state: "waiting", error: null });
    waiting.push(entry);
    round.total += 1;
    paint(entry);
    pump();
}

function askAgain() {
    for (const entry of entries.filter(({ record, model: by }) => record && by !== model.name)) retry(entry);
}

function clear() {
    for (const { card, url } of entries.splice(0)) {
        card.remove();
        URL.revokeObjectURL(url);
    }
    round.total -= waiting.splice(0).length;
    paintList();
    at("choose").focus();
}

function showAs(chosen) {
    form = chosen;
    for (const name of ["photos", "table"]) at(`as-${name}`).setAttribute("aria-pressed", String(name === form));
    show(at("cards"), form === "photos");
    show(at("list"), form === "table");
    showHeatControl();
    paintRows();
}

/** Some exports give no heat maps; then there is nothing to slide. */
function showHeatControl() {
    for (const id of ["heat-control", "legend"]) show(at(id), form === "photos" && model?.heatmaps !== false);
}

function reveal(entry) {
    showAs("photos");
    entry.card.scrollIntoView({ block: "center" });
    entry.card.querySelector(".remove").focus();
}

function setHeat() {
    document.documentElement.style.setProperty("--heat", at("heat").value / 100);
}

function useCamera() {
    openCamera(at("predict-camera"), {
        tip: "It looks twice a second. Shoot keeps a photo with its answer.",
        onShot: (file) => addPhotos([{ file, path: file.name }]),
        live: (camera) => watchLive(camera, () => model),
    });
}
