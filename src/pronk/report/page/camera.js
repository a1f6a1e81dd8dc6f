/** The camera -> JPEG files: a preview, a button that shoots, and whatever else a tab wants to do with the picture. */

import { copyOf, explainError, make, note, show } from "./dom.js";

const BURST = 250; // milliseconds between shots while the button is held
const HOLD = 450; // before a press counts as holding
const QUALITY = 0.92;

let current = null; // one camera at a time: {stream, element, asked, ...}

/** Open the camera in `place`.
 *
 * @param tip what to do with it
 * @param onShot gets each photo as a File
 * @param live called with the open camera, at once and whenever Live is pressed; returns a function that ends it. Without it, no such button.
 * @param burst whether a held button shoots on
 */
export async function openCamera(place, { tip, onShot, live = null, burst = false }) {
    const asked = document.activeElement;
    closeCamera();
    if (!navigator.mediaDevices?.getUserMedia) return offerApp(place, onShot);
    const camera = { element: copyOf("camera-template"), asked, live, end: null, facing: "environment", stream: null };
    current = camera;
    camera.video = camera.element.querySelector("video");
    camera.element.querySelector(".tip").textContent = tip;
    camera.element.querySelector(".close").addEventListener("click", () => { closeCamera(); asked?.focus?.(); });
    const shoot = camera.element.querySelector(".shoot"), button = camera.element.querySelector(".live");
    listenForShots(shoot, () => takeShot(camera, onShot), burst);
    if (show(button, Boolean(live))) button.addEventListener("click", () => toggleLive(camera, button));
    camera.element.querySelector(".turn").addEventListener("click", () => {
        camera.facing = camera.facing === "user" ? "environment" : "user";
        start(camera, place);
    });
    place.replaceChildren(camera.element);
    await start(camera, place);
    if (current !== camera) return null;
    if (live) toggleLive(camera, button);
    camera.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
    shoot.focus({ preventScroll: true });
    return null;
}

/** Turn it off: the light on the machine goes out. */
export function closeCamera() {
    if (!current) return;
    const camera = current;
    current = null;
    camera.end?.();
    stop(camera);
    camera.element.remove();
}

/** A picture of what the camera sees now, as a Blob; `side` limits the shorter side in pixels. */
export function grab({ video }, { side = Infinity } = {}) {
    const { videoWidth: width, videoHeight: height } = video, scale = Math.min(1, side / Math.min(width, height));
    const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", QUALITY); });
}

async function start(camera, place) {
    stop(camera);
    let stream;
    try {
        const wanted = { facingMode: { ideal: camera.facing }, width: { ideal: 1280 }, height: { ideal: 960 } };
        stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
        if (current === camera) refuse(camera, place, error);
        return;
    }
    if (current !== camera) { // closed while the browser was asking for permission
        stream.getTracks().forEach((track) => track.stop());
        return;
    }
    camera.stream = stream;
    camera.video.srcObject = stream;
    await camera.video.play().catch(() => {});
    const { facingMode, width, height } = stream.getVideoTracks()[0].getSettings();
    // People expect a mirror when they face the screen; the photos themselves are never mirrored.
    camera.element.classList.toggle("mirrored", facingMode !== "environment");
    camera.element.style.setProperty("--ratio", width && height ? width / height : 4 / 3);
    const devices = await navigator.mediaDevices.enumerateDevices();
    show(camera.element.querySelector(".turn"), devices.filter(({ kind }) => kind === "videoinput").length > 1);
}

function stop(camera) {
    camera.stream?.getTracks().forEach((track) => track.stop());
    camera.stream = null;
}

function refuse(camera, place, error) {
    const told = {
        NotAllowedError: ["the browser may not use the camera", "allow it beside the page's address, then press the button again"],
        NotFoundError: ["no camera was found", "plug one in, or choose photos instead"],
        NotReadableError: ["the camera does not answer", "perhaps another program is using it: close that, then press the button again"],
    }[error.name] ?? [`the camera does not open: ${error.message}`, "choose photos instead"];
    const asked = camera.asked;
    closeCamera();
    place.replaceChildren(complaint(told, place));
    asked?.focus?.();
}

function complaint([message, hint], place) {
    const close = make("button", { type: "button", className: "quiet" }, "Close");
    const box = make("div", { className: "notice" }, make("p", {}, explainError({ message, hint })), make("p", { className: "buttons" }, close));
    box.setAttribute("role", "alert");
    close.addEventListener("click", () => place.replaceChildren());
    return box;
}

/** Browsers lend the camera only to pages of this machine or with https; a phone's own camera app works everywhere. */
function offerApp(place, onShot) {
    const box = complaint([
        "the browser lends its camera only to pages at https:// or at localhost",
        "let the phone take the photo with its own camera app, or open the page on the machine that pronk runs on",
    ], place);
    const input = make("input", { type: "file", accept: "image/*", hidden: true });
    const button = make("button", { type: "button" }, "Take a photo with the camera app");
    input.setAttribute("capture", "environment");
    input.addEventListener("change", () => { [...input.files].forEach(onShot); input.value = ""; });
    button.addEventListener("click", () => input.click());
    box.querySelector(".buttons").prepend(button, input);
    place.replaceChildren(box);
}

function toggleLive(camera, button) {
    camera.end?.();
    const on = button.getAttribute("aria-pressed") !== "true";
    camera.end = on ? camera.live(camera) : null;
    button.setAttribute("aria-pressed", String(on));
}

async function takeShot(camera, onShot) {
    if (!camera.video.videoWidth) return note("The camera has no picture yet.");
    const blob = await grab(camera), finder = camera.element.querySelector(".finder");
    finder.classList.remove("flash");
    finder.getBoundingClientRect(); // so that the next flash begins anew
    finder.classList.add("flash");
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
    onShot(new File([blob], `camera ${time}.jpg`, { type: "image/jpeg" }));
    return null;
}

/** One press is one shot; with `burst`, a held button goes on. */
function listenForShots(button, shoot, burst) {
    let timer = 0, held = false;
    const release = () => clearTimeout(timer);
    button.addEventListener("pointerdown", (event) => {
        button.setPointerCapture(event.pointerId); // shots push the button away from under the finger
        held = false;
        if (!burst) return;
        const again = () => { held = true; shoot(); timer = setTimeout(again, BURST); };
        timer = setTimeout(again, HOLD);
    });
    for (const event of ["pointerup", "pointerleave", "pointercancel"]) button.addEventListener(event, release);
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // what a held finger means elsewhere
    button.addEventListener("click", () => { if (!held) shoot(); held = false; });
}

// Nobody should be seen by a page that they do not see.
document.addEventListener("visibilitychange", () => {
    if (!document.hidden || !current) return;
    closeCamera();
    note("The camera was turned off while the page was hidden.");
});
addEventListener("pagehide", closeCamera);
