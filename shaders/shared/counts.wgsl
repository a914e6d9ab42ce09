// A token count: how often an id was generated, below two flags.

// Set if the id occurs in the prompt.
const PROMPT_BIT: u32 = 0x80000000u;
// Set if the id ends the sequence.
const EOS_BIT: u32 = 0x40000000u;
// Bits of the count.
const COUNT_MASK: u32 = 0x3fffffffu;
