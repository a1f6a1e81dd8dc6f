/** A data set -> training with live progress, its outcome, and the earlier runs: the other steps of the Teach tab. */

import { call, fetchBlob, hasToken } from "./api.js";
import { announce, at, capital, count, duration, explainError, listNames, make, nameOf, note, percent, save, show } from "./dom.js";
import { describeAccuracy } from "./model.js";

export const LEAST = 5; // photos of each class
const LEAST_CLASSES = 2;
const GOOD = 20; // photos of each class, from which on answers are worth more
const PERIOD = 1000; // milliseconds between two looks at a training
const STAGES = {
    check: "checking photos",
    compare: "looking for copies",
    extract: "extracting features",
    head: "phase 1: fitting the head",
    fine_tune: "phase 2: fine-tuning",
    export: "writing the model",
    evaluate: "judging the model",
};

let teach = null; // what the other half of the tab lends: refresh, settle, onUse
let state = null, timer = 0, told = "", starting = false;
const seen = new Set(); // runs that were watched here until they ended

/** Set the panel up. */
export function setUpTraining(lent) {
    teach = lent;
    at("start").addEventListener("click", start);
    at("stop").addEventListener("click", stop);
}

/** Why training cannot start yet, as nodes, or null where it can; `classes` as [{name, n}]. */
function whyNot(classes, uploading) {
    const short = classes.filter(({ n }) => n < LEAST);
    if (classes.length < LEAST_CLASSES) {
        const have = classes.length ? ["There is only ", nameOf(classes[0].name), " so far. "] : [];
        return [...have, `Training needs at least ${LEAST} photos in each of ${LEAST_CLASSES} classes.`];
    }
    if (uploading) return ["Photos are still being added."];
    if (!short.length) return null;
    const lacking = short.slice(0, 3).flatMap(({ name, n }, i) => [i ? ", " : "", nameOf(name), ` needs ${LEAST - n} more`]);
    return [`At least ${LEAST} photos in each of ${LEAST_CLASSES} classes: `, ...lacking, short.length > 3 ? `, and ${short.length - 3} others too.` : "."];
}

/** Show how far training is, what came of it, and the runs. */
export function paintTraining(now, classes, uploading) {
    state = now;
    const { training } = now, running = training?.state === "running", reason = whyNot(classes, uploading);
    show(at("start"), !running);
    show(at("stop"), running);
    show(at("options"), !running);
    at("start").disabled = Boolean(reason) || starting;
    if (show(at("reason"), !running)) at("reason").replaceChildren(...(reason ?? sayReady(classes)));
    at("reason").classList.toggle("short", Boolean(reason));
    if (!document.querySelector("[name=weights]:checked")) {
        for (const one of document.getElementsByName("weights")) one.checked = one.value === now.weights;
    }
    if (show(at("progress"), Boolean(training) && training.state !== "done")) paintProgress(training);
    paintOutcome(training);
    paintRuns(now.runs);
    if (running && !timer) timer = setTimeout(look, PERIOD);
    if (running) seen.add(training.run);
    if (training) tell(training);
}

function sayReady(classes) {
    const photos = classes.reduce((sum, { n }) => sum + n, 0), fewest = Math.min(...classes.map(({ n }) => n));
    const more = fewest < GOOD ? ` It works now, and better with ${GOOD} or more each.` : "";
    return [`Ready: ${count(photos, "photo")} in ${count(classes.length, "class", "classes")}.${more}`];
}

async function start() {
    const chosen = document.querySelector("[name=weights]:checked")?.value ?? null;
    starting = true;
    at("start").disabled = true;
    try {
        await teach.settle();
        await call("POST", "/v1/teach/train", { json: { weights: chosen } });
        told = "";
        announce("Training has begun.");
    } catch (error) {
        note(explainError(error), { seconds: 15 });
    }
    starting = false;
    await refresh();
    if (!at("stop").hidden) at("stop").focus();
}

async function stop() {
    at("stop").disabled = true;
    try {
        await call("POST", "/v1/teach/stop");
    } catch (error) {
        note(explainError(error));
    }
    at("stop").disabled = false;
    await refresh();
}

