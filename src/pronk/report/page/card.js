/** One photo and its answer -> a card: the photo with its heat map, the verdict in words, the bars. */

import { drawBars } from "./bars.js";
import { brief, capital, copyOf, explainError, make, nameOf, percent, show, visible } from "./dom.js";

const MOST_BARS = 5;
const FRAME = 4 / 3; // the shape of the frames, see style.css
const SLIVER = 0.13; // a photo of nearly that shape fills its frame, rather than leaving slivers of it
const EXTREME = 4; // wider or taller pictures are not shown larger than such a one

/** Make the card of an entry; `actions` has remove(entry) and retry(entry). */
export function makeCard(entry, actions) {
    const card = copyOf("card-template"), picture = card.querySelector(".picture");
    const remove = card.querySelector(".remove");
    picture.alt = `The photo ${visible(entry.path)}`;
    picture.onload = () => shape(card, picture.naturalWidth / picture.naturalHeight);
    picture.onerror = () => {
        card.classList.add("blank"); // a heat map over nothing would tell nothing
        show(picture, false);
        show(card.querySelector(".no-picture"));
    };
    picture.src = entry.url;
    card.querySelector(".path").append(nameOf(entry.path));
    remove.setAttribute("aria-label", `Remove ${visible(entry.path)}`);
    remove.title = "Remove";
    remove.addEventListener("click", () => actions.remove(entry));
    card.querySelector(".retry button").addEventListener("click", () => actions.retry(entry));
    return card;
}

/** Let a card say what is known by now. */
export function paintCard(card, entry, { current }) {
    const { state, record, error } = entry, verdict = card.querySelector(".verdict"), words = card.querySelector(".words");
    const problem = error ?? record?.error;
    card.dataset.state = problem ? "failed" : state;
    card.setAttribute("aria-busy", String(state === "asking"));
    words.replaceChildren();
    show(card.querySelector(".retry"), Boolean(error?.passing));
    card.querySelector(".took").textContent = record?.milliseconds ? brief(record.milliseconds) : "";
    placeHeat(card.querySelector(".heat"), problem ? null : record?.heatmap);
    if (problem) {
        verdict.textContent = "No answer";
        words.append(...explainError(problem));
    } else if (state === "done") {
        card.classList.toggle("unknown", record.unknown);
        verdict.replaceChildren(...sayVerdict(record));
        words.append(...explainVerdict(record));
        if (entry.model !== current) words.append(words.childNodes.length ? " " : "", "Answered by the model ", nameOf(entry.model), ".");
    } else {
        verdict.textContent = state === "asking" ? capital(entry.waiting || "looking…") : "Waiting its turn";
    }
    drawScores(card, problem ? [] : record?.scores ?? [], record?.unknown ? null : record?.label);
}

/** The answer in a few words, as nodes. */
export function sayVerdict(record) {
    if (record.unknown) return ["None of these"];
    return [nameOf(record.label), " ", make("span", { className: "sure" }, percent(record.score))];
}

/** The answer in a few words, as text. */
export const tellVerdict = (record) => (record.unknown ? "none of these" : `${visible(record.label)}, ${percent(record.score)}`);

/** What there is to say about an answer, as nodes. */
export function explainVerdict(record) {
    if (!record.unknown) return [];
    const top = record.scores[0];
    return ["It resembles nothing the model learned from.", ...(top ? [" If it had to choose: ", nameOf(top.label), "."] : [])];
}

/** Lay the heat map over a picture, where the network looked; or take it away. */
export function placeHeat(image, heatmap) {
    if (!show(image, Boolean(heatmap))) return;
    const [left, top, width, height] = heatmap.box;
    const place = { left, top, width, height };
    for (const [side, share] of Object.entries(place)) image.style[side] = `${100 * share}%`;
    image.alt = `Where the model saw ${visible(heatmap.label)}`;
    image.src = heatmap.image;
}

function shape(card, ratio) {
    const photo = card.querySelector(".photo");
    photo.style.setProperty("--ratio", Math.min(Math.max(ratio || 1, 1 / EXTREME), EXTREME));
    photo.classList.toggle("near", Math.abs(ratio / FRAME - 1) < SLIVER);
    photo.classList.add("shaped");
}

function drawScores(card, scores, best) {
    const more = card.querySelector(".more"), few = scores.length <= MOST_BARS + 1;
    drawBars(card.querySelector(".answer > .bars"), few ? scores : scores.slice(0, MOST_BARS), best);
    if (!show(more, !few)) return;
    more.querySelector("summary").textContent = `${scores.length - MOST_BARS} more`;
    drawBars(more.querySelector(".bars"), scores.slice(MOST_BARS), best);
}
