// The search box: a neuron by name or label, a place of the text by its words.

const HITS_SHOWN = 12;

// The finds of a query: [{kind, label, patch}], where `patch` is where a choice leads.
function findHits(page, query) {
    const { trace, model } = page;
    const hits = [];
    const wanted = query.trim().toLowerCase();
    if (wanted === "") return hits;
    const index = neuronIndex(wanted, model);
    const add = (neuron, label) => hits.push({ kind: "neuron", label, patch: page.neuronPatch(neuron) });
    if (index !== null) add(index, ["Neuron ", neuronName(index, model)]);
    for (const [name, label] of Object.entries(page.data.labels ?? {})) {
        const neuron = neuronIndex(name, model);
        if (neuron === null || neuron === index || typeof label?.name !== "string") continue;
        if (!`${label.name}\n${label.note ?? ""}`.toLowerCase().includes(wanted)) continue;
        add(neuron, ["Neuron ", name, " ", foreign(label.name)]);
        if (hits.length >= HITS_SHOWN / 2) break;
    }
    if (!trace) return hits;
    const text = page.lowerText;
    for (
        let at = text.indexOf(wanted);
        at >= 0 && hits.length < HITS_SHOWN;
        at = text.indexOf(wanted, at + wanted.length)
    ) {
        const token = tokenAtOffset(trace, at);
        hits.push({
            kind: "text",
            label: [`Token ${whole(token)}: `, snippet(trace, token, 14)],
            patch: { token, view: "token" },
        });
    }
    return hits;
}

// The token whose range holds a position of the text.
function tokenAtOffset(trace, offset) {
    let [low, high] = [0, trace.length - 1];
    while (low < high) {
        const middle = Math.ceil((low + high) / 2);
        if (trace.starts[middle] <= offset) low = middle;
        else high = middle - 1;
    }
    return low;
}

function makeSearch(page, placeholder) {
    const id = `bdh-hits-${page.id}`;
    const list = make("ul", { id, role: "listbox", "aria-label": "Search results", hidden: true });
    const status = make("span", { class: "unseen", role: "status" });
    const input = make("input", {
        type: "search",
        placeholder,
        "aria-label": placeholder,
        role: "combobox",
        "aria-expanded": "false",
        "aria-controls": id,
        "aria-autocomplete": "list",
        autocomplete: "off",
        spellcheck: "false",
    });
    let hits = [];
    let chosen = 0;

    function choose(index) {
        chosen = index;
        [...list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === chosen)));
        const item = list.children[chosen];
        if (item) {
            input.setAttribute("aria-activedescendant", item.id);
            item.scrollIntoView({ block: "nearest" });
        } else input.removeAttribute("aria-activedescendant");
    }
    function show() {
        hits = findHits(page, input.value);
        const none = hits.length === 0 && input.value.trim() !== "";
        list.replaceChildren(
            ...hits.map((hit, i) =>
                make(
                    "li",
                    {
                        role: "option",
                        id: `${id}-${i}`,
                        "aria-selected": "false",
                        onpointerdown: (event) => {
                            event.preventDefault();
                            open(hit);
                        },
                    },
                    hit.label,
                ),
            ),
        );
        if (none)
            list.append(
                make("li", { role: "option", "aria-disabled": "true", "aria-selected": "false" }, "Nothing found"),
            );
        list.hidden = hits.length === 0 && !none;
        input.setAttribute("aria-expanded", String(!list.hidden));
        status.textContent = none ? "Nothing found" : hits.length ? count(hits.length, "result") : "";
        choose(0);
    }
    function close() {
        list.hidden = true;
        input.setAttribute("aria-expanded", "false");
        input.removeAttribute("aria-activedescendant");
    }
    function open(hit) {
        close();
        page.go(hit.patch);
        page.focusPanel();
    }
    input.addEventListener("input", show);
    input.addEventListener("focus", () => input.value && show());
    input.addEventListener("blur", close);
    input.addEventListener("keydown", (event) => {
        if (event.key === "ArrowDown") choose(Math.min(hits.length - 1, chosen + 1));
        else if (event.key === "ArrowUp") choose(Math.max(0, chosen - 1));
        else if (event.key === "Enter" && hits[chosen]) open(hits[chosen]);
        else if (event.key === "Escape" && !list.hidden) close();
        else if (event.key === "Escape") input.blur();
        else return;
        event.preventDefault();
        event.stopPropagation();
    });
    return {
        el: make("div", { class: "search" }, input, list, status),
        focus: () => {
            input.focus();
            input.select();
        },
    };
}
