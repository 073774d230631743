"use strict";
const list = document.getElementById("list"), lesions = [...list.children];
const field = (name) => document.getElementById(name);
const texts = new Map(lesions.map((lesion) => [lesion, (lesion.querySelector("summary").textContent + " " +
  (lesion.querySelector(".findings")?.textContent ?? "")).toLowerCase()]));

function wanted(lesion) {
  const { split, class: name, note, size } = lesion.dataset, kind = field("by-kind").value;
  const least = field("least").value, most = field("most").value;
  return (!field("by-split").value || split === field("by-split").value)
    && (!field("by-class").value || name === field("by-class").value)
    && (!kind || (kind === "any" ? note !== "" : note.split("|").includes(kind)))
    && (least === "" || (size !== "" && Number(size) >= Number(least)))
    && (most === "" || (size !== "" && Number(size) <= Number(most)))
    && texts.get(lesion).includes(field("words").value.trim().toLowerCase());
}

function filter() {
  let shown = 0;
  for (const lesion of lesions) {
    lesion.hidden = !wanted(lesion);
    shown += !lesion.hidden;
  }
  field("count").textContent = `${shown} of ${lesions.length} lesions`;
}

function sort() {
  const key = field("order").value, way = "down" in field("order").selectedOptions[0].dataset ? -1 : 1;
  const value = (lesion) => {
    const text = lesion.dataset[key];
    if (["class", "split", "note"].includes(key)) return text || "\uffff";  // those without a note last
    return text === "" ? Infinity : Number(text);
  };
  const before = (a, b) => (value(a) < value(b) ? -way : value(a) > value(b) ? way : 0);
  list.append(...lesions.sort((a, b) => before(a, b) || a.dataset.number - b.dataset.number));
}

function openLinked() {
  const lesion = /^#lesion-\d+$/.test(location.hash) && document.querySelector(location.hash);
  if (!lesion) return;
  lesion.hidden = false;
  lesion.firstElementChild.open = true;
  lesion.scrollIntoView();
  lesion.querySelector("summary").focus({ preventScroll: true });
}

const setAll = (open) => lesions.filter((lesion) => !open || !lesion.hidden).forEach((lesion) => {
  lesion.firstElementChild.open = open;
});
for (const name of ["by-split", "by-class", "by-kind", "least", "most", "words"]) field(name).addEventListener("input", filter);
field("order").addEventListener("input", sort);
field("open").addEventListener("click", () => setAll(true));
field("close").addEventListener("click", () => setAll(false));
document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", openLinked);
document.addEventListener("click", (event) => {  // the same link a second time changes no hash
  if (event.target.closest?.("a[href^='#lesion-']")) setTimeout(openLinked);
});
openLinked();
