/** Names from strangers, numbers, notes -> text and elements. No text ever becomes HTML: everything goes through text nodes. */

const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
const JOINERS = "\u200c\u200d"; // some scripts and emoji need them
const SHORT = { "\t": "\\t", "\n": "\\n", "\r": "\\r" };

/** The element with that id. */
export const at = (id) => document.getElementById(id);

/** Spell out the characters that hide, reorder or break text, as `pronk.text.visible` does. */
export function visible(text) {
    return text.replace(HIDDEN, (one) => {
        if (JOINERS.includes(one)) return one;
        const code = one.codePointAt(0), digits = code.toString(16);
        return SHORT[one] ?? (code < 256 ? `\\x${digits.padStart(2, "0")}`
            : code < 65536 ? `\\u${digits.padStart(4, "0")}` : `\\U${digits.padStart(8, "0")}`);
    });
}

/** Make an element; strings among the children become text. */
export function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
}

/** A stranger's name: its direction of writing ends where the name ends. */
export const nameOf = (text) => make("bdi", {}, visible(String(text)));

/** Names as a person lists them: a, b and c. */
export function listNames(names, last = "and") {
    return names.flatMap((name, i) => [i === 0 ? "" : i === names.length - 1 ? ` ${last} ` : ", ", nameOf(name)]);
}

/** A copy of what a <template> holds. */
export const copyOf = (id) => at(id).content.firstElementChild.cloneNode(true);

/** Show or hide, and tell which. */
export function show(element, shown = true) {
    element.hidden = !shown;
    return shown;
}

/** A share with one decimal, never rounded up to all or down to nothing. */
export function percent(share) {
    const shown = share > 0 && share < 1 ? Math.min(Math.max(100 * share, 0.1), 99.9) : 100 * share;
    return `${shown.toFixed(1)}\u00a0%`;
}

/** A number with its noun. */
export const count = (n, noun, nouns = `${noun}s`) => `${n.toLocaleString("en")} ${n === 1 ? noun : nouns}`;

/** Seconds as a person says them. */
export function duration(seconds) {
    const whole = Math.round(seconds);
    return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Milliseconds as a person says them. */
export const brief = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** Bytes as a person says them. */
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Say something to those who listen instead of looking. */
export function announce(text) {
    // The same words twice in a row would not be read again.
    at("live").textContent = at("live").textContent === text ? `${text}\u00a0` : text;
}

/** Show a short note for a while; `action` is {text, run}, and its button takes the note away. */
export function note(content, { action = null, seconds = 6 } = {}) {
    const toast = make("div", { className: "toast" }, make("span", {}, content));
    let timer;
    const close = () => { clearTimeout(timer); toast.remove(); };
    const wait = () => { clearTimeout(timer); timer = setTimeout(close, 1000 * seconds); };
    if (action) {
        const button = make("button", { type: "button" }, action.text);
        button.addEventListener("click", () => { close(); action.run(); });
        toast.append(button);
    }
    // Nobody should have to hurry: while it is pointed at or has the focus, it stays.
    for (const event of ["pointerenter", "focusin"]) toast.addEventListener(event, () => clearTimeout(timer));
    for (const event of ["pointerleave", "focusout"]) toast.addEventListener(event, wait);
    at("toasts").append(toast);
    wait();
    return close;
}

/** Ask before something that cannot be taken back; resolves to true or false. */
export function question({ title, text, yes, no }) {
    const dialog = at("question"), asked = document.activeElement;
    at("question-title").replaceChildren(...title);
    at("question-text").replaceChildren(...text);
    at("question-yes").textContent = yes;
    at("question-no").textContent = no;
    return new Promise((resolve) => {
        const answer = (value) => () => { dialog.close(value); };
        at("question-yes").onclick = answer("yes");
        at("question-no").onclick = answer("no");
        dialog.returnValue = "no"; // what the Escape key leaves
        dialog.onclose = () => { asked?.focus?.(); resolve(dialog.returnValue === "yes"); };
        dialog.showModal();
        at("question-no").focus();
    });
}

/** An error as a person can act on it: what is wrong, then what to do, as the command line says it. */
export function explainError({ message, hint }) {
    const what = capital(visible(message)), end = /[.!?]$/.test(what) ? "" : ".";
    return [make("span", { className: "what" }, what, end), ...(hint ? [" ", make("span", { className: "hint" }, `Hint: ${visible(hint)}`)] : [])];
}

/** A sentence of the server's, which begin small, as one that stands alone. */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Hand the reader a file. */
export function save(blob, name) {
    const url = URL.createObjectURL(blob);
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000); // some browsers start to read it late
}
