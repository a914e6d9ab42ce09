//! Restricted reader of Python pickles, for the state dicts that torch.save writes.
//!
//! A pickle is a program for a stack machine. This machine runs the opcodes of protocols 0 to 5, but it
//! imports nothing and calls nothing: the few names a state dict needs have a meaning of their own
//! ([`globals`]), objects of any other class are kept as their plain attributes, and names that only
//! an attack would use are refused. Values live in one arena and refer to each other by number, so that
//! neither shared nor cyclic values need recursion.
//!
//! Every opcode makes at most one value, and their number is limited: that bounds memory and time,
//! whatever the sizes and repetitions in the file claim.

mod globals;
mod machine;
mod value;

pub(super) use self::machine::run;
pub(super) use self::value::{ElementType, Id, Node, Pickle, TensorView};

/// Why a pickle was not read.
#[derive(Debug)]
pub(super) enum PickleError {
    /// It uses a name that no checkpoint has a use for.
    Forbidden { name: String },
    /// It is damaged, or not a pickle.
    Malformed { offset: usize, what: String },
}
