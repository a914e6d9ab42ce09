// A token count: how often an id was generated, below two flags.

// Set when the id occurs in the prompt.
const PROMPT_BIT: u32 = 0x80000000u;
// Set when the id ends the sequence.
const EOS_BIT: u32 = 0x40000000u;
// The bits that count.
const COUNT_MASK: u32 = 0x3fffffffu;
