// Breaks a text into lines of cells. A cell is drawn as one piece: one token, all byte tokens of
// one character, or a part of a token that holds line ends or is long.

const BYTE = /^\\x[0-9A-Fa-f]{2}$/;
const LONGEST_CELL = 20;

// The cells of a text: their first and last token, text as drawn, and whether a line ends after
// them.
function cellsOf(trace) {
    const cells = [];
    let first = null;
    // Bytes of a character that the text does not complete.
    const abandon = (end) => {
        for (let t = first ?? end; t < end; t++) {
            cells.push({ first: t, last: t, text: tokenLabel(trace.textOfId(trace.ids[t])), mark: true, ends: false });
        }
        first = null;
    };
    for (let t = 0; t < trace.length; t++) {
        const [start, end] = [trace.starts[t], trace.starts[t + 1]];
        if (start === end) {
            const label = trace.textOfId(trace.ids[t]);
            if (BYTE.test(label)) first ??= t;
            else {
                abandon(t);
                cells.push({ first: t, last: t, text: tokenLabel(label), mark: true, ends: false });
            }
            continue;
        }
        for (const piece of piecesOf(trace.text.slice(start, end))) {
            cells.push({ first: first ?? t, last: t, ...piece });
        }
        first = null;
    }
    abandon(trace.length);
    return cells;
}

function piecesOf(text) {
    const pieces = [];
    let drawn = "";
    const end = (ends) => {
        if (drawn !== "") pieces.push({ text: drawn, mark: false, ends });
        drawn = "";
    };
    for (const character of text) {
        if (character === "\n") {
            drawn += "⏎";
            end(true);
        } else {
            drawn += character === "\t" ? "⇥  " : visible(character);
            if (drawn.length >= LONGEST_CELL) end(false);
        }
    }
    end(false);
    return pieces;
}

// The first cell of each line, for lines of `width`; `measure` gives the width of a text. Lines
// break at spaces where they can.
function breakLines(cells, width, measure) {
    const lines = [0];
    let used = 0;
    let space = -1;
    for (let i = 0; i < cells.length; i++) {
        cells[i].width ??= measure(cells[i].text);
        const start = lines[lines.length - 1];
        if (i > start && cells[i].text.startsWith(" ")) space = i;
        if (i > start && used + cells[i].width > width) {
            lines.push(space > start ? space : i);
            used = 0;
            for (let k = lines[lines.length - 1]; k < i; k++) used += cells[k].width;
            space = -1;
        }
        used += cells[i].width;
        if (cells[i].text.endsWith(" ")) space = i + 1;
        if (cells[i].ends && i + 1 < cells.length) {
            lines.push(i + 1);
            used = 0;
            space = -1;
        }
    }
    return lines;
}
