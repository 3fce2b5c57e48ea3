// The rows of the review page in which a finding is amended or added: what they say, and saying it.
export const word = (name) => document.getElementById("review").dataset[`word${name}`];
export const picked = (name, within = document) => within.querySelector(`input[name="${name}"]:checked`)?.value ?? "";
export const part = (row, name) => row.querySelector(`[data-part="${name}"]`);

export function read(row) {
  const presence = row.querySelector(".chips input:checked")?.value ?? "present";
  const given = { presence };
  if (presence !== "present") return given;
  given.code = part(row, "code")?.value ?? "";
  given.side = part(row, "side").value;
  given.category = part(row, "category").value ? Number(part(row, "category").value) : null;
  given.region = row.dataset.region ? JSON.parse(row.dataset.region) : null;
  return given;
}

export function fill(row, given) {
  const presence = [...row.querySelectorAll(".chips input")].find((one) => one.value === given.presence);
  if (presence) presence.checked = true;
  if (part(row, "what")) part(row, "what").value = `${given.analysis}:${given.finding}:${given.code}`;
  if (part(row, "code")) part(row, "code").value = given.code ?? "";
  part(row, "side").value = given.side ?? "";
  part(row, "category").value = given.category ?? "";
  place(row, given.region ?? null);
}

// The box of a row; null: none.
export function place(row, region) {
  if (region) row.dataset.region = JSON.stringify(region);
  else delete row.dataset.region;
  part(row, "region").textContent = region ? word("Box").replace("#n", region.index + 1) : word("NoBox");
  part(row, "no-box").hidden = !region;
}
