// The check of the device: every kernel against its twin.

import { byId, element, say } from "./dom.js";

export async function verify(model, signal) {
    const list = byId("verified");
    list.replaceChildren();
    say("Checking the device…");
    const { passed, failed, device } = await model.verify({
        quick: true,
        signal,
        onRow: (row) => list.append(element("li", row.passed ? "" : "failed", row.text ?? row.name)),
    });
    const checks = `${passed + failed} checks on ${device}`;
    if (failed > 0) throw new Error(`${failed} of ${checks} have failed`);
    say(`${checks}: all agree with the CPU.`);
}
