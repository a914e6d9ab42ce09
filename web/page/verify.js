// The check of the device: whole models, or every kernel too, against the CPU.

import { byId, element, say } from "./dom.js";

export async function verify(model, quick, signal) {
    const list = byId("verified");
    list.replaceChildren();
    say("Checking the device…");
    const { passed, failed, device } = await model.verify({
        quick,
        signal,
        onRow: (row) => list.append(element("li", row.passed ? "" : "failed", row.text ?? row.name)),
    });
    const checks = `${passed + failed} checks on ${device}`;
    if (failed > 0) throw new Error(`${failed} of ${checks} have failed`);
    say(`${checks}: all agree with the CPU.`);
}
