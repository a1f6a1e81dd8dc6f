/** The camera's picture, about twice a second -> bars that move, and the heat map over the picture. */

import { call, wrap } from "./api.js";
import { drawBars } from "./bars.js";
import { grab } from "./camera.js";
import { explainVerdict, placeHeat, sayVerdict, tellVerdict } from "./card.js";
import { announce, brief, explainError, show } from "./dom.js";

const PERIOD = 450; // milliseconds from one question to the next, unless the answer takes longer
const PATIENCE = 2000; // after an error
const MOST_BARS = 6;

/** Answer until the returned function is called. */
export function watchLive(camera, model) {
    const reading = camera.element.querySelector(".reading"), heat = camera.element.querySelector(".heat");
    let going = true, timer = 0, former = "", told = "";
    const look = async () => {
        const started = performance.now();
        let pause = 0;
        try {
            if (camera.video.videoWidth) {
                // Twice the network's side: more pixels would only take longer.
                const blob = await grab(camera, { side: 2 * model().image.size });
                const response = await call("POST", "/v1/predict?explain=true", { body: wrap(blob) });
                const [record] = await response.json();
                if (!going) return;
                if (record.error) throw record.error;
                paint(record);
                const says = record.unknown ? "none of these" : record.label;
                // Only what holds for two looks is read out, once.
                if (says === former && says !== told) announce(tellVerdict(record));
                if (says === former) told = says;
                former = says;
            }
        } catch (error) {
            if (!going) return;
            reading.querySelector(".words").replaceChildren(...explainError(error));
            pause = PATIENCE;
        }
        timer = setTimeout(look, Math.max(pause, PERIOD - (performance.now() - started)));
    };
    const paint = (record) => {
        reading.querySelector(".verdict").replaceChildren(...sayVerdict(record));
        reading.classList.toggle("unknown", record.unknown);
        reading.querySelector(".words").replaceChildren(...explainVerdict(record));
        reading.querySelector(".took").textContent = brief(record.milliseconds);
        drawBars(reading.querySelector(".bars"), steady(record.scores, model().classes), record.unknown ? null : record.label);
        placeHeat(heat, record.heatmap);
    };
    show(reading);
    look();
    return () => {
        going = false;
        clearTimeout(timer);
        show(reading, false);
        show(heat, false);
    };
}

/** Few classes keep their places, so that the bars move and not the names; of many, the best are shown. */
function steady(scores, classes) {
    if (classes.length > MOST_BARS) return scores.slice(0, MOST_BARS);
    return [...scores].sort((a, b) => classes.indexOf(a.label) - classes.indexOf(b.label));
}
