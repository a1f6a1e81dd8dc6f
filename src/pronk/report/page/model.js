/** The model's record -> what it is and how good, in words. */

import { count, listNames, make, nameOf, percent } from "./dom.js";

const MOST_IN_A_QUESTION = 4;
const MOST_NAMED = 24;

/** The question that the model answers. */
export function askInWords(model) {
    const n = model.classes.length;
    return n <= MOST_IN_A_QUESTION ? ["Is it ", ...listNames(model.classes, "or"), "?"] : [`Which of ${n} classes is it?`];
}

/** What the model is and how good. */
export function describeModel(model) {
    const { photos, trained, weights } = model;
    const seen = photos ? `on ${count(photos.train, "photo")}` : "";
    const when = trained ? new Date(`${trained}T00:00`).toLocaleDateString("en-GB", { dateStyle: "long" }) : "";
    const more = make("dl", {},
        fact("Other things", ...[unknownInWords(model)].flat()),
        fact("Name", nameOf(model.name)),
        fact("Sees", `${model.image.size} × ${model.image.size} pixels, ${fitInWords(model.image.fit)}`),
        fact("Started from", nameOf(weights?.name ?? "not known")),
        fact("Runs with", nameOf(model.runtime)),
        fact("Sureness", model.calibrated ? "calibrated: being 80\u00a0% sure means being right about 8 times in 10" : "not calibrated: take the numbers as an order only"));
    return [
        ...describeAccuracy(model.accuracy),
        make("dl", {},
            fact(`Knows ${count(model.classes.length, "class", "classes")}`, nameClasses(model.classes)),
            seen || when ? fact("Trained", [when, seen].filter(Boolean).join(", ")) : null),
        make("details", {}, make("summary", {}, "More about it"), more),
    ];
}

/** How often it is right, with its interval as a picture. */
export function describeAccuracy(accuracy) {
    if (!accuracy) return [make("p", {}, "There is no number for how good it is: it comes without a test on photos it had never seen.")];
    const { value, low, high, n } = accuracy, right = Math.round(value * n);
    const between = `between ${percent(low)} and ${percent(high)}`;
    const band = make("i"), mark = make("b"), picture = make("div", { className: "interval" }, band, mark);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", `The interval on a scale from 0 to 100 %: ${between}`);
    Object.assign(band.style, { left: `${100 * low}%`, width: `${100 * (high - low)}%` });
    mark.style.left = `${100 * value}%`;
    return [
        make("p", { className: "big" }, percent(value), " ", make("small", {}, "right")),
        picture,
        make("p", { className: "scale" }, make("span", {}, "0\u00a0%"), make("span", {}, "100\u00a0%")),
        make("p", {}, `Of ${count(n, "test photo")}, ${right.toLocaleString("en")} ${right === 1 ? "was" : "were"} right. On more like them expect ${between}.`),
    ];
}

function fact(term, ...description) {
    return make("div", {}, make("dt", {}, term), make("dd", {}, ...description));
}

function nameClasses(classes) {
    const chips = (names) => make("ul", { className: "chips" }, names.map((name) => make("li", {}, nameOf(name))));
    if (classes.length <= MOST_NAMED) return chips(classes);
    const rest = classes.slice(MOST_NAMED);
    return [chips(classes.slice(0, MOST_NAMED)), make("details", {}, make("summary", {}, `${rest.length} more`), chips(rest))];
}

function unknownInWords({ unknown, coverage, rest_class: rest }) {
    if (rest !== null) return ["They belong to ", nameOf(rest), ", the class of all the rest."];
    if (!unknown) return "It cannot tell: a photo of anything gets one of its classes.";
    const kept = coverage ? ` About ${Math.round(100 * coverage)} of 100 genuine photos keep their class.` : "";
    return `It says “none of these” where a photo resembles nothing it learned from.${kept}`;
}

function fitInWords(fit) {
    return { crop: "of the centre square", pad: "of the whole photo, with margins", squash: "of the whole photo, squashed" }[fit] ?? fit;
}
