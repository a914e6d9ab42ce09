// The box beside the pointer or the current token.

function makeTip(root) {
    const el = make("div", { class: "tip", role: "tooltip", hidden: true });
    return {
        el,
        // `anchor` is an element, or {x, y} in the window.
        show(anchor, ...content) {
            const box = anchor.getBoundingClientRect?.() ?? {
                left: anchor.x,
                top: anchor.y,
                bottom: anchor.y,
                right: anchor.x,
            };
            el.replaceChildren(...content.flat());
            el.hidden = false;
            const bounds = root.getBoundingClientRect();
            const { offsetWidth: width, offsetHeight: height } = el;
            const left = Math.max(bounds.left + 4, Math.min(box.left, bounds.right - width - 8));
            const below = box.bottom + 6 + height < Math.min(innerHeight, bounds.bottom);
            el.style.left = `${left - bounds.left}px`;
            el.style.top = `${(below ? box.bottom + 6 : Math.max(4, box.top - height - 6)) - bounds.top}px`;
        },
        hide: () => (el.hidden = true),
    };
}
