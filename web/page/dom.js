// Elements. Text of models and files enters the page only here, as text.

export const byId = (id) => document.getElementById(id);

export function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
}

export function say(message) {
    byId("status").className = "";
    byId("status").textContent = message;
}

export function fail(error) {
    byId("status").className = "error";
    byId("status").textContent = `Error: ${error.message}`;
}

export function download(blob, name) {
    const link = element("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const whole = new Intl.NumberFormat("en");

export function count(number) {
    return whole.format(number);
}

/** Waits for another turn of the event loop: a frame may be drawn. */
export function breathe() {
    return new Promise((done) => setTimeout(done, 0));
}
