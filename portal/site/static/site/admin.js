// Makes unfold work without unsafe-eval and unsafe-inline, and adds what the portal's own pages need.
// Loaded before unfold's app.js and before Alpine, which is deferred.
"use strict";

// htmx would print a <style> and compile attributes; admin.css has the styles, and nothing here needs the other.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;

// Expressions of unfold's templates that Alpine's CSP build cannot run, and what says the same.
// tests/portal/site/test_alpine.py reads this table; keep one pair a line.
const REPLACEMENTS = {
  // A style given as text becomes an attribute, which the policy forbids; as an object it does not.
  "`width: ${sidebarWidth}px`": "{ width: sidebarWidth + 'px' }",
  "'width: ' + changeListWidth + 'px'": "{ width: changeListWidth + 'px' }",
  // Statements and globals.
  "if (resizing) { sidebarWidth = Math.min(max, Math.max(min, getComputedStyle($el).direction === 'rtl' ? document.getElementById('nav-sidebar').getBoundingClientRect().right - $event.clientX : $event.clientX)); localStorage.setItem('sidebarWidth', sidebarWidth); }": "resizing && resizeSidebar($event.clientX, min, max)",
  "if (!$event.target.closest('a')) { openUserLinks = !openUserLinks }": "$event.target.closest('a') || (openUserLinks = !openUserLinks)",
  "if (!$event.metaKey && !$event.ctrlKey) selectItem(false, false)": "$event.metaKey || $event.ctrlKey || selectItem(false, false)",
  "if (!$event.metaKey && !$event.ctrlKey) selectItem(true, false)": "$event.metaKey || $event.ctrlKey || selectItem(true, false)",
  "activeTab && activeTab !== 'general' ? window.location.pathname + window.location.search + '#' + activeTab : window.location.pathname + window.location.search": "formAddress(activeTab)",
  "window.location.href = $el.href + window.location.hash": "followKeepingTab($el.href)",
};

document.addEventListener("alpine:init", () => {
  Alpine.mapAttributes(({ name, value }) => ({
    name,
    value: Object.hasOwn(REPLACEMENTS, value) ? REPLACEMENTS[value] : value,
  }));

  // Functions that unfold's expressions call, and that the CSP build does not find among the globals.
  Alpine.data("theme", (chosen) =>
    Object.assign(theme(chosen), {
      getCurrentTab: () => getCurrentTab(),
      sortRecords: (event) => sortRecords(event),
      moveRecords: (event) => moveRecords(event),
      resizeSidebar(x, min, max) {
        const rightToLeft = getComputedStyle(document.documentElement).direction === "rtl";
        const edge = document.getElementById("nav-sidebar").getBoundingClientRect();
        this.sidebarWidth = Math.min(max, Math.max(min, rightToLeft ? edge.right - x : x));
        localStorage.setItem("sidebarWidth", this.sidebarWidth);
      },
      formAddress(tab) {
        const address = location.pathname + location.search;
        return tab && tab !== "general" ? `${address}#${tab}` : address;
      },
      followKeepingTab(address) {
        location.href = address + location.hash;
      },
    }),
  );
  Alpine.data("searchCommand", () => searchCommand());
});

// --- the portal's own ---

function addCopyButtons(root) {
  for (const holder of root.querySelectorAll("[data-copy]:not(.copyable)")) {
    const button = document.createElement("button");
    const icon = document.createElement("span");
    const label = `Copy ${holder.dataset.copyLabel}`;
    icon.className = "material-symbols-outlined";
    icon.setAttribute("aria-hidden", "true");
    icon.textContent = "content_copy";
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.append(icon);
    button.addEventListener("click", async (event) => {
      event.preventDefault(); // the identifier may stand in a link
      event.stopPropagation();
      try {
        await navigator.clipboard.writeText(holder.dataset.copy);
      } catch {
        getSelection().selectAllChildren(holder.querySelector("code"));
        return; // no permission: the text is selected, the person copies it
      }
      icon.textContent = "check";
      button.setAttribute("aria-label", "Copied");
      setTimeout(() => {
        icon.textContent = "content_copy";
        button.setAttribute("aria-label", label);
      }, 1600);
    });
    holder.classList.add("copyable");
    holder.append(button);
  }
}

// A form that must run once: the second click does nothing while the first is on its way.
document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-once]");
  if (!form) {
    return;
  }
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 10000);
});

document.addEventListener("DOMContentLoaded", () => addCopyButtons(document));
