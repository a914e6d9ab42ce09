// Numbers and other people's texts as the page writes them.

// Characters that act on the text around them, or cannot be seen. Shown as ‹U+202E›, they do
// nothing.
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{DI}]/gu;

function visible(text) {
    return text.replace(
        INVISIBLE,
        (character) => `‹U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`,
    );
}

// A token's text as a label: its spaces show, too.
function tokenLabel(text) {
    return oneLine(text).replaceAll(" ", "␣");
}

// A text on one line, as the places of a text are shown.
function oneLine(text) {
    return visible(text.replaceAll("\n", "⏎").replaceAll("\t", "⇥"));
}

const wholeNumbers = new Intl.NumberFormat("en");
function whole(number) {
    return wholeNumbers.format(number);
}

// Three significant digits: 0.123, 12.3, 1,230.
function short(number) {
    if (!Number.isFinite(number)) return "–";
    if (Number.isInteger(number)) return whole(number).replace("-", "−");
    const size = Math.abs(number);
    if (size >= 1000) return whole(Math.round(number));
    if (size < 0.001) return number.toExponential(1).replace("-", "−").replace("e−", "e-");
    return number.toPrecision(3).replace("-", "−");
}

function percent(share) {
    if (!Number.isFinite(share)) return "–";
    const size = Math.abs(share);
    if (share === 0) return "0 %";
    if (size < 0.0001) return "< 0.01 %";
    const digits = size < 0.01 ? 2 : size < 0.1 ? 1 : 0;
    return `${(share * 100).toFixed(digits).replace("-", "−")} %`;
}

function count(number, one, many = `${one}s`) {
    return `${whole(number)} ${number === 1 ? one : many}`;
}

// "h.i" of a neuron's index, and back: null for a name that is none.
function neuronName(neuron, model) {
    const size = model.neurons_per_head;
    return `${Math.floor(neuron / size)}.${neuron % size}`;
}

function neuronIndex(name, model) {
    const parts = /^h?(\d{1,10})\.(\d{1,10})$/.exec(name);
    if (!parts) return null;
    const [head, index] = [Number(parts[1]), Number(parts[2])];
    return head < model.heads && index < model.neurons_per_head ? head * model.neurons_per_head + index : null;
}

// An own property of an object that came as JSON: `__proto__` and its kin are ordinary keys there.
function own(object, key) {
    return object && Object.hasOwn(object, key) ? object[key] : undefined;
}
