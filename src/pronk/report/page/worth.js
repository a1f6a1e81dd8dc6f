/** Photos without a label -> those worth labelling, and from there into a class: a step of the Teach tab. */

import { call, get, wrap } from "./api.js";
import { loadPicture } from "./classcard.js";
import { at, count, explainError, listNames, make, nameOf, note, show, visible } from "./dom.js";
import { takeChosen } from "./photos.js";

const PATH = "/v1/teach/unlabelled";
const FEW = 4; // classes, beside the likely ones, that have a button each
let teach = null; // what the tab lends: classes, refresh
let waiting = 0, busy = false;

/** Set the section up. */
export function setUpWorth(lent) {
    teach = lent;
    for (const [button, files] of [["worth-choose", "worth-files"], ["worth-folder", "worth-folder-files"]]) {
        at(button).addEventListener("click", () => at(files).click());
        at(files).addEventListener("change", () => addUnlabelled(takeChosen(at(files))));
    }
    at("worth-clear").addEventListener("click", clear);
}

/** Show the section where a model can choose, with what waits since the last time. */
export async function paintWorth(hasModel) {
    const isNew = at("worth").hidden;
    if (show(at("worth"), hasModel) && isNew) await choose();
}

async function addUnlabelled(photos) {
    if (busy || !photos.length) return photos.length ? null : note("There was no photo in that.");
    busy = true;
    const refused = [];
    for (const [i, photo] of photos.entries()) {
        at("worth-state").textContent = `Adding ${i + 1} of ${photos.length}`;
        try {
            const told = await (await call("POST", PATH, { body: wrap(photo.file) })).json();
            refused.push(...told.refused.map((error) => [photo.path, error]));
        } catch (error) {
            refused.push([photo.path, error]);
            if (error.code === "usage") break; // there is no room for more
        }
    }
    busy = false;
    if (refused.length) {
        const [path, error] = refused[0], more = refused.length - 1;
        note([nameOf(path), ": ", ...explainError(error), more ? ` And ${count(more, "other")} like it.` : ""], { seconds: 15 });
    }
    return choose();
}

async function choose() {
    if (busy) return;
    busy = true;
    at("worth-state").textContent = "Looking at the photos …";
    try {
        const told = await get(PATH);
        waiting = told.waiting;
        at("worth-photos").replaceChildren(...told.chosen.map(makeCard));
        const known = waiting && !told.chosen.length ? " The model has learned from all of them." : "";
        at("worth-state").textContent = waiting ? `${count(waiting, "photo")} without a label.${known}` : "";
    } catch (error) {
        at("worth-state").replaceChildren(...explainError(error));
    }
    show(at("worth-clear"), waiting > 0);
    busy = false;
}

function makeCard({ id, label, score, second, unknown }) {
    const picture = make("img", { alt: "A photo without a label", width: 160, height: 160 });
    loadPicture(picture, `${PATH}/${encodeURIComponent(id)}`);
    const doubt = unknown ? ["Unlike all it knows."] : second ? [...listNames([label, second], "or"), "?"] : [nameOf(label), "?"];
    const known = teach.classes(), likely = unknown ? [] : [label, second].filter((name) => known.includes(name));
    const decideFor = (name) => decide(card, () => call("POST", `${PATH}/${encodeURIComponent(id)}/label`, { json: { name } }));
    const others = known.filter((name) => !likely.includes(name));
    const buttons = (others.length > FEW ? likely : [...likely, ...others]).map((name) => {
        const button = make("button", { type: "button", className: name === label && !unknown && score > 0.5 ? "likely" : "" }, nameOf(name));
        button.addEventListener("click", () => decideFor(name));
        return button;
    });
    if (others.length > FEW) {
        const list = make("select", {}, make("option", { value: "" }, "another class"), others.map((name) => make("option", { value: name }, visible(name))));
        list.setAttribute("aria-label", "Another class");
        list.addEventListener("change", () => list.value && decideFor(list.value));
        buttons.push(list);
    }
    const skip = make("button", { type: "button", className: "quiet", title: "None of these: take the photo away" }, "None of these");
    skip.addEventListener("click", () => decide(card, () => call("DELETE", `${PATH}/${encodeURIComponent(id)}`)));
    const asked = make("div", {}, make("p", { className: "doubt" }, doubt), make("p", { className: "buttons" }, buttons, skip));
    asked.setAttribute("role", "group");
    asked.setAttribute("aria-label", `Is it ${unknown ? "something new" : visible(label)}?`);
    const card = make("li", {}, picture, asked);
    return card;
}

/** Do with a photo what was decided, and go on to the next one; when all are decided, others are chosen. */
async function decide(card, act) {
    const next = card.nextElementSibling ?? card.previousElementSibling;
    for (const one of card.querySelectorAll("button, select")) one.disabled = true;
    try {
        await act();
    } catch (error) {
        if (error.status !== 404) note(explainError(error), { seconds: 15 });
    }
    card.remove();
    waiting = Math.max(0, waiting - 1);
    at("worth-state").textContent = waiting ? `${count(waiting, "photo")} without a label.` : "All of them have labels now.";
    show(at("worth-clear"), waiting > 0);
    next?.querySelector("button, select").focus();
    await teach.refresh();
    if (!at("worth-photos").children.length && waiting) await choose();
}

async function clear() {
    try {
        await call("DELETE", PATH);
        waiting = 0;
        at("worth-photos").replaceChildren();
        at("worth-state").textContent = "";
        show(at("worth-clear"), false);
    } catch (error) {
        note(explainError(error), { seconds: 15 });
    }
}
