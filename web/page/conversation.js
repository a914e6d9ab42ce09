// Conversations as lists of points. A point is one run: the text that was typed, the text that the
// model wrote, and the session after it. Points never change once a run is over, except that their
// sessions become state files; so branches share them.

/** Sessions that stay on the device. Older ones become state files, which continue alike. */
const KEEP = 3;

export function newPoint(typed) {
    return { typed, text: "", ids: [], session: null, state: null, file: null, shown: null };
}

export function textOf(points) {
    return points.map((point) => point.typed + point.text).join("");
}

export class Conversations {
    model;
    branches = [];
    current = null;
    #live = [];

    constructor(model) {
        this.model = model;
    }

    /** A branch with these points, which becomes the current one. */
    add(points, origin) {
        const number = this.branches.length + 1;
        const name = `Text ${number}${origin ? ` (from ${origin.name.split(" (")[0]})` : ""}`;
        this.current = { name, points, draft: "" };
        this.branches.push(this.current);
        return this.current;
    }

    /** A branch that goes on from a state file. */
    async addState(file) {
        const point = newPoint("");
        point.file = file.name;
        const session = await this.model.session();
        try {
            await session.loadState(file);
        } catch (error) {
            session.dispose();
            throw error;
        }
        // A copy: the file may change on the disk.
        point.state = await session.saveState();
        await this.#keep(point, session);
        return this.add([point], null);
    }

    /**
     * Runs the last point of a branch: pieces go to `changed` after they were added to the point.
     * After an abort, the point holds the text so far, and its session can go on.
     */
    async run(branch, options, changed, watch) {
        const point = branch.points.at(-1);
        const { session, prompt } = await this.#continue(branch.points.slice(0, -1), point.typed);
        let kept = false;
        try {
            if (watch) await session.watch(watch);
            const generation = session.generate(prompt === "" ? undefined : prompt, options);
            try {
                for await (const piece of generation) {
                    point.text += piece.text;
                    point.ids.push(...piece.tokens);
                    changed(piece);
                }
                kept = true;
                return await generation.result;
            } catch (error) {
                kept = options.signal.aborted && point.ids.length > 0;
                throw error;
            }
        } finally {
            if (kept) {
                if (watch) await session.watch(null);
                await this.#keep(point, session);
            } else session.dispose();
        }
    }

    /** The state file after a point. */
    async save(point) {
        return point.session ? point.session.saveState() : point.state;
    }

    /** Frees a point that no branch needs. */
    release(point) {
        if (this.branches.some(({ points }) => points.includes(point))) return;
        point.session?.dispose();
        this.#live = this.#live.filter((live) => live !== point);
    }

    /** The device and all sessions on it are gone. State files and texts are left. */
    lose() {
        for (const point of this.#live) point.session = null;
        this.#live = [];
    }

    /** Moves the texts to another engine. States only fit the same model. */
    moveTo(model, sameModel) {
        this.lose();
        this.model = model;
        if (sameModel) return;
        this.branches = [];
        this.add([], null);
    }

    /** A session after the latest point that has one, and the text since then. */
    async #continue(points, typed) {
        let prompt = typed;
        for (const point of points.toReversed()) {
            if (point.session) return { session: await point.session.fork(), prompt };
            if (point.state) {
                const session = await this.model.session();
                await session.loadState(point.state);
                return { session, prompt };
            }
            prompt = textOf([point]) + prompt;
        }
        return { session: await this.model.session(), prompt };
    }

    async #keep(point, session) {
        point.session = session;
        this.#live.push(point);
        while (this.#live.length > KEEP) {
            const oldest = this.#live.shift();
            oldest.state ??= await oldest.session.saveState();
            oldest.session.dispose();
            oldest.session = null;
        }
    }
}
