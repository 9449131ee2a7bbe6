"use strict";
// Judgements as lines of JSON, one for each pair that was decided.
const pairs = [...document.querySelectorAll(".pair")];
const seal = document.getElementById("seal").textContent;
const judge = document.getElementById("judge");
const lines = document.getElementById("lines");

function judgements() {
  return pairs.flatMap((pair) => {
    const chosen = pair.querySelector("input:checked");
    if (!chosen) return [];
    const line = { pair: Number(pair.dataset.pair), better: chosen.value, seal };
    if (judge.value.trim()) line.judge = judge.value.trim();
    return [JSON.stringify(line) + "\n"];
  });
}

function show() {
  const made = judgements();
  lines.value = made.join("");
  document.getElementById("progress").textContent = made.length + " of " + pairs.length + " pairs";
}

document.addEventListener("input", show);
document.getElementById("saving").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.value], { type: "application/jsonl" }));
  link.download = "judgements.jsonl";
  link.click();
});
show();
