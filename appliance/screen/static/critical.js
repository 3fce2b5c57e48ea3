// The register of critical values: its one button.
document.getElementById("print").addEventListener("click", () => window.print());
