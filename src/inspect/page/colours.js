// Colours of values. Zero is the page's background; more is further from it in lightness, so that
// the order shows without seeing hues. Signed values have a scale of their own: blue below zero,
// orange above.

// Mako and plasma: both keep their order for every kind of colour vision.
const MAKO = ["def5e5", "8ad9b1", "3eb4ad", "348fa7", "366a9f", "40498e", "3b2f5e", "28192f"];
const PLASMA = ["0d0887", "6a00a8", "b12a90", "e16462", "fca636", "f0f921"];
const BLUES = ["8fb8e0", "4a87c4", "1f5a9b", "0b3566"];
const ORANGES = ["f2bd85", "dd8a3c", "b35806", "7a3403"];
const BACKGROUNDS = { light: [255, 255, 255], dark: [24, 30, 28] };

function channels(hex) {
    return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

// The colour at `position` (0 to 1) along evenly spaced stops.
function between(stops, position) {
    const at = Math.min(1, Math.max(0, position)) * (stops.length - 1);
    const first = Math.min(stops.length - 2, Math.floor(at));
    return stops[first].map((channel, i) => Math.round(channel + (stops[first + 1][i] - channel) * (at - first)));
}

function luminance(rgb) {
    const [r, g, b] = rgb.map((channel) => {
        const part = channel / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function ramp(background, stops) {
    const all = [background, ...stops];
    return Array.from({ length: 256 }, (_, i) => {
        const rgb = between(all, i / 255);
        if (i === 0) return { rgb, css: "transparent", ink: "inherit" };
        // Of black and white, one has a contrast of at least 4.5 on any colour.
        return { rgb, css: `rgb(${rgb.join(" ")})`, ink: luminance(rgb) > 0.179 ? "#000" : "#fff" };
    });
}

function palette(theme) {
    const background = BACKGROUNDS[theme];
    const mako = MAKO.map(channels);
    const amounts = ramp(background, theme === "light" ? mako : mako.slice(0, 7).reverse());
    const lines = (theme === "light" ? PLASMA.slice(0, 4) : PLASMA.slice(2)).map(channels);
    const sides = (stops) => (theme === "light" ? stops : [...stops].reverse()).map(channels);
    const below = ramp(background, sides(BLUES));
    const above = ramp(background, sides(ORANGES));
    const step = (share) => Math.round(255 * Math.min(1, Math.max(0, share)));
    return {
        theme,
        amount: (share) => amounts[step(share) || 0],
        signed: (share) => (share < 0 ? below[step(-share)] : above[step(share) || 0]),
        // One colour per line of a chart, apart in lightness and hue, all visible on the
        // background.
        line: (index, of) => `rgb(${between(lines, of > 1 ? index / (of - 1) : 0).join(" ")})`,
    };
}
