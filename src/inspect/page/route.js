// The page's place: what is shown, kept in the address so that it can be linked to and gone back
// from. In a notebook, whose address is not ours, the place stays in memory.

const PLACE_KEYS = {
    view: /^[a-z]+$/,
    neuron: /^\d{1,10}\.\d{1,10}$/,
    layer: /^\d{1,4}$/,
    token: /^\d{1,10}$/,
    colour: /^(surprise|counts-u|counts-g|sums-u|sums-g|neuron-u|neuron-g)$/,
    scale: /^(own|text)$/,
    from: /^\d{1,10}$/,
    time: /^\d{1,10}$/,
    change: /^1$/,
};
const ADDRESS_DELAY = 200;

function readPlace(hash) {
    const place = {};
    for (const part of hash.replace(/^#/, "").split("&")) {
        const [key, value = ""] = part.split("=");
        if (Object.hasOwn(PLACE_KEYS, key) && PLACE_KEYS[key].test(value)) place[key] = value;
    }
    return place;
}

function writePlace(place) {
    const parts = Object.keys(PLACE_KEYS).filter((key) => place[key] !== undefined);
    return `#${parts.map((key) => `${key}=${place[key]}`).join("&")}`;
}

// `changed(place, before)` is called after every move. `go` takes new values by key, null to drop
// one; with `replace` the move makes no entry in the history, as for each step of a slider.
function makeRoute(standalone, changed) {
    let place = standalone ? readPlace(location.hash) : {};
    let waiting = null;

    // Browsers limit how often an address changes, so quick moves write it once.
    function settle() {
        if (waiting === null) return;
        clearTimeout(waiting);
        waiting = null;
        history.replaceState(null, "", writePlace(place));
    }

    function moved(next) {
        const before = place;
        place = next;
        changed(place, before);
    }

    function returned() {
        clearTimeout(waiting);
        waiting = null;
        const next = readPlace(location.hash);
        if (writePlace(next) !== writePlace(place)) moved(next);
    }
    if (standalone) addEventListener("popstate", returned);

    const merge = (patch) => {
        const next = { ...place };
        for (const [key, value] of Object.entries(patch)) {
            if (value === null || value === undefined) delete next[key];
            else next[key] = String(value);
        }
        return next;
    };
    return {
        get: () => place,
        address: (patch) => writePlace(merge(patch)),
        go(patch, replace = false) {
            const next = merge(patch);
            if (writePlace(next) === writePlace(place)) return;
            if (standalone && replace) waiting ??= setTimeout(settle, ADDRESS_DELAY);
            if (standalone && !replace) {
                settle();
                history.pushState(null, "", writePlace(next));
            }
            moved(next);
        },
        stop: () => standalone && removeEventListener("popstate", returned),
    };
}
