/** The page of a model that runs in the visitor's own browser: no server, no second address, no network once it is loaded. */

import { get } from "./api.js";
import { at, explainError, show } from "./dom.js";
import { takeIn } from "./photos.js";
import { addPhotos, refreshModel, setUpPredict } from "./predict.js";

async function start() {
    try {
        setUpPredict(await get("/v1/server"), () => {});
        takeIn(addPhotos);
        await refreshModel();
    } catch (error) {
        at("trouble").replaceChildren(...explainError(error));
        show(at("trouble"));
    }
    document.documentElement.dataset.ready = "true";
    // Kept for the next time, and for times without a network; where it is forbidden, the page works all the same.
    await navigator.serviceWorker?.register("service.js").catch(() => {});
}

start();
