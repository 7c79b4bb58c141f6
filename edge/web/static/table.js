// The library sorts by clicks on headings alone: a keyboard can do so too, and thereby reaches what is scrolled away.
// A button in each, by a slot, would lose the focus with every row that comes: slots are made anew.
(() => {
  const HEADING = "th.sortable";
  new MutationObserver(() => {
    document.querySelectorAll(HEADING + ":not([tabindex])").forEach((heading) => { heading.tabIndex = 0; });
  }).observe(document.body, { childList: true, subtree: true });
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches(HEADING) || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    event.target.click();
  });
})();
