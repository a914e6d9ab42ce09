// Chromium, as the tests use it: headless, with WebGPU on its software adapter.

import { chromium } from "playwright-core";

const ARGUMENTS = ["--headless=new", "--no-sandbox", "--enable-unsafe-webgpu"];

export async function launch(more = []) {
    return chromium.launch({
        executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
        args: [...ARGUMENTS, ...more],
    });
}

/** A page that may log nothing and ask nobody but `base`: { page, complaints }. */
export async function open(browser, base, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1000, height: 800 }, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    const complaints = [];
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    context.on("request", (request) => {
        const own = ["data:", "blob:", base].some((start) => request.url().startsWith(start));
        if (!own) complaints.push(`a request to ${request.url()}`);
    });
    return { context, page, complaints };
}
