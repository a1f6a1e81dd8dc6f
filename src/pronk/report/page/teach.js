/** Classes and their photos -> a data set in the server's work folder: the first step of the Teach tab. */

import { call, get, wrap } from "./api.js";
import { closeCamera, openCamera } from "./camera.js";
import { forgetPictures, paintClass } from "./classcard.js";
import { announce, at, copyOf, count, explainError, make, nameOf, note, question, show, visible } from "./dom.js";
import { acceptDrops, sortIntoClasses, takeChosen } from "./photos.js";
import { paintTraining, setUpTraining } from "./training.js";
import { paintWorth, setUpWorth } from "./worth.js";

const AT_ONCE = 2;
const UNDO = 7; // seconds to take a removal back

let groups = []; // of the classes: {name, photos, hidden, element, pictures, adding, added, known, refused, all}
let latest = null; // the class that photos without an address go to
let state = { classes: [], runs: [], training: null, weights: null };
const uploads = []; // {group, photo}, not yet sent
let sending = 0, server = null;

/** Set the tab up; `onUse` is called when the server has begun to predict with a run. */
export function setUpTeach(facts, onUse) {
    server = facts;
    if (!show(at("teaching"), facts.teach)) {
        show(at("teach-off"));
        const off = "Teaching is off here, because the server has no folder to work in. Start it with one: ";
        at("teach-off").replaceChildren(make("p", {}, off, make("code", {}, "pronk serve MODEL --work DIR"), "."));
        return;
    }
    at("add-class").addEventListener("submit", (event) => { event.preventDefault(); addNamed(); });
    at("add-folder").addEventListener("click", () => at("class-folder").click());
    at("class-folder").addEventListener("change", () => takeForClass(takeChosen(at("class-folder"))));
    setUpTraining({ refresh, settle, onUse });
    setUpWorth({ classes: () => groups.map(({ name }) => name), refresh });
}

/** Bring the tab up to date, each time it is shown. */
export async function enterTeach() {
    if (!server?.teach) return;
    try {
        await refresh();
    } catch (error) {
        complain(error);
    }
}

/** Turn the camera off when the tab is left. */
export const leaveTeach = () => closeCamera();

/** Take photos that were dropped or pasted somewhere on the tab: folders become classes, the rest goes to the class at hand. */
export async function takeForClass(photos, target = null) {
    const here = groups.find(({ element }) => target && element.contains(target));
    for (const [name, some] of sortIntoClasses(photos)) {
        const group = here ?? (name === null ? latest ?? groups.at(-1) : await findOrMake(name));
        if (group) add(group, some);
        else if (name === null) note("Which class is that? Make one first, then drop photos into it.");
    }
    if (!photos.length) note("There was no photo in that.");
}

async function refresh() {
    state = await get("/v1/teach");
    const former = new Map(groups.map((group) => [group.name, group]));
    groups = state.classes.map(({ name, photos }) => Object.assign(former.get(name) ?? makeGroup(name), { photos }));
    paint();
    return state;
}

function paint() {
    const elements = groups.map(({ element }) => element);
    // Whoever is typing a name would lose the focus if the element were taken out and put back.
    if (elements.length !== at("classes").children.length || elements.some((one, i) => one !== at("classes").children[i])) at("classes").replaceChildren(...elements);
    at("class-label").textContent = ["Name your first class", "Name the second class"][groups.length] ?? "New class";
    at("add-class").querySelector("[type=submit]").classList.toggle("primary", groups.length < 2);
    groups.forEach(paintGroup);
    paintTraining(state, groups.map(({ name, photos, hidden }) => ({ name, n: photos.filter((id) => !hidden.has(id)).length })), sending + uploads.length);
    paintWorth(state.runs.some((run) => run.in_use));
}

// --- classes

function makeGroup(name) {
    const element = copyOf("class-template"), inside = (selector) => element.querySelector(selector);
    const group = { name, photos: [], hidden: new Map(), element, pictures: new Map(), adding: 0, added: 0, known: 0, refused: [], all: false };
    const field = inside("input.name"), input = inside("input[type=file]");
    field.value = name;
    field.addEventListener("change", () => rename(group, field));
    field.addEventListener("keydown", (event) => {
        if (event.key === "Enter") field.blur();
        if (event.key === "Escape") { field.value = group.name; field.blur(); }
    });
    inside(".delete").addEventListener("click", () => removeClass(group));
    inside(".choose").addEventListener("click", () => input.click());
    input.addEventListener("change", () => add(group, takeChosen(input)));
    inside(".all").addEventListener("click", () => { group.all = !group.all; paintGroup(group); });
    inside(".shoot").addEventListener("click", () => openCamera(inside(".camera-place"), {
        tip: "Hold the button for many. Move between shots: photos that look alike teach little.",
        onShot: (file) => add(group, [{ file, path: file.name }]),
        burst: true,
    }));
    element.addEventListener("focusin", () => { latest = group; });
    element.addEventListener("pointerdown", () => { latest = group; });
    acceptDrops(element, (photos) => (photos.length ? add(group, photos) : note("There was no photo in that.")));
    return group;
}

function paintGroup(group) {
    // Training needs the folder names to stay; new photos wait for the next one.
    paintClass(group, { locked: state.training?.state === "running", onRemove: (id) => removePhoto(group, id) });
}

