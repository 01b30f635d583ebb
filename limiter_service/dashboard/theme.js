// Light or dark as the reader chose, before anything is drawn. No module: it must not wait.
(() => {
  const NAME = "sluicegate.theme";
  const choices = ["system", "light", "dark"];

  function chosen() {
    try {
      const stored = localStorage.getItem(NAME);
      return choices.includes(stored) ? stored : "system";
    } catch {
      return "system"; // storage may be forbidden
    }
  }

  function apply(choice) {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
  }

  globalThis.sluicegateTheme = {
    chosen,
    next() {
      const choice = choices[(choices.indexOf(chosen()) + 1) % choices.length];
      try {
        localStorage.setItem(NAME, choice);
      } catch {
        // it lasts until the page is left
      }
      apply(choice);
      dispatchEvent(new Event("themechange"));
      return choice;
    },
  };
  apply(chosen());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    dispatchEvent(new Event("themechange")),
  );
})();
