// What pages of the admin do more with a script. Without it they can be read, and their forms work.
"use strict";

// --- search: Ctrl-K, and what is found while typing ---

const search = document.querySelector("form[data-search]");
if (search) {
  const box = search.querySelector("input");
  const list = search.querySelector(".search-found");
  let waiting, asked = "";
  const close = () => (list.hidden = true);
  box.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const term = (asked = box.value.trim());
      if (!term) return close();
      const answer = await fetch(`${search.action}?part=1&q=${encodeURIComponent(term)}`);
      if (!answer.ok || term !== asked) return;
      list.innerHTML = await answer.text(); // from our own template, which escapes
      list.hidden = false;
    }, 150);
  });
  search.addEventListener("keydown", (event) => {
    const stops = [box, ...list.querySelectorAll("a")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") {
      close();
      box.focus();
    } else if (step && !list.hidden) {
      event.preventDefault();
      stops[(stops.indexOf(document.activeElement) + step + stops.length) % stops.length].focus();
    }
  });
  search.addEventListener("focusout", (event) => search.contains(event.relatedTarget) || event.relatedTarget === null || close());
  document.addEventListener("click", (event) => search.contains(event.target) || close());
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  });
}

// --- menus: one at a time, shut by Escape and by a click elsewhere ---

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// A list that opens beyond the side of the window opens to the other one.
document.addEventListener(
  "toggle",
  ({ target }) => {
    const list = target.open && target.matches("details.menu") && target.querySelector(".menu-list");
    if (!list) return;
    list.classList.remove("turned");
    const { left, right } = list.getBoundingClientRect();
    list.classList.toggle("turned", left < 0 || right > document.documentElement.clientWidth);
  },
  true,
);

// A long list of choices gets a box that narrows it.
for (const list of document.querySelectorAll("[data-narrow]")) {
  const box = Object.assign(document.createElement("input"), { type: "search", className: "narrow", placeholder: "Find" });
  box.setAttribute("aria-label", list.dataset.narrow);
  box.addEventListener("input", () => {
    for (const choice of list.querySelectorAll("a")) {
      choice.hidden = !choice.textContent.toLowerCase().includes(box.value.toLowerCase());
    }
  });
  list.prepend(box);
}

// A filter by words offers what they find, to choose one.
for (const form of document.querySelectorAll("form[data-suggest]")) {
  const box = form.querySelector("input[type=search]");
  const list = form.querySelector(".suggested");
  let waiting;
  box.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const term = box.value.trim();
      const answer = term && (await fetch(`${form.dataset.suggest}&term=${encodeURIComponent(term)}`));
      if (term !== box.value.trim()) return;
      const found = answer && answer.ok ? (await answer.json()).results : [];
      list.replaceChildren(
        ...found.slice(0, 8).map(({ id, text }) => {
          const address = new URL(location);
          for (const name of [box.name, "p"]) address.searchParams.delete(name);
          address.searchParams.set(form.dataset.one, id);
          return Object.assign(document.createElement("a"), { href: address, textContent: text });
        }),
      );
    }, 150);
  });
}

// --- lists ---

// All rows that match are chosen with one click, without ticking those of the page first.
const question = document.querySelector(".actions .question a");
if (question) {
  const all = Object.assign(document.createElement("button"), { type: "button", className: "button button-quiet button-small", textContent: question.textContent });
  all.addEventListener("click", () => {
    const toggle = document.getElementById("action-toggle");
    if (!toggle.checked) toggle.click();
    question.click();
    document.querySelector(".actions button:enabled:not([hidden])")?.focus();
  });
  document.querySelector(".list-tools .kept")?.prepend(all);
}

// Enter on a row's box leads to the actions, which may stand far above.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches(".action-select")) {
    event.preventDefault();
    document.querySelector(".actions button:enabled")?.focus();
  }
});

// --- parts that renew themselves: data-poll="address" data-every="seconds" ---

function poll(part) {
  setTimeout(async () => {
    let answer;
    try {
      answer = await fetch(part.dataset.poll);
    } catch {
      return poll(part); // the server is away for a moment
    }
    if (answer.status === 205) return location.reload(); // the page around it is out of date
    if (!answer.ok || answer.redirected) return;
    const fresh = document.createRange().createContextualFragment(await answer.text());
    const next = fresh.querySelector("[data-poll]");
    addCopyButtons(fresh);
    part.replaceWith(fresh);
    if (next) poll(next);
  }, 1000 * Number(part.dataset.every));
}
for (const part of document.querySelectorAll("[data-poll]")) poll(part);

// --- identifiers that can be copied ---

function addCopyButtons(root) {
  for (const holder of root.querySelectorAll("[data-copy]:not(.copyable)")) {
    const button = document.createElement("button");
    const icon = document.createElement("span");
    const label = `Copy ${holder.dataset.copyLabel}`;
    icon.className = "icon icon-copy";
    icon.setAttribute("aria-hidden", "true");
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.append(icon);
    button.addEventListener("click", async (event) => {
      event.preventDefault(); // the identifier may stand in a link
      event.stopPropagation();
      try {
        await navigator.clipboard.writeText(holder.dataset.copy || holder.querySelector("code").textContent);
      } catch {
        getSelection().selectAllChildren(holder.querySelector("code"));
        return; // no permission: the text is selected, the person copies it
      }
      icon.className = "icon icon-done";
      button.setAttribute("aria-label", "Copied");
      setTimeout(() => {
        icon.className = "icon icon-copy";
        button.setAttribute("aria-label", label);
      }, 1600);
    });
    holder.classList.add("copyable");
    holder.append(button);
  }
}
addCopyButtons(document);

// --- forms ---

// Rows within a form get a button for one more. Django ignores a row that stays empty.
for (const group of document.querySelectorAll("[data-inline-formset]")) {
  const { prefix, addText } = JSON.parse(group.dataset.inlineFormset).options;
  const pattern = document.getElementById(`${prefix}-empty`);
  const [total, most] = ["TOTAL_FORMS", "MAX_NUM_FORMS"].map((name) => document.getElementById(`id_${prefix}-${name}`));
  if (!pattern?.classList.contains("empty-form")) continue;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "button button-quiet button-small", textContent: addText });
  const isFull = () => most.value && Number(total.value) >= Number(most.value);
  button.addEventListener("click", () => {
    const row = pattern.cloneNode(true);
    row.classList.remove("empty-form", "last-related");
    for (const one of [row, ...row.querySelectorAll("*")]) {
      for (const { name, value } of [...one.attributes]) {
        if (value.includes(`${prefix}-`)) one.setAttribute(name, value.replaceAll("__prefix__", total.value).replaceAll(`${prefix}-empty`, `${prefix}-${total.value}`));
      }
    }
    row.querySelector(".inline_label").textContent = `#${Number(total.value) + 1}`;
    total.value = Number(total.value) + 1;
    pattern.before(row);
    button.hidden = isFull();
    row.querySelector("input:not([type=hidden]), select, textarea")?.focus();
  });
  button.hidden = isFull();
  (group.querySelector("fieldset") ?? group).append(button);
}

// A form that must run once: the second click does nothing while the first is on its way.
document.addEventListener("submit", (event) => {
  changed = false;
  const form = event.target.closest("form[data-once]");
  if (!form) return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 10000);
});

// Typed values are not lost by a wrong click.
let changed = false;
document.querySelector("#content-main > form")?.addEventListener("change", () => (changed = true));
addEventListener("beforeunload", (event) => changed && event.preventDefault());
