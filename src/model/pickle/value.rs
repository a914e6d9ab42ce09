//! Values made by a pickle.

use serde_json::{Map, Value};

use super::globals::Global;
use crate::model::config_keys::opaque;
use crate::model::tensor::Dtype;

/// Number of a value in the arena.
pub(crate) type Id = u32;

/// A value. Text and bytes stay in the pickle.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits.
    BigInt,
    Float(f64),
    Text(&'a str),
    Bytes,
    /// A list, tuple or set.
    Sequence(Vec<Id>),
    /// A dict of any kind, in the order of insertion.
    Dict(Vec<(Id, Id)>),
    Global(Global<'a>),
    /// An object of a class without a meaning here; its attributes, if it has any.
    Object(Option<Id>),
    /// Number among the storages seen so far.
    Storage(u32),
    /// Number in [`Pickle::tensors`].
    Tensor(u32),
}

/// What the elements of a storage or tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType<'a> {
    Weight(Dtype),
    /// Bytes: the tensor says of what type.
    Untyped,
    /// A type that weights cannot have, as PyTorch calls it.
    Other(&'a str),
}

/// A storage: one member of the archive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageRef<'a> {
    /// Name of the member below `data/`.
    pub(crate) key: &'a str,
    pub(crate) element: ElementType<'a>,
    /// Elements; bytes for an untyped storage.
    pub(crate) len: u64,
}

/// A tensor: a view of a storage. Sizes, strides and offset count elements.
#[derive(Clone, Debug)]
pub(crate) struct TensorView<'a> {
    pub(crate) storage: StorageRef<'a>,
    pub(crate) element: ElementType<'a>,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// What a pickle holds.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) tensors: Vec<TensorView<'a>>,
    pub(super) root: Id,
}

impl<'a> Pickle<'a> {
    /// The value that was pickled.
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(crate) fn node(&self, id: Id) -> &Node<'a> {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    /// The entries of a dict whose keys are text; of the entries with one key the last one counts.
    pub(crate) fn entries(&self, id: Id) -> Option<impl Iterator<Item = (&'a str, Id)>> {
        let Node::Dict(entries) = self.node(id) else { return None };
        Some(entries.iter().filter_map(|&(key, value)| match self.node(key) {
            Node::Text(text) => Some((*text, value)),
            _ => None,
        }))
    }

    /// The value of a dict's key.
    pub(crate) fn get(&self, id: Id, key: &str) -> Option<Id> {
        self.entries(id)?.filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }

    pub(crate) fn tensor(&self, id: Id) -> Option<&TensorView<'a>> {
        match self.node(id) {
            Node::Tensor(number) => self.tensors.get(*number as usize),
            _ => None,
        }
    }

    /// One attribute of an object, or one entry of a dict.
    pub(crate) fn attribute(&self, id: Id, key: &str) -> Option<Id> {
        let state = match self.node(id) {
            Node::Object(Some(state)) => *state,
            _ => id,
        };
        match self.node(state) {
            Node::Sequence(parts) => parts.iter().take(2).find_map(|&part| self.get(part, key)),
            _ => self.get(self.get(state, "__dict__").unwrap_or(state), key),
        }
    }

    /// Characters and their ids, as JSON writes them: a text, a list of texts, or a dict from texts to numbers or from
    /// numbers to texts.
    pub(crate) fn characters(&self, id: Id) -> Option<Value> {
        /// More than any vocabulary of characters has.
        const MOST: usize = 1 << 16;
        match self.node(id) {
            Node::Text(text) if text.len() <= MOST => Some(Value::from(*text)),
            Node::Sequence(items) if items.len() <= MOST => {
                let text = |&item: &Id| match self.node(item) {
                    Node::Text(text) => Some(Value::from(*text)),
                    _ => None,
                };
                items.iter().map(text).collect::<Option<_>>().map(Value::Array)
            }
            Node::Dict(entries) if entries.len() <= MOST => {
                let pair = |&(key, value): &(Id, Id)| match (self.node(key), self.node(value)) {
                    (Node::Text(text), Node::Int(id)) => Some(((*text).to_owned(), Value::from(*id))),
                    (Node::Int(id), Node::Text(text)) => Some((id.to_string(), Value::from(*text))),
                    _ => None,
                };
                entries.iter().map(pair).collect::<Option<_>>().map(Value::Object)
            }
            _ => None,
        }
    }

    /// The attributes of an object, or the entries of a dict. Plain are numbers, texts and short lists of them;
    /// every other value is [`opaque`].
    pub(crate) fn attributes(&self, id: Id) -> Map<String, Value> {
        let mut map = Map::new();
        let state = match self.node(id) {
            Node::Object(Some(state)) => *state,
            _ => id,
        };
        match self.node(state) {
            // What a class with slots leaves: its dict, if any, and its slots.
            Node::Sequence(parts) => parts.iter().take(2).for_each(|&part| self.collect(part, &mut map)),
            _ => self.collect(self.get(state, "__dict__").unwrap_or(state), &mut map),
        }
        map
    }

    fn collect(&self, dict: Id, map: &mut Map<String, Value>) {
        /// More attributes than any configuration has.
        const MOST: usize = 1000;
        let Some(entries) = self.entries(dict) else { return };
        for (key, value) in entries.take(MOST) {
            map.insert(key.to_owned(), self.plain(value).unwrap_or_else(opaque));
        }
    }

    fn plain(&self, id: Id) -> Option<Value> {
        const LONGEST_LIST: usize = 64;
        Some(match self.node(id) {
            Node::Sequence(items) if items.len() <= LONGEST_LIST => {
                let scalar = |&item: &Id| match self.node(item) {
                    Node::Sequence(_) => None,
                    _ => self.plain(item),
                };
                Value::Array(items.iter().map(scalar).collect::<Option<_>>()?)
            }
            Node::None => Value::Null,
            Node::Bool(value) => Value::from(*value),
            Node::Int(value) => Value::from(*value),
            Node::Float(value) => Value::from(*value),
            Node::Text(value) => Value::from(*value),
            _ => return None,
        })
    }
}
