// Runs before anything is painted, so that the chosen theme never flashes.
"use strict";
(() => {
  const root = document.documentElement;
  const choices = ["auto", "light", "dark"];
  const stored = () => {
    try {
      return localStorage.getItem("resnet-zoo-theme") ?? "auto";
    } catch {
      return "auto"; // storage is switched off
    }
  };
  let choice = choices.includes(stored()) ? stored() : "auto";
  const apply = () => {
    if (choice === "auto") delete root.dataset.theme;
    else root.dataset.theme = choice;
  };
  apply();

  const announce = () => document.dispatchEvent(new CustomEvent("themechange"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", announce);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector(".theme");
    const label = () => {
      button.querySelector(".theme-text").textContent = choice;
      button.setAttribute("aria-label", `Colour theme: ${choice}`);
      button.dataset.choice = choice;
    };
    button.addEventListener("click", () => {
      choice = choices[(choices.indexOf(choice) + 1) % choices.length];
      try {
        localStorage.setItem("resnet-zoo-theme", choice);
      } catch {
        // then it lasts as long as the page
      }
      apply();
      label();
      announce();
    });
    label();
    button.hidden = false;
  });
})();
