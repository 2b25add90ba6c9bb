// Keeps what the page that listens consists of, so that it works without a network. All else it leaves alone.
const FILES = [], CACHE = "soundtag-listen-";    // both filled in when the site is built

self.addEventListener("install", (event) => event.waitUntil(
  caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting())));

self.addEventListener("activate", (event) => event.waitUntil(
  caches.keys().then((names) => Promise.all(names.filter((n) => n.startsWith("soundtag-listen-") && n !== CACHE).map((n) => caches.delete(n))))
    .then(() => self.clients.claim())));

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url), home = new URL("./", self.location);
  const file = url.origin === home.origin && url.pathname.startsWith(home.pathname) && url.pathname.slice(home.pathname.length);
  if (event.request.method !== "GET" || !FILES.includes(file)) return;
  const kept = () => caches.open(CACHE).then((cache) => cache.match(new URL(file, home)));
  const fetched = () => fetch(event.request);
  const named = /-[0-9a-f]{8}\./.test(file);    // by its content: it never changes
  event.respondWith(named ? kept().then((it) => it ?? fetched()) : fetched().catch(kept));
});
