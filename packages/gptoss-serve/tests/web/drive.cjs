// Drives the chat page: node drive.cjs PLAYWRIGHT CHROMIUM URL WIDTH; prints one JSON object.
const [playwright, executablePath, url, width] = process.argv.slice(2);
const { chromium } = require(playwright);

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage({ viewport: { width: Number(width), height: 700 } });
  page.setDefaultTimeout(120000); // machines may be busy
  const problems = [];
  const requests = new Set();
  page.on("console", (m) => m.type() === "error" && problems.push(m.text()));
  page.on("pageerror", (e) => problems.push(String(e)));
  page.on("request", (r) => requests.add(new URL(r.url()).origin));
  await page.goto(url);
  await page.check("#python");
  await page.check("#browser");
  const idle = () => page.waitForFunction(() => document.querySelector("#send").textContent === "Send");
  for (const question of ["Compute", "Cite", "slowly"]) {
    await page.fill("#text", question);
    await page.click("#send");
    if (question === "slowly") {
      await page.waitForFunction(() => document.querySelector("#log").innerText.includes("word word"));
      await page.waitForFunction(() => { // the text has outgrown the window and is followed
        const log = document.querySelector("#log");
        return log.scrollHeight > log.clientHeight + 40 && log.scrollHeight - log.scrollTop - log.clientHeight < 2;
      });
      await page.click("#send"); // it says Stop now
    }
    await idle();
  }
  const text = await page.innerText("#log");
  const bold = await page.locator("#log b", { hasText: "bold" }).count();
  const code = await page.locator(".answer pre").allInnerTexts();
  const strong = await page.locator(".answer strong").allInnerTexts();
  const links = await page.locator(".answer a").evaluateAll((all) => all.map((a) => [a.textContent, a.href]));
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  const seen = { text, bold, code, strong, links, overflow, problems, origins: [...requests] };
  console.log(JSON.stringify(seen));
  await browser.close();
})();
