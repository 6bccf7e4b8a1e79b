// Keeps a second click from starting a second sign-in. The page works without this file.
"use strict";
for (const form of document.querySelectorAll("form[data-once]")) {
  const button = form.querySelector("button");
  const label = button.textContent;
  let sent = false;
  const ready = () => {
    sent = false;
    button.textContent = label;
    button.removeAttribute("aria-disabled");
  };
  form.addEventListener("submit", (event) => {
    if (sent) {
      event.preventDefault();
      return;
    }
    sent = true;
    button.textContent = button.dataset.busy;
    button.setAttribute("aria-disabled", "true"); // unlike "disabled", it keeps the focus where it is
    setTimeout(ready, 10000); // the next page did not come: let the person try again
  });
  window.addEventListener("pageshow", ready); // back from Microsoft by the Back button
}
