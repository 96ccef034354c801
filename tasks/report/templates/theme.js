// Light or dark: the reader's system decides until the button is pressed.
{
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => { button.textContent = dark() ? "Light theme" : "Dark theme"; };
  const stored = (act) => { try { return act(localStorage); } catch { return null; } };

  const kept = stored((store) => store.getItem("llmkt-theme"));
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    stored((store) => store.setItem("llmkt-theme", root.dataset.theme));
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  show();
}
