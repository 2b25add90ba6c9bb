// Keeps what the page that listens consists of, so that it works without a network. All else it leaves alone.
// FILES are kept at once, LATER, which is large, when it has been fetched; all three are filled in when the site is built.
const FILES = [], LATER = [], CACHE = "soundtag-listen-";

self.addEventListener("install", (event) => event.waitUntil(
  caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting())));

self.addEventListener("activate", (event) => event.waitUntil(
  caches.keys().then((names) => Promise.all(names.filter((n) => n.startsWith("soundtag-listen-") && n !== CACHE).map((n) => caches.delete(n))))
    .then(() => self.clients.claim())));

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url), home = new URL("./", self.location);
  const file = url.origin === home.origin && url.pathname.startsWith(home.pathname) && url.pathname.slice(home.pathname.length);
  if (event.request.method !== "GET" || ![...FILES, ...LATER].includes(file)) return;
  const kept = () => caches.open(CACHE).then((cache) => cache.match(new URL(file, home)));
  const fetched = async () => {
    const reply = await fetch(event.request);
    if (reply.ok && LATER.includes(file)) (await caches.open(CACHE)).put(new URL(file, home), reply.clone()).catch(() => {});
    return reply;
  };
  const named = /-[0-9a-f]{8}\./.test(file);    // by its content: it never changes
  event.respondWith(named ? kept().then((it) => it ?? fetched()) : fetched().catch(kept));
});
