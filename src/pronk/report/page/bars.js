/** Probabilities -> bars that keep their rows, so that they move from one answer to the next. */

import { make, nameOf, percent } from "./dom.js";

/** Show scores, [{label, score}], in the list: rows of the same label are used again.
 *
 * @param list the <ul class="bars">
 * @param scores in the order to show
 * @param best the label to set off, or null where the answer is none of them
 */
export function drawBars(list, scores, best) {
    const former = new Map([...list.children].map((row) => [row.dataset.label, row]));
    const rows = scores.map(({ label }) => former.get(label) ?? makeRow(label));
    // A row that is taken out and put back would jump instead of move.
    if (rows.length !== list.children.length || rows.some((row, i) => row !== list.children[i])) {
        list.replaceChildren(...rows);
        list.getBoundingClientRect(); // from here on changes are movements, also of new rows
    }
    rows.forEach((row, i) => {
        row.classList.toggle("best", scores[i].label === best);
        row.querySelector(".value").textContent = percent(scores[i].score);
        row.querySelector(".fill").style.transform = `scaleX(${scores[i].score})`;
    });
}

function makeRow(label) {
    const track = make("span", { className: "track" }, make("span", { className: "fill" }));
    track.setAttribute("aria-hidden", "true"); // the number says it
    const row = make("li", {}, make("span", { className: "label" }, nameOf(label)), " ", make("span", { className: "value" }), track);
    row.dataset.label = label;
    return row;
}