async function addNamed() {
    const field = at("class-name"), name = field.value.trim();
    show(at("class-problem"), false);
    try {
        latest = await makeClass(name);
        field.value = "";
        announce(`The class ${visible(name)} is there.`);
    } catch (error) {
        at("class-problem").replaceChildren(...explainError(error));
        show(at("class-problem"));
    }
    field.focus();
}

async function makeClass(name) {
    const made = await (await call("POST", "/v1/teach/classes", { json: { name } })).json();
    await refresh();
    return groups.find((group) => group.name === made.name);
}

async function findOrMake(name) {
    const found = groups.find((group) => group.name.normalize("NFC").toLowerCase() === name.normalize("NFC").toLowerCase());
    try {
        return found ?? await makeClass(name);
    } catch (error) {
        note(["The folder ", nameOf(name), " did not become a class. ", ...explainError(error)], { seconds: 15 });
        return null;
    }
}

async function rename(group, field) {
    const name = field.value.trim(), problem = group.element.querySelector(".problem");
    show(problem, false);
    if (!name || name === group.name) {
        field.value = group.name;
        return;
    }
    try {
        const path = `/v1/teach/classes/${encodeURIComponent(group.name)}`;
        const made = await (await call("PATCH", path, { json: { name } })).json();
        group.name = made.name;
        forgetPictures(group);
        await refresh();
        announce(`Renamed to ${visible(made.name)}.`);
    } catch (error) {
        field.value = group.name;
        problem.replaceChildren(...explainError(error));
        show(problem);
    }
}

async function removeClass(group) {
    const n = group.photos.length;
    if (n && !await question({
        title: ["Delete ", nameOf(group.name), "?"],
        text: [`Its ${count(n, "photo")} will be removed from the work folder. The files they came from stay where they are.`],
        yes: "Delete", no: "Keep",
    })) return;
    try {
        await settle();
        await call("DELETE", `/v1/teach/classes/${encodeURIComponent(group.name)}`);
        if (latest === group) latest = null;
        await refresh();
        announce(`The class ${visible(group.name)} is gone.`);
        at("class-name").focus();
    } catch (error) {
        complain(error);
    }
}

// --- photos

function add(group, photos) {
    latest = group;
    group.refused = [];
    group.adding += photos.length;
    uploads.push(...photos.map((photo) => ({ group, photo })));
    pump();
}

function pump() {
    while (sending < AT_ONCE && uploads.length) {
        sending += 1;
        const { group, photo } = uploads.shift();
        upload(group, photo).finally(() => {
            sending -= 1;
            group.added += 1;
            if (group.added === group.adding) finishAdding(group);
            pump();
        });
    }
    paint();
}

async function upload(group, photo) {
    try {
        const path = `/v1/teach/classes/${encodeURIComponent(group.name)}/photos`;
        const { added, refused } = await (await call("POST", path, { body: wrap(photo.file) })).json();
        const known = new Set(group.photos);
        group.known += added.filter((id) => known.has(id) && !group.hidden.has(id)).length;
        group.photos = [...group.photos, ...added.filter((id) => !known.has(id))];
        for (const id of added) keep(group, id); // one that was being removed is wanted again
        group.refused.push(...refused.map((error) => ({ path: photo.path, error })));
    } catch (error) {
        group.refused.push({ path: photo.path, error });
    }
}

function finishAdding(group) {
    const { added, known, refused } = group, there = known ? `, ${known} there already` : "";
    announce(`${count(added - known - refused.length, "photo")} added to ${visible(group.name)}${there}${refused.length ? `, ${refused.length} refused` : ""}.`);
    // Nothing else on the page changes where all were known.
    if (known) note([`${count(known, "photo")} ${known === 1 ? "was" : "were"} in `, nameOf(group.name), " already."]);
    Object.assign(group, { adding: 0, added: 0, known: 0 });
}

/** Hide a photo at once, and delete it when nobody has wanted it back for a while. */
function removePhoto(group, id) {
    const list = group.element.querySelector(".thumbnails"), place = [...list.children].indexOf(group.pictures.get(id));
    const close = note([`A photo of `, nameOf(group.name), " was removed."], { seconds: UNDO, action: { text: "Undo", run: () => { keep(group, id); paint(); } } });
    const timer = setTimeout(() => deletePhoto(group, id), 1000 * UNDO);
    group.hidden.set(id, { timer, close });
    paint();
    (list.children[Math.min(place, list.children.length - 1)]?.querySelector(".remove") ?? group.element.querySelector(".choose")).focus();
}

function keep(group, id) {
    const pending = group.hidden.get(id);
    clearTimeout(pending?.timer);
    pending?.close();
    group.hidden.delete(id);
}

async function deletePhoto(group, id, { keepalive = false } = {}) {
    if (!group.hidden.has(id)) return;
    clearTimeout(group.hidden.get(id).timer);
    try {
        await call("DELETE", `/v1/teach/classes/${encodeURIComponent(group.name)}/photos/${encodeURIComponent(id)}`, { keepalive });
        group.photos = group.photos.filter((one) => one !== id);
    } catch (error) {
        if (error.status !== 404) complain(error);
    }
    keep(group, id);
    paint();
}

/** Delete now what was only hidden so far. */
async function settle(how = {}) {
    await Promise.all(groups.flatMap((group) => [...group.hidden.keys()].map((id) => deletePhoto(group, id, how))));
}

addEventListener("pagehide", () => settle({ keepalive: true }));

function complain(error) {
    note(explainError(error), { seconds: 15 });
}

