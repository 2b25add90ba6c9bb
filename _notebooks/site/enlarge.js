// A figure opens large in a dialog, by mouse or by keyboard; without this script it opens as a file.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.figure-card");
  if (!link || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const small = [...link.querySelectorAll("img")].find((img) => img.offsetParent), dialog = document.createElement("dialog");    // the light one or the dark
  const large = Object.assign(new Image(), { src: small.src, alt: small.alt });
  const text = Object.assign(document.createElement("p"), { textContent: small.alt });
  const close = Object.assign(document.createElement("button"), { textContent: "Close", type: "button" });
  dialog.className = "enlarged";
  dialog.setAttribute("aria-label", "Figure");
  dialog.append(close, large, text);
  dialog.addEventListener("click", (e) => { if (e.target === dialog || e.target === close) dialog.close(); });
  dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
  document.body.append(dialog);
  dialog.showModal();
});

// What scrolls sideways can be scrolled by keyboard.
addEventListener("load", () => document.querySelectorAll("main pre, main table, .katex-display").forEach((box) => {
  if (box.scrollWidth > box.clientWidth) { box.tabIndex = 0; box.setAttribute("role", box.tagName === "TABLE" ? "table" : "region"); if (box.tagName !== "TABLE") box.setAttribute("aria-label", "scrollable"); }
}));
