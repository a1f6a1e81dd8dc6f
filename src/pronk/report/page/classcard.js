/** A class of the data set -> its card: name, number, thumbnails, what was refused. */

import { fetchBlob, hasToken } from "./api.js";
import { count, explainError, make, nameOf, show, visible } from "./dom.js";
import { LEAST } from "./training.js";

const FEW = 16; // thumbnails, before the rest is folded

/** Bring a card up to date.
 *
 * @param group the class: {name, photos, hidden, element, pictures, adding, added, known, refused, all}
 * @param locked whether a training reads the class, so that its name has to stay
 * @param onRemove is given the id of a photo to remove
 */
export function paintClass(group, { locked, onRemove }) {
    const { name, element, hidden } = group, inside = (selector) => element.querySelector(selector);
    const photos = group.photos.filter((id) => !hidden.has(id)).reverse(), label = visible(name); // newest first
    if (document.activeElement !== inside("input.name")) inside("input.name").value = name;
    inside("input.name").setAttribute("aria-label", `Name of the class ${label}`);
    for (const [part, text] of [[".delete", "Delete the class"], [".choose", "Add photos to"], [".shoot", "Use the camera for"]]) {
        inside(part).setAttribute("aria-label", `${text} ${label}`);
    }
    for (const part of ["input.name", ".delete"]) inside(part).disabled = locked;
    const missing = LEAST - photos.length;
    inside(".number").textContent = missing > 0 ? `${photos.length} of ${LEAST}` : count(photos.length, "photo");
    inside(".number").classList.toggle("short", missing > 0);
    const shown = group.all ? photos : photos.slice(0, FEW);
    if (show(inside(".all"), photos.length > FEW)) inside(".all").textContent = group.all ? "Show fewer" : `Show all ${photos.length}`;
    for (const [id, picture] of group.pictures) if (!shown.includes(id)) { picture.remove(); group.pictures.delete(id); }
    const list = inside(".thumbnails");
    shown.forEach((id, i) => {
        if (!group.pictures.has(id)) group.pictures.set(id, makeThumbnail(group, id, onRemove));
        if (list.children[i] !== group.pictures.get(id)) list.insertBefore(group.pictures.get(id), list.children[i] ?? null);
    });
    show(list, shown.length > 0);
    show(inside(".invitation"), !photos.length && !group.adding);
    if (show(inside(".adding"), group.adding > 0)) {
        Object.assign(inside(".adding progress"), { max: group.adding, value: group.added });
        inside(".adding progress").setAttribute("aria-label", `Adding photos to ${label}`);
        inside(".adding span").textContent = `adding ${Math.min(group.added + 1, group.adding)} of ${group.adding}`;
    }
    paintRefused(inside(".refused"), group);
}

function paintRefused(box, group) {
    const { refused } = group;
    if (!show(box, refused.length > 0)) return;
    const close = make("button", { type: "button", className: "quiet" }, "Dismiss");
    close.addEventListener("click", () => { group.refused = []; show(box, false); });
    const rows = refused.map(({ path, error }) => make("li", {}, make("span", { className: "path" }, nameOf(path)), " ", explainError(error)));
    box.replaceChildren(make("p", {}, `${count(refused.length, "photo")} could not be added:`), make("ul", {}, rows), close);
}

function makeThumbnail(group, id, onRemove) {
    const picture = make("img", { alt: `A photo of ${visible(group.name)}`, loading: "lazy", width: 160, height: 160 });
    const address = `/v1/teach/classes/${encodeURIComponent(group.name)}/photos/${encodeURIComponent(id)}`;
    loadPicture(picture, address);
    const remove = make("button", { type: "button", className: "remove", title: "Remove" }, "×");
    remove.setAttribute("aria-label", `Remove this photo from ${visible(group.name)}`);
    remove.addEventListener("click", () => onRemove(id));
    return make("li", {}, picture, remove);
}

/** Let a picture show what lies at an address of the server. */
export async function loadPicture(picture, address) {
    if (!hasToken()) {
        picture.src = address;
        return;
    }
    try {
        picture.src = URL.createObjectURL(await fetchBlob(address));
        picture.onload = () => URL.revokeObjectURL(picture.src);
    } catch { /* the place stays empty; the photo is there all the same */ }
}

/** Let the thumbnails be fetched anew: their addresses hold the name of the class. */
export function forgetPictures(group) {
    for (const picture of group.pictures.values()) picture.remove();
    group.pictures.clear();
}
