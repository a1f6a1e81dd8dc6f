/** What is dropped, pasted or chosen -> photos: {file, path}, where the path names the folders inside a dropped folder. */

// The page lists the formats that are read. HEIC is refused with what to do about it, so it is sent, but never asked for.
const [, ...READ] = document.getElementById("files").accept.split(",");
const ENDINGS = [...READ, ".heic", ".heif"];

/** Whether something in a folder is worth sending; folders hold more than photos. */
function looksLikePhoto(file) {
    const name = file.name.toLowerCase();
    return !name.startsWith(".") && (file.type.startsWith("image/") || ENDINGS.some((ending) => name.endsWith(ending)));
}

/** The photos of a file input, which is ready for the next choice at once. */
export function takeChosen(input) {
    const photos = [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
    input.value = ""; // the same file may be chosen again
    return input.webkitdirectory ? photos.filter(({ file }) => looksLikePhoto(file)) : photos;
}

/** The photos of a drop or of the clipboard, with those inside dropped folders. */
export async function takeDropped(transfer) {
    // The list of items is gone after the first wait, so everything is taken out of it first.
    const items = [...(transfer?.items ?? [])].filter((item) => item.kind === "file");
    const taken = items.map((item) => ({ entry: item.webkitGetAsEntry?.() ?? null, file: item.getAsFile() }));
    const photos = [];
    for (const { entry, file } of taken) {
        if (entry?.isDirectory) await walk(entry, entry.name, photos);
        else if (file) photos.push({ file, path: file.name });
    }
    return photos;
}

async function walk(folder, path, photos) {
    const reader = folder.createReader(), entries = [];
    for (;;) { // it hands out a hundred at a time, and an empty list at the end
        const some = await new Promise((resolve) => { reader.readEntries(resolve, () => resolve([])); });
        if (!some.length) break;
        entries.push(...some);
    }
    entries.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    for (const entry of entries) {
        if (entry.isDirectory && !entry.name.startsWith(".")) await walk(entry, `${path}/${entry.name}`, photos);
        if (!entry.isFile) continue;
        const file = await new Promise((resolve) => { entry.file(resolve, () => resolve(null)); });
        if (file && looksLikePhoto(file)) photos.push({ file, path: `${path}/${file.name}` });
    }
}

/** Sort photos into classes by their folders, as [[class or null, photos], ...]; null for those in no folder.
 *
 * A folder with photos in it is a class. One with nothing but folders is a data set, and each of these is a class.
 */
export function sortIntoClasses(photos) {
    const split = photos.map((photo) => ({ photo, parts: photo.path.split("/") }));
    const holders = new Set(split.filter(({ parts }) => parts.length === 2).map(({ parts }) => parts[0]));
    const classes = new Map();
    for (const { photo, parts } of split) {
        const name = parts.length === 1 ? null : holders.has(parts[0]) ? parts[0] : parts[1];
        classes.set(name, [...(classes.get(name) ?? []), photo]);
    }
    return [...classes];
}

/** Let an element take drops: `onPhotos` gets them, and the class `over` is set meanwhile. */
export function acceptDrops(element, onPhotos, { highlight = element } = {}) {
    let depth = 0; // entering a child comes before leaving its parent
    const mark = (change) => {
        depth = Math.max(0, depth + change);
        highlight.classList.toggle("over", depth > 0);
    };
    element.addEventListener("dragenter", (event) => { event.preventDefault(); mark(+1); });
    element.addEventListener("dragleave", () => mark(-1));
    element.addEventListener("dragover", (event) => {
        event.preventDefault();
        event.dataTransfer.dropEffect = "copy";
    });
    element.addEventListener("drop", async (event) => {
        mark(-depth);
        if (event.defaultPrevented) return; // something inside has taken it
        event.preventDefault();
        onPhotos(await takeDropped(event.dataTransfer));
    });
}

/** Let the whole page take what is dropped or pasted: a photo that misses its target must not replace the page.
 *
 * `onPhotos` gets them, and where they were pasted.
 */
export function takeIn(onPhotos) {
    acceptDrops(document.documentElement, (photos) => onPhotos(photos), { highlight: document.body });
    document.addEventListener("paste", async (event) => {
        if (![...event.clipboardData.items].some(({ kind }) => kind === "file")) return; // text, for a field
        event.preventDefault();
        onPhotos(await takeDropped(event.clipboardData), event.target);
    });
}