async function look() {
    timer = 0;
    await refresh();
}

async function refresh() {
    try {
        await teach.refresh();
    } catch (error) {
        // Training goes on without anybody looking; so does looking, as soon as there is an answer again.
        at("progress").replaceChildren(make("p", { className: "problem" }, explainError(error)));
        timer ||= setTimeout(look, 3 * PERIOD);
    }
}

// --- progress

function paintProgress(training) {
    const place = at("progress"), { state: now, error, seconds } = training;
    if (now === "failed") place.replaceChildren(make("p", { className: "problem" }, explainError(error ?? { message: "training failed" })), ...sayWayOut(training));
    if (now === "stopped") place.replaceChildren(make("p", { className: "muted" }, "Training was stopped. Nothing was kept."));
    if (now !== "running") return;
    if (!place.querySelector(".stages")) place.replaceChildren(make("ol", { className: "stages" }), make("p", { className: "muted" }));
    const list = place.querySelector(".stages"), former = new Map([...list.children].map((row) => [row.dataset.stage, row]));
    const stages = listStages(training), rows = stages.map(({ stage }) => former.get(stage) ?? makeStage(stage));
    if (rows.some((row, i) => row !== list.children[i])) list.replaceChildren(...rows);
    rows.forEach((row, i) => paintStage(row, stages[i]));
    place.querySelector(".muted").textContent = `${duration(seconds)} so far. It goes on if you close this page.`;
}

/** Where training could not even begin with ImageNet's weights, they are most likely not to be had: show the other way. */
function sayWayOut({ stages }) {
    const chosen = document.querySelector("[name=weights]:checked")?.value;
    if (stages.length || chosen !== "imagenet") return [];
    at("options").open = true;
    return [make("p", { id: "way-out" }, "Without a network, choose Offline above and press Train again.")];
}

/** The stages in order, those to come as well: [{stage, name, done, total, part: "past" | "now" | "later"}]. */
function listStages({ stages }) {
    const known = new Set(stages.map(({ stage }) => stage));
    const begun = stages.map((one, i) => ({ ...one, part: (one.total > 0 && one.done >= one.total) || i < stages.length - 1 ? "past" : "now" }));
    const rest = Object.entries(STAGES).filter(([stage]) => !known.has(stage)).map(([stage, name]) => ({ stage, name, done: 0, total: 0, part: "later" }));
    // Between the end of a stage and the first news of the next, that one is under way.
    if (rest.length && !begun.some(({ part }) => part === "now")) rest[0].part = "now";
    return [...begun, ...rest];
}

function makeStage(stage) {
    const row = make("li", {}, make("span", { className: "label" }), " ", make("span", { className: "value" }), make("progress"));
    row.dataset.stage = stage;
    return row;
}

