// A static host for tests: correct types, no special headers, and faults on demand.

import { createServer } from "node:http";
import { readFile, stat } from "node:fs/promises";
import { extname, join, normalize } from "node:path";

const TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
};

/**
 * Serves a folder: { url, close(), log }. `answer(request, response, path)` may answer instead, and
 * returns true then.
 */
export async function serve(folder, answer = async () => false) {
    const log = [];
    const server = createServer(async (request, response) => {
        const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
        log.push({ method: request.method, path, range: request.headers.range });
        if (await answer(request, response, path)) return;
        let file = join(folder, path);
        try {
            if ((await stat(file)).isDirectory()) file = join(file, "index.html");
            const body = await readFile(file);
            const type = TYPES[extname(file)] ?? "application/octet-stream";
            response.writeHead(200, { "Content-Type": type, "Content-Length": body.length });
            response.end(request.method === "HEAD" ? undefined : body);
        } catch {
            response.writeHead(404, { "Content-Type": "text/plain" });
            response.end("not found");
        }
    });
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address();
    return {
        url: `http://127.0.0.1:${port}/`,
        log,
        close: () => {
            server.closeAllConnections();
            return new Promise((done) => server.close(done));
        },
    };
}
