// Drives the chat page: node drive.cjs PLAYWRIGHT CHROMIUM URL; prints one JSON object.
const [playwright, executablePath, url] = process.argv.slice(2);
const { chromium } = require(playwright);

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  const problems = [];
  const requests = new Set();
  page.on("console", (m) => m.type() === "error" && problems.push(m.text()));
  page.on("pageerror", (e) => problems.push(String(e)));
  page.on("request", (r) => requests.add(new URL(r.url()).origin));
  await page.goto(url);
  await page.check("#python");
  const idle = () => page.waitForFunction(() => document.querySelector("#send").textContent === "Send");
  for (const question of ["Compute", "slowly"]) {
    await page.fill("#text", question);
    await page.click("#send");
    if (question === "slowly") {
      await page.waitForFunction(() => document.querySelector("#log").innerText.includes("word word"));
      await page.click("#send"); // it says Stop now
    }
    await idle();
  }
  const text = await page.innerText("#log");
  const bold = await page.locator("#log b", { hasText: "bold" }).count();
  console.log(JSON.stringify({ text, bold, problems, origins: [...requests] }));
  await browser.close();
})();