function paintStage(row, { name, done, total, part }) {
    const bar = row.querySelector("progress"), measured = part === "now" && total > 1;
    row.className = part;
    row.querySelector(".label").textContent = capital(name);
    row.querySelector(".value").textContent = part === "past" ? "done" : measured ? `${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : "";
    bar.setAttribute("aria-label", name);
    bar.max = measured ? total : 1;
    if (part === "now" && !measured) bar.removeAttribute("value"); // nobody knows how long
    else bar.value = measured ? done : part === "past" ? 1 : 0;
}

/** Read out what has changed, and let the title of the tab in the browser say it to those who are elsewhere. */
function tell({ run, state: now, stages, summary, error }) {
    const stage = stages.at(-1), key = `${run} ${now} ${now === "running" ? stage?.stage : ""}`;
    if (!at("teach").hidden && now === "running") document.title = `${capital(stage?.name ?? "training")} · pronk`;
    if (key === told || !seen.has(run)) return;
    told = key;
    const good = summary?.accuracy ? `, ${percent(summary.accuracy.value)} right` : "";
    announce({
        running: capital(stage?.name ?? "starting"),
        done: `Training is done${good}.`,
        failed: `Training failed: ${error?.message ?? ""}`,
        stopped: "Training was stopped.",
    }[now]);
    if (now === "running") return;
    document.title = `${now === "done" ? `Trained${good}` : capital(now)} · pronk`;
    // Whoever waits is led to what came of it; whoever is busy elsewhere is left in peace.
    const waits = document.activeElement === document.body || at("train").contains(document.activeElement);
    if (now === "done" && waits && !at("teach").hidden) at("outcome-title").focus();
}

// --- what came of it

function paintOutcome(training) {
    if (!show(at("outcome"), training?.state === "done")) return;
    if (at("outcome").dataset.run === training.run) return; // nothing new, and the focus may be in it
    at("outcome").dataset.run = training.run;
    const { accuracy } = training.summary ?? {};
    at("outcome-facts").replaceChildren(
        ...describeAccuracy(accuracy),
        make("p", {}, sayKept(training.summary ?? {})),
        makeActions(training.run, { first: true }),
    );
}

/** Which of the two phases' networks was kept, and why, in plain words. */
function sayKept({ kept, why, frozen, fine_tuned: tuned }) {
    const grounds = why ? make("span", { className: "muted" }, ` (${why}; lower is better)`) : "", end = [grounds, "."];
    if (!tuned) return ["Kept: the network of phase 1, in which only the last layer is yours."];
    const right = ({ value, n }) => `${Math.round(value * n)} of ${n}`;
    const both = frozen ? `. Of the photos that decide, it had ${right(frozen)} right before and ${right(tuned)} after` : "";
    if (kept === "fine_tuned") return [`Kept: the network of phase 2, whose upper blocks have adapted to your photos, because that helped${both}`, ...end];
    return [`Kept: the network of phase 1, in which only the last layer is yours, because phase 2 did not help${both}`, ...end];
}

function makeActions(run, { first = false, used = false } = {}) {
    const base = `/v1/teach/runs/${encodeURIComponent(run)}`;
    const use = make("button", { type: "button", className: first ? "primary" : "" }, used ? "In use: try it" : "Try it");
    use.addEventListener("click", () => tryRun(base, use));
    const report = makeLink("Report", `${base}/report`, { target: "_blank", rel: "noopener" }, `pronk-report-${run}.html`);
    const download = makeLink("Download", `${base}/download`, { download: "" }, `pronk-run-${run}.zip`);
    if (!first) for (const one of [use, report, download]) one.setAttribute("aria-label", `${one.textContent}: run ${run}`);
    return make("p", { className: "buttons" }, use, report, download);
}

async function tryRun(base, button) {
    button.disabled = true;
    try {
        await call("POST", `${base}/use`);
        await teach.onUse();
    } catch (error) {
        note(explainError(error), { seconds: 15 });
    }
    button.disabled = false;
}

/** A link, or where links would be refused for want of the token, a button that fetches the same file. */
function makeLink(text, address, properties, file) {
    if (!hasToken()) return make("a", { href: address, className: "button", ...properties }, text);
    const button = make("button", { type: "button" }, text);
    button.addEventListener("click", async () => {
        button.disabled = true;
        try {
            save(await fetchBlob(address), file);
            note(`${file} is among your downloads.`);
        } catch (error) {
            note(explainError(error));
        }
        button.disabled = false;
    });
    return button;
}

function paintRuns(runs) {
    const key = JSON.stringify(runs);
    show(at("runs"), runs.length > 0);
    if (at("run-list").dataset.key === key) return; // the focus may be in it
    at("run-list").dataset.key = key;
    at("run-list").replaceChildren(...[...runs].reverse().map(makeRun));
}

function makeRun({ name, accuracy, classes, photos, in_use: used }) {
    const good = accuracy ? `${percent(accuracy.value)} of ${count(accuracy.n, "test photo")} right (${percent(accuracy.low)} to ${percent(accuracy.high)}); ` : "";
    const more = classes.length > 6 ? ` and ${classes.length - 6} more` : "";
    return make("li", {},
        make("div", {},
            make("h3", {}, `Run ${name}`, used ? make("span", { className: "badge" }, "in use") : ""),
            make("p", {}, good, `${count(photos, "photo")} of `, ...listNames(classes.slice(0, 6)), more)),
        makeActions(name, { used }));
}
