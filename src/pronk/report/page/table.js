/** The session's answers -> a table, and a CSV file for other programs. */

import { brief, explainError, make, nameOf, percent } from "./dom.js";

const COLUMNS = ["path", "label", "score", "unknown", "distance", "error"];
const BYTE_ORDER_MARK = "\ufeff"; // without it, Excel takes UTF-8 for something else

/** One row; `onName` is called when its name is pressed. */
export function makeRow(entry, onName) {
    const { record, error, state } = entry, problem = error ?? record?.error;
    const name = make("button", { type: "button", className: "link path" }, nameOf(entry.path));
    name.addEventListener("click", onName);
    const row = make("tr", {}, make("th", { scope: "row" }, name));
    if (problem) {
        row.append(make("td", { className: "failed", colSpan: 3 }, explainError(problem)));
        return row;
    }
    const cells = state !== "done" ? ["…", ""] : record.unknown ? ["None of these", ""] : [nameOf(record.label), percent(record.score)];
    row.append(make("td", {}, cells[0]), make("td", { className: "n" }, cells[1]), make("td", { className: "n" }, record?.milliseconds ? brief(record.milliseconds) : ""));
    return row;
}

/** The entries that have an answer or an error, as CSV with one column of probabilities per class. */
export function writeCsv(entries) {
    const classes = [...new Set(entries.flatMap(({ record }) => (record?.scores ?? []).map(({ label }) => label)))].sort();
    const rows = entries.filter(({ state, error }) => state === "done" || error).map(({ path, record, error }) => {
        const problem = error ?? record?.error;
        const scores = new Map((record?.scores ?? []).map(({ label, score }) => [label, score]));
        const told = problem ? [null, null, null, null, `${problem.code}: ${problem.message}`]
            : [record.label, record.score, record.unknown ? "True" : "False", record.distance, null];
        return [path, ...told, ...classes.map((name) => scores.get(name) ?? null)];
    });
    return [[...COLUMNS, ...classes.map((name) => `p_${name}`)], ...rows].map((row) => `${row.map(writeCell).join(",")}\r\n`).join("");
}

/** The same as a file. */
export const csvFile = (entries) => new Blob([BYTE_ORDER_MARK, writeCsv(entries)], { type: "text/csv;charset=utf-8" });

/** A spreadsheet would run what begins like a formula, and names come from strangers: an apostrophe makes it text. */
function writeCell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\p{Cc}]/u.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
