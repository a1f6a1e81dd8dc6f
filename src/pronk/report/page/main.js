/** The page: asks the server what it can do, then runs the two tabs. */

import { get } from "./api.js";
import { at, explainError, show } from "./dom.js";
import { takeIn } from "./photos.js";
import { addPhotos, leavePredict, refreshModel, setUpPredict } from "./predict.js";
import { enterTeach, leaveTeach, setUpTeach, takeForClass } from "./teach.js";

const TABS = ["predict", "teach"];
const HERE = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;
let tab = "predict";

/** Show one of the tabs. */
function goTo(name, { focus = false } = {}) {
    if (name !== tab) (tab === "predict" ? leavePredict : leaveTeach)();
    tab = name;
    for (const one of TABS) {
        at(`tab-${one}`).setAttribute("aria-selected", String(one === name));
        at(`tab-${one}`).tabIndex = one === name ? 0 : -1;
        show(at(one), one === name);
    }
    if (focus) at(`tab-${name}`).focus();
    history.replaceState(null, "", `#tab=${name}`);
    document.title = name === "teach" ? "Teach · pronk" : "pronk";
    if (name === "teach") enterTeach();
}

function setUpTabs() {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    for (const name of TABS) at(`tab-${name}`).addEventListener("click", () => goTo(name));
    document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
        const step = steps[event.key];
        if (!step) return;
        event.preventDefault();
        const place = TABS.indexOf(tab) + step;
        goTo(Number.isFinite(step) ? TABS.at(place % TABS.length) : TABS.at(step > 0 ? -1 : 0), { focus: true });
    });
}

/** Say where the photos go: to this machine, unless the page came from another one. */
function sayWhere() {
    if (HERE.test(location.hostname)) return;
    at("privacy").textContent = `Photos go to ${location.hostname}, which runs pronk, and never leave that machine.`;
    at("whereabouts").textContent = `Everything on this page happens on ${location.hostname}.`;
}

async function start() {
    // Not just the name: the browser would scroll to the element that is called so.
    const asked = new URLSearchParams(location.hash.slice(1)).get("tab");
    setUpTabs();
    sayWhere();
    try {
        const server = await get("/v1/server");
        at("version").textContent = server.version;
        setUpPredict(server, () => goTo("teach", { focus: true }));
        setUpTeach(server, async () => { await refreshModel(); goTo("predict", { focus: true }); });
        takeIn((photos, target) => (tab === "predict" ? addPhotos(photos) : takeForClass(photos, target)));
        const model = await refreshModel();
        goTo(TABS.includes(asked) ? asked : !model && server.teach ? "teach" : "predict");
    } catch (error) {
        at("trouble").replaceChildren(...explainError(error));
        show(at("trouble"));
    }
    document.documentElement.dataset.ready = "true";
}

start();
