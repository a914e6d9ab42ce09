// The tokens of a text on a page: their surprise as a colour, their alternatives beside them, and
// all of them together one stop of the Tab key. The server's page has this in its script; the
// browser's page imports it.

/** Surprise in bits that has the full colour. */
const FULL_COLOUR = 8;

/**
 * @param {HTMLElement} output the text
 * @param {HTMLElement} box shows alternatives
 * @param {(name: string, className?: string, text?: string) => HTMLElement} element makes elements
 * @returns {{ fill: Function, hide: Function }} `fill(piece, text, tokens)` makes an element of the
 *     class "token" show a text and what is known of its tokens: `name`, `logprob`, and `top`, pairs
 *     of these; `hide()` hides the alternatives
 */
export function tokenPieces(output, box, element) {
  const tokensOf = new WeakMap();
  let [tipped, tabStop] = [null, null];

  function fill(piece, text, tokens) {
    if (!tokensOf.has(piece)) {
      piece.tabIndex = -1;
      // When it is on the page.
      if (!tabStop?.isConnected) queueMicrotask(() => tabStop?.isConnected || stopAt(piece));
    }
    piece.textContent = text;
    piece.toggleAttribute("data-newline", text.includes("\n"));
    piece.style.setProperty("--surprise", Math.min(1, bits(tokens) / FULL_COLOUR).toFixed(3));
    tokensOf.set(piece, tokens);
  }

  function show(piece) {
    const tokens = tokensOf.get(piece);
    if (!tokens) return;
    hide();
    const surprise = element("div", "", `Surprise: ${bits(tokens).toFixed(1)} bits`);
    box.replaceChildren(surprise, ...tokens.map((token) => tableOf(token, element)));
    box.hidden = false;
    tipped = piece;
    piece.setAttribute("aria-describedby", box.id);
    place();
  }

  /** Below its token, or above it if there is no room. */
  function place() {
    const at = tipped?.getClientRects()[0];
    if (!at) return;
    const { width, height } = box.getBoundingClientRect();
    const below = at.bottom + 6;
    const top = below + height > innerHeight ? Math.max(0, at.top - height - 6) : below;
    box.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - width - 8))}px`;
    box.style.top = `${top}px`;
  }

  function hide() {
    tipped?.removeAttribute("aria-describedby");
    tipped = null;
    box.hidden = true;
  }

  /** Makes the token last focused the stop of the Tab key. */
  function stopAt(piece) {
    if (tabStop) tabStop.tabIndex = -1;
    tabStop = piece;
    piece.tabIndex = 0;
  }

  output.addEventListener("mouseover", (event) => show(event.target));
  output.addEventListener("mouseout", () => {
    hide();
    show(document.activeElement);
  });
  output.addEventListener("focusin", (event) => {
    if (!tokensOf.has(event.target)) return;
    stopAt(event.target);
    show(event.target);
  });
  output.addEventListener("focusout", hide);
  output.addEventListener("keydown", (event) => {
    const all = [...output.querySelectorAll(".token")];
    const at = all.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    all[to]?.focus();
  });
  addEventListener("scroll", place, true);
  addEventListener("resize", place);
  return { fill, hide };
}

/** Surprise of tokens, in bits. */
function bits(tokens) {
  return tokens.reduce((sum, token) => sum - (token.logprob ?? 0) / Math.LN2, 0);
}

/** A token's name with its spaces and control characters made visible. */
function visible(name) {
  const signs = { " ": "␣", "\n": "⏎", "\t": "⇥" };
  return name.replace(/[\s\u0000-\u001f\u007f-\u009f]/gu, (character) =>
    signs[character] ?? `\\u{${character.codePointAt(0).toString(16)}}`);
}

function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return share < 0.1 ? "< 0.1 %" : `${share.toFixed(1)} %`;
}

/** A token's alternatives, itself among them. */
function tableOf(token, element) {
  const table = element("table");
  const all = new Map(token.top);
  if (token.logprob !== null && !all.has(token.name)) all.set(token.name, token.logprob);
  for (const [name, logprob] of [...all].sort((a, b) => b[1] - a[1])) {
    const row = table.insertRow();
    if (name === token.name) row.className = "chosen";
    row.insertCell().append(element("code", "", visible(name)));
    row.insertCell().textContent = percent(logprob);
    row.insertCell().textContent = name === token.name ? "✓ chosen" : "";
  }
  return table;
}
