// Puts the page together: `mount` for a document of its own, the default export for anywidget.

let pages = 0;

function checkFormat(data) {
    if (data.format !== "bdh-gpu-inspect-1") throw new Error(`This page reads bdh-gpu-inspect-1, not ${data.format}.`);
    if (!["trace", "atlas"].includes(data.kind)) throw new Error(`Unknown kind of data: ${data.kind}.`);
}

// The place as numbers, without values that the data does not have.
function resolvePlace(page, place) {
    const within = (text, end) => (text !== undefined && Number(text) < end ? Number(text) : null);
    const { trace, model } = page;
    const names = Object.keys(page.views);
    const neuron = place.neuron === undefined ? null : neuronIndex(place.neuron, model);
    const fallback = neuron !== null ? "neuron" : names[0];
    const colour = place.colour ?? (neuron !== null && place.view === "neuron" ? "neuron-u" : "surprise");
    return {
        view: names.includes(place.view) ? place.view : fallback,
        neuron,
        layer: within(place.layer, model.layers),
        token: trace ? within(place.token, trace.length) : null,
        from: trace ? within(place.from, trace.length) : null,
        colour:
            page.quantities?.includes(colour) && (neuron !== null || !colour.startsWith("neuron"))
                ? colour
                : "surprise",
        scale: place.scale ?? "own",
        time: place.time === undefined ? null : Number(place.time),
        change: place.change === "1",
    };
}

// The text with its controls, for a trace.
function textPane(page) {
    const { trace, data } = page;
    let quantity = null;
    const underlines = make("small", { class: "underlines" });
    const view = makeTextView(trace, {
        say: (t) => tokenTip(page, t, quantity),
        describe: (t) => tokenSentence(trace, t, quantity),
        tip: page.tip,
        pick: (token) => page.go({ token, view: "token" }),
        move: (token) => page.go({ token }, true),
    });
    const layers = Array.from({ length: trace.layers }, (_, l) => [String(l), `layer ${l}`]);
    const colour = choice("Colour by", [], "surprise", (value) => page.go({ colour: value }));
    const layer = choice("Layer", [["", "all layers"], ...layers], "", (value) =>
        page.go({ layer: value === "" ? null : value }),
    );
    const scale = choice(
        "Scale",
        [
            ["own", "of this neuron"],
            ["text", "of all neurons"],
        ],
        "own",
        (value) => page.go({ scale: value }),
    );
    const key = make("div", { class: "key-line" });
    const el = make(
        "section",
        { class: "left", "aria-label": "Text" },
        make("div", { class: "controls" }, colour, layer, data.maxima ? scale : null),
        key,
        view.el,
    );
    let before = "";

    return {
        el,
        stop: view.stop,
        update(place) {
            const name = place.neuron === null ? null : neuronName(place.neuron, page.model);
            colour.offer(
                page.quantities
                    .filter((q) => name || !q.startsWith("neuron"))
                    .map((q) => [q, q.startsWith("neuron") ? `${QUANTITIES[q]} ${name}` : QUANTITIES[q]]),
                place.colour,
            );
            layer.offer([["", "all layers"], ...layers], place.layer === null ? "" : String(place.layer));
            scale.offer(
                [
                    ["own", "of this neuron"],
                    ["text", "of all neurons"],
                ],
                place.scale,
            );
            scale.hidden = !place.colour.startsWith("neuron");
            const now = [place.colour, place.layer, place.neuron, place.scale, page.palette.theme].join();
            if (now !== before) {
                before = now;
                quantity = trace.quantity(place.colour, place.layer, place.neuron, place.scale);
                const how =
                    place.layer !== null || place.colour === "surprise"
                        ? ""
                        : place.colour.startsWith("neuron")
                          ? "largest of all layers; "
                          : "sum of all layers; ";
                key.replaceChildren(
                    legend(page.palette, { ...quantity, scale: how + quantity.scale }),
                    quantity.complete === false
                        ? make("small", { class: "warning" }, "incomplete: strongest places only")
                        : "",
                    underlines,
                );
                view.colour(quantity, page.palette);
            }
            const end = place.view === "state" ? (page.views.state?.end?.() ?? null) : null;
            const marks = marksOf(trace, place);
            underlines.hidden = marks.size === 0;
            underlines.textContent =
                place.view === "synapses"
                    ? "underlined: wrote the synapses"
                    : `underlined: sources of token ${place.token}`;
            view.mark(place.token, marks, end);
        },
        reveal: (token) => view.reveal(token),
        focus: () => view.scroller.focus(),
    };
}

