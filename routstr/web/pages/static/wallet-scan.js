// Reading a QR code with the camera, where the browser can do that itself. The picture stays here.

import { $, el, show, toast } from "./wallet-dom.js";

const LOOK_MS = 200;

/** Show `button` where there is a camera and a reader; `found(text)` gets what was read. */
export async function offerScan(button, found) {
  if (!("BarcodeDetector" in window) || !navigator.mediaDevices) return;
  const formats = await window.BarcodeDetector.getSupportedFormats().catch(() => []);
  if (!formats.includes("qr_code")) return;
  show(button);
  button.addEventListener("click", () => scan(found));
}

async function scan(found) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    toast("The camera cannot be used here: paste the text instead.", "bad");
    return;
  }
  const video = el("video", { autoplay: true, muted: true, playsinline: true });
  video.srcObject = stream;
  const dialog = el("dialog", { "aria-label": "Scan a QR code" },
    el("div", { class: "title" }, el("h2", {}, "Scan a QR code"),
      el("button", { class: "button quiet square", type: "button", "data-closes": "", "aria-label": "Close" }, "✕")),
    el("div", { class: "camera" }, video));
  document.body.append(dialog);
  const detector = new window.BarcodeDetector({ formats: ["qr_code"] });
  const timer = setInterval(async () => {
    const [code] = await detector.detect(video).catch(() => []);
    if (code === undefined || !$("dialog[open]")) return;
    dialog.close();
    found(code.rawValue);
  }, LOOK_MS);
  dialog.addEventListener("close", () => {
    clearInterval(timer);
    for (const track of stream.getTracks()) track.stop();
    dialog.remove();
  });
  dialog.showModal();
}
