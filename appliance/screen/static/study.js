// A study page while it is open: what is new is offered, not forced under the reader; only an empty-handed page that
// waits for its result takes it at once.
const article = document.querySelector("article[data-study]");
const changed = document.querySelector(".changed");
const id = Number(article.dataset.study);

document.body.addEventListener("scanside:facts", (event) => {
  if (!event.detail.studies.includes(id)) return;
  const isWaiting = article.dataset.level === "open" && window.scrollY < 40 && !article.contains(document.activeElement);
  if (isWaiting) location.reload();
  else changed.hidden = false;
});
document.getElementById("renew").addEventListener("click", () => location.replace(location.pathname));
