// The page around the views: title, search, theme, tabs and help.

const VIEW_TITLES = {
    token: "Token",
    neuron: "Neuron",
    state: "State",
    synapses: "Synapses",
    sparsity: "Sparsity",
    rates: "Firing rates",
};
const THEMES = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

const KEYS = [
    ["/", "search"],
    ["← → ↑ ↓", "token to token, or neuron to neuron in a list"],
    ["Home End Page↑ Page↓", "far in the text"],
    ["Enter", "open the current token"],
    ["[ and ]", "layer before, layer after"],
    ["Escape", "close, or back to the text"],
    ["?", "this help"],
];
const TERMS = [
    ["neuron h.i", "Index i in head h. Layers share their weights, so a neuron is the same in all of them."],
    ["u", "The neuron's activation after its rectifier. It fires where u > 0."],
    ["g", "u times what the neuron reads out of the state, after a rectifier. Open gate: g > 0."],
    ["surprise", "−log2 of the probability that the model gave a token, in bits."],
    ["ρ (state)", "The model's memory of the past: for each layer and head a matrix of neurons × dimensions."],
    ["z", "A neuron's read-out of the state, before the rectifier. Linear in the state."],
    ["synapse i → j", "The part of neuron i in z of neuron j."],
    ["source", "A past token, with its share in what is read now."],
    ["direct effect", "A neuron's own addition to the logits, with layer norms frozen."],
    ["correlates", "Fires at the same tokens. Nothing here shows that one causes the other."],
];

function howItForgets({ context, tau, window }) {
    if (window) return `sees the last ${count(window, "token")}`;
    return `forgets from ${whole(context)} tokens on, time constant ${short(tau)}`;
}

function modelLine({ model, forgetting }) {
    const fade = forgetting ? howItForgets(forgetting) : null;
    return [
        foreign(model.name ?? "model"),
        ` · ${[
            count(model.layers, "layer"),
            count(model.heads, "head"),
            `${whole(model.neurons_per_head)} neurons each`,
            `width ${whole(model.width)}`,
            model.weights,
        ]
            .filter(Boolean)
            .join(" · ")}`,
        model.device ? [" · ", foreign(model.device)] : "",
        fade ? ` · ${fade}` : "",
    ];
}

function helpDialog(page) {
    const { data } = page;
    const command = data.command && make("code", null, foreign(data.command));
    const copied = make("span", { role: "status" });
    const copy = async () => {
        try {
            await navigator.clipboard.writeText(data.command);
            copied.textContent = "Copied.";
        } catch {
            getSelection().selectAllChildren(command);
            copied.textContent = "Selected: copy it with Ctrl+C.";
        }
    };
    const pairs = (list) =>
        make(
            "dl",
            null,
            list.map(([name, meaning]) => [make("dt", null, name), make("dd", null, meaning)]),
        );
    const dialog = make(
        "dialog",
        { "aria-labelledby": `bdh-help-${page.id}` },
        make(
            "div",
            { class: "controls" },
            make("h2", { id: `bdh-help-${page.id}` }, "About this page"),
            button("Close", () => dialog.close()),
        ),
        make("p", null, modelLine(data)),
        command
            ? make(
                  "div",
                  null,
                  make("p", null, "This command makes the page again:"),
                  make("p", { class: "command" }, command),
                  make("div", { class: "controls" }, button("Copy command", copy), copied),
              )
            : null,
        make("h3", null, "Words"),
        pairs(TERMS),
        make("h3", null, "Keys"),
        pairs(KEYS),
        make("h3", null, "Reading it"),
        make(
            "p",
            null,
            "Colours start at the background for zero and show the largest value in " +
                "their legend. Characters that act on the text or cannot be seen appear as ‹U+202E›. The address " +
                "holds what is shown: " +
                "copy it to share a place. The page loads nothing from a network.",
        ),
    );
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    return dialog;
}

// A switch of three: the system's theme, light, dark. `changed(theme)` gets light or dark.
function makeTheme(root, changed) {
    const system = matchMedia("(prefers-color-scheme: dark)");
    let choice = "auto";
    try {
        choice = Object.hasOwn(THEMES, localStorage.bdhTheme) ? localStorage.bdhTheme : "auto";
    } catch {
        /* No storage: the choice lasts as long as the page. */
    }
    const actual = () => (choice === "auto" ? (system.matches ? "dark" : "light") : choice);
    const control = button("", () => {
        const names = Object.keys(THEMES);
        choice = names[(names.indexOf(choice) + 1) % names.length];
        try {
            localStorage.bdhTheme = choice;
        } catch {
            /* As above. */
        }
        apply();
    });
    function apply() {
        control.textContent = THEMES[choice];
        root.dataset.theme = actual();
        changed(actual());
    }
    system.addEventListener("change", apply);
    return { el: control, apply, stop: () => system.removeEventListener("change", apply) };
}
