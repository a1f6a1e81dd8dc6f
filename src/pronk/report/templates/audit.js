"use strict";
/* Decisions about labels -> review.csv, saved from the page itself. What was decided is remembered where that is possible. */
{
    const { classes, rows } = JSON.parse(document.getElementById("payload").textContent);
    const at = (id) => document.getElementById(id);
    const elements = rows.map((_, i) => at(`row-${i}`));
    const place = `pronk-review-${rows.map(({ digest }) => digest.slice(0, 4)).join("")}`;
    const KEYS = { k: "keep", m: "move", d: "drop", u: null };
    let decided = {}; // by digest and path: {action, label}
    let unsaved = false, remembered = false;

    const nameOf = ({ digest, path }) => `${digest} ${path}`;
    const isKnown = (label) => classes.some(({ name }) => name === label);

    function recall() {
        try {
            const stored = JSON.parse(localStorage.getItem(place)) ?? {};
            for (const row of rows) {
                const { action, label } = stored[nameOf(row)] ?? {};
                if (["keep", "move", "drop"].includes(action) && isKnown(label)) decided[nameOf(row)] = { action, label };
            }
            remembered = true;
        } catch { /* not every browser keeps something for a file */ }
    }

    function remember() {
        try {
            localStorage.setItem(place, JSON.stringify(decided));
        } catch { remembered = false; }
    }

    // --- one row

    function setUp(element, i) {
        const select = element.querySelector("select");
        select.replaceChildren(...classes.filter(({ name }) => name !== rows[i].given).map(({ name, shown }) => {
            const option = new Option(shown, classes.findIndex((one) => one.name === name));
            option.selected = name === (decided[nameOf(rows[i])]?.action === "move" ? decided[nameOf(rows[i])].label : rows[i].suggested);
            return option;
        }));
        element.querySelector("fieldset").disabled = false;
        for (const input of element.querySelectorAll("input")) input.addEventListener("change", () => decide(i, input.value));
        select.addEventListener("change", () => decide(i, "move"));
        element.addEventListener("keydown", (event) => press(event, i));
    }

    function decide(i, action) {
        const name = nameOf(rows[i]);
        if (action === null) delete decided[name];
        else decided[name] = { action, label: action === "move" ? classes[elements[i].querySelector("select").value].name : rows[i].given };
        unsaved = true;
        remember();
        paint();
    }

    function press(event, i) {
        const key = event.key.toLowerCase();
        if (event.ctrlKey || event.altKey || event.metaKey || event.target.localName === "select") return;
        if (key in KEYS) {
            decide(i, KEYS[key]);
            if (KEYS[key]) goOn(i);
        } else if (key === "n" || key === "p") {
            elements[i + (key === "n" ? 1 : -1)]?.focus();
        } else return;
        event.preventDefault();
    }

    /** Go to the next row that is not decided, from the top again after the last; then there is only saving left. */
    function goOn(from) {
        const order = [...rows.keys()].map((_, step) => (from + 1 + step) % rows.length);
        const next = order.find((i) => !(nameOf(rows[i]) in decided));
        (elements[next] ?? at("save")).focus();
    }

    // --- all of them

    function paint() {
        rows.forEach((row, i) => {
            const action = decided[nameOf(row)]?.action;
            elements[i].classList.toggle("decided", action !== undefined);
            for (const input of elements[i].querySelectorAll("input")) input.checked = input.value === action;
        });
        const done = Object.keys(decided).length;
        at("progress").textContent = `${done} of ${rows.length} decided`;
        at("share").value = done;
        at("save").disabled = done === 0;
        at("saved").textContent = "";
    }

    function save() {
        const lines = [["path", "digest", "given", "action", "label"]];
        for (const row of rows) {
            const decision = decided[nameOf(row)];
            if (decision) lines.push([row.path, row.digest, row.given, decision.action, decision.action === "drop" ? "" : decision.label]);
        }
        const bytes = encode(lines.map((line) => `${line.map(quote).join(",")}\n`).join(""));
        const url = URL.createObjectURL(new Blob([bytes], { type: "text/csv" }));
        Object.assign(document.createElement("a"), { href: url, download: "review.csv" }).click();
        setTimeout(() => URL.revokeObjectURL(url), 60_000); // some browsers start to read it late
        unsaved = false;
        at("saved").textContent = `Saved ${lines.length - 1 === 1 ? "1 decision" : `${lines.length - 1} decisions`} as review.csv. How to apply it stands below.`;
    }

    /** A spreadsheet would run what begins like a formula: an apostrophe makes it text, and pronk takes that away again. */
    function quote(value) {
        const text = /^'*[=+\-@\t\r]/.test(value) ? `'${value}` : value;
        return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    }

    /** Text as UTF-8, but for the bytes of file names that are none: they stay what they are. */
    function encode(text) {
        const encoder = new TextEncoder(), bytes = [];
        for (const one of text) {
            const code = one.codePointAt(0);
            if (code >= 0xdc80 && code <= 0xdcff) bytes.push(code - 0xdc00);
            else bytes.push(...encoder.encode(one));
        }
        return new Uint8Array(bytes);
    }

    recall();
    elements.forEach(setUp);
    paint();
    at("save").addEventListener("click", save);
    at("start").addEventListener("click", () => goOn(-1));
    addEventListener("beforeunload", (event) => { if (unsaved && !remembered) event.preventDefault(); });
}
