/** Keeps the files of this page in the browser, so that it works without a network. FILES and VERSION are written in. */

const FILES = [/* FILES */];
const OWN = `pronk ${self.registration.scope} `; // another folder of this address may hold another model
const KEPT = `${OWN}VERSION`;
const FRESH = /\/(model\.json|page\.json|index\.html|)$/; // small, and first asked for where there is a network

self.addEventListener("install", (event) => {
    event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
    const forget = async () => {
        for (const name of await caches.keys()) if (name.startsWith(OWN) && name !== KEPT) await caches.delete(name);
        await self.clients.claim();
    };
    event.waitUntil(forget());
});

self.addEventListener("fetch", (event) => {
    const { request } = event;
    if (request.method !== "GET" || new URL(request.url).origin !== self.location.origin) return;
    const answer = async () => {
        const kept = await (await caches.open(KEPT)).match(request, { ignoreSearch: true });
        return kept && !FRESH.test(new URL(request.url).pathname) ? kept : fetch(request).catch(() => kept ?? Response.error());
    };
    event.respondWith(answer());
});