// The views that the data has something for.
function viewMakers(page) {
    const { data, trace } = page;
    if (!trace) return { rates: ratesView, neuron: neuronView };
    return {
        token: tokenView,
        neuron: neuronView,
        ...(data.state ? { state: stateView } : {}),
        ...(data.synapses ? { synapses: synapseView } : {}),
        ...(data.counts ? { sparsity: sparsityView } : {}),
    };
}

function handleKeys(page, event) {
    const target = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey || page.help.open) return;
    if (event.key === "Escape") {
        page.tip.hide();
        page.left.focus?.();
    } else if (target.matches?.("input:not([type=range]):not([type=checkbox]), select, textarea")) return;
    else if (event.key === "/") page.search.focus();
    else if (event.key === "?") page.help.showModal();
    else if ((event.key === "[" || event.key === "]") && page.trace) {
        const layer = page.place.layer ?? (event.key === "]" ? -1 : page.trace.layers);
        const next = layer + (event.key === "]" ? 1 : -1);
        page.go({ layer: next < 0 || next >= page.trace.layers ? null : next });
    } else return;
    event.preventDefault();
    event.stopPropagation();
}

function makePage(root, data, standalone) {
    checkFormat(data);
    const page = { data, model: data.model, id: pages++, views: {}, palette: palette("light"), tip: makeTip(root) };
    page.trace = data.kind === "trace" ? readTrace(data) : null;
    page.atlas = data.kind === "atlas" ? makeAtlas(data) : null;
    page.textOfId = (id) => own(data.token_texts, String(id)) ?? `id ${id}`;
    page.lowerText = page.trace?.text.toLowerCase();
    page.quantities =
        page.trace &&
        Object.keys(QUANTITIES).filter(
            (name) =>
                name === "surprise" || (name.startsWith("neuron") ? data.top || data.series : data[name.split("-")[0]]),
        );
    const route = makeRoute(standalone, changed);
    page.go = route.go;
    page.link = (patch, ...content) => {
        const follow = (event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return;
            event.preventDefault();
            event.stopPropagation();
            const view = page.place.view;
            route.go(patch);
            if (page.place.view !== view || !document.contains(event.target)) page.focusPanel();
        };
        return standalone
            ? make("a", { href: route.address(patch), onclick: follow }, content)
            : make("button", { type: "button", class: "link", onclick: follow }, content);
    };
    page.neuronPatch = (neuron) => {
        const colour = page.trace ? { colour: page.place.colour === "neuron-g" ? "neuron-g" : "neuron-u" } : {};
        return { view: "neuron", neuron: neuronName(neuron, page.model), ...colour };
    };
    page.neuronLink = (neuron) => {
        const label = own(data.labels, neuronName(neuron, page.model))?.name;
        return page.link(
            page.neuronPatch(neuron),
            neuronName(neuron, page.model),
            label ? make("small", null, " ", foreign(label, "label")) : null,
        );
    };

    const makers = viewMakers(page);
    const panel = make("div", { class: "panel" });
    page.focusPanel = () => panel.querySelector("h2")?.focus();
    page.views = Object.fromEntries(Object.keys(makers).map((name) => [name, null]));
    page.place = resolvePlace(page, route.get());
    page.left = page.trace
        ? textPane(page)
        : (() => {
              const list = neuronList(page);
              return { ...list, el: make("section", { class: "left", "aria-label": "Neurons" }, list.el) };
          })();
    const tabs = Object.keys(makers).map((name) => [name, button(VIEW_TITLES[name], () => page.go({ view: name }))]);
    page.search = makeSearch(page, page.trace ? "Search text, neuron, label" : "Search neuron, label");
    page.help = helpDialog(page);

    // Shows a place. Views are made when first shown, and updated while shown only.
    function show() {
        const { view } = page.place;
        page.views[view] ??= makers[view](page);
        if (panel.firstChild !== page.views[view].el) {
            page.views.state?.stop();
            panel.replaceChildren(page.views[view].el);
            panel.scrollTop = 0;
        }
        page.views[view].update(page.place);
        page.left.update(page.place);
        for (const [name, tab] of tabs) tab.setAttribute("aria-current", name === view ? "page" : "false");
    }
    function changed(place) {
        const before = page.place;
        page.place = resolvePlace(page, place);
        show();
        const { token, neuron } = page.place;
        if (token !== null && token !== before.token) page.left.reveal?.(token);
        if (token !== before.token || neuron !== before.neuron) panel.scrollTop = 0;
    }

    const theme = makeTheme(root, (name) => {
        page.palette = palette(name);
        show();
    });
    root.classList.add("bdh");
    root.classList.toggle("standalone", standalone);
    root.replaceChildren(
        make(
            "div",
            { class: "frame" },
            make(
                "header",
                { class: "top" },
                make(
                    "div",
                    { class: "title" },
                    make("h1", null, foreign(data.title ?? "Neurons")),
                    make("p", null, modelLine(data)),
                ),
                page.search.el,
                theme.el,
                button("Help", () => page.help.showModal(), { title: "Keys and words: ?" }),
            ),
            make(
                "div",
                { class: "body" },
                page.left.el,
                make(
                    "section",
                    { class: "right", "aria-label": "Details" },
                    make(
                        "nav",
                        { "aria-label": "Views" },
                        tabs.map(([, tab]) => tab),
                    ),
                    panel,
                ),
            ),
        ),
        page.help,
        page.tip.el,
    );
    theme.apply();
    if (page.place.token !== null) requestAnimationFrame(() => page.left.reveal?.(page.place.token));
    const keys = (event) => handleKeys(page, event);
    const listener = standalone ? document : root;
    listener.addEventListener("keydown", keys);
    return () => {
        listener.removeEventListener("keydown", keys);
        page.views.state?.stop();
        page.left.stop();
        theme.stop();
        route.stop();
        root.replaceChildren();
    };
}

// Shows `data` in `root`. Returns what takes it away again.
export function mount(root, data, { standalone = false } = {}) {
    try {
        return makePage(root, data, standalone);
    } catch (error) {
        root.classList.add("bdh");
        root.replaceChildren(
            make("p", { class: "note warning", role: "alert" }, `The page cannot be shown: ${error.message}`),
        );
        console.error(error);
        return () => root.replaceChildren();
    }
}

function render({ model, el }) {
    const root = make("div");
    el.append(root);
    const height = model.get("height");
    if (typeof height === "string") {
        root.style.setProperty("--height", height);
        Object.assign(el.style, { maxHeight: height, overflow: "auto" });
    }
    let unmount = () => {};
    const show = () => {
        unmount();
        const bytes = model.get("data");
        unmount = mount(root, JSON.parse(new TextDecoder().decode(bytes)));
    };
    model.on?.("change:data", show);
    show();
    return () => {
        model.off?.("change:data", show);
        unmount();
    };
}

export default { render };

const ownData = document.getElementById("data");
const app = document.getElementById("app");
if (ownData?.type === "application/json" && app) {
    const title = document.title;
    mount(app, JSON.parse(ownData.textContent), { standalone: true });
    document.title = visible(title);
}
