// Names that only the package's own modules share.

/** Delivers a step to a session that is watched. */
export const STEP = Symbol("step");
