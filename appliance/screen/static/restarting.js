// Waits until the box has gone and come back, then goes on.
const page = document.getElementById("restarting");
const begun = performance.now();
let gone = false;
setInterval(async () => {
  try {
    const answer = await fetch("/sign-in", { redirect: "manual", cache: "no-store" });
    if ((gone || performance.now() - begun > 8000) && (answer.ok || answer.type === "opaqueredirect")) location.href = page.dataset.onward;
  } catch {
    gone = true;
  }
}, 250);
