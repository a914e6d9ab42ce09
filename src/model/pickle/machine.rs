//! The stack machine.

use super::PickleError;
use super::globals::{Global, resolve};
use super::value::{ElementType, Id, Node, Pickle, StorageRef, TensorView};

/// Opcodes and copied elements a pickle may take: a state dict takes about thirty for each tensor.
const MAX_STEPS: usize = 1 << 19;
/// Tensors and storages, each.
const MAX_TENSORS: usize = 1 << 14;
/// Tuples, lists and calls that are open at the same time.
const MAX_DEPTH: usize = 1000;
/// Dimensions of a tensor.
const MAX_RANK: usize = 16;

const UNSET: Id = Id::MAX;

/// Reads a pickle up to its end mark.
pub(crate) fn run(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
    let mut machine = Machine { bytes, ..Machine::default() };
    loop {
        let start = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                let Machine { nodes, tensors, .. } = machine;
                return Ok(Pickle { nodes, tensors, root });
            }
            Err(Stop::Forbidden(name)) => return Err(PickleError::Forbidden { name }),
            Err(Stop::Malformed(what)) => return Err(PickleError::Malformed { offset: start, what }),
        }
    }
}

enum Stop {
    Forbidden(String),
    Malformed(String),
}

fn malformed<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Malformed(what.into()))
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    /// Place of the next byte.
    at: usize,
    steps: usize,
    nodes: Vec<Node<'a>>,
    storages: Vec<StorageRef<'a>>,
    tensors: Vec<TensorView<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: Vec<Id>,
}

impl<'a> Machine<'a> {
    /// Runs one opcode; the root at the end mark.
    fn step(&mut self) -> Result<Option<Id>, Stop> {
        self.spend(1)?;
        let [opcode] = self.take_array()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            // PROTO and FRAME say nothing that matters here.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),

            b'(' => {
                if self.marks.len() == MAX_DEPTH {
                    return malformed(format!("nested more than {MAX_DEPTH} deep"));
                }
                self.marks.push(self.stack.len());
            }
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }

            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'K' => self.integer(1, false)?,
            b'M' => self.integer(2, false)?,
            b'J' => self.integer(4, true)?,
            0x8a => {
                let length = self.length(1)?;
                self.integer(length, true)?;
            }
            0x8b => {
                let length = self.length(4)?;
                self.integer(length, true)?;
            }
            b'I' | b'L' => self.decimal()?,
            b'F' => {
                let line = self.line()?;
                let Ok(number) = line.parse() else { return malformed("a text that is no number") };
                self.push(Node::Float(number));
            }
            b'G' => {
                let bytes = self.take_array()?;
                self.push(Node::Float(f64::from_be_bytes(bytes)));
            }
            b'S' => {
                let line = self.line()?;
                let quoted = line.get(1..line.len().saturating_sub(1)).unwrap_or_default();
                self.push(Node::Text(quoted));
            }
            b'V' => {
                let line = self.line()?;
                self.push(Node::Text(line));
            }
            b'U' | 0x8c => self.text(1)?,
            b'T' | b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.opaque_bytes(1)?,
            b'B' => self.opaque_bytes(4)?,
            0x8e | 0x96 => self.opaque_bytes(8)?,

            b')' | b']' | 0x8f => self.push(Node::Sequence(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::Sequence(items));
            }
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Node::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }

            b'p' => {
                let line = self.line()?;
                let Ok(number) = line.parse() else { return malformed("a memo number that is none") };
                self.remember(number)?;
            }
            b'q' => {
                let number = self.length(1)?;
                self.remember(number)?;
            }
            b'r' => {
                let number = self.length(4)?;
                self.remember(number)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'g' => {
                let line = self.line()?;
                let Ok(number) = line.parse() else { return malformed("a memo number that is none") };
                self.recall(number)?;
            }
            b'h' => {
                let number = self.length(1)?;
                self.recall(number)?;
            }
            b'j' => {
                let number = self.length(4)?;
                self.recall(number)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (&Node::Text(module), &Node::Text(name)) = (self.node(module), self.node(name)) else {
                    return malformed("a name that is not text");
                };
                self.global(module, name)?;
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let arguments = self.pop_mark()?;
                self.global(module, name)?;
                let class = self.pop()?;
                self.call(class, &arguments)?;
            }
            b'o' => {
                let items = self.pop_mark()?;
                let Some((&class, arguments)) = items.split_first() else {
                    return malformed("an object without a class");
                };
                self.call(class, arguments)?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callee = self.pop()?;
                self.call_with(callee, arguments)?;
            }
            0x92 => {
                self.pop()?;
                let arguments = self.pop()?;
                let class = self.pop()?;
                self.call_with(class, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                if let Node::Object(attributes) = self.node_mut(object)? {
                    *attributes = Some(state);
                }
            }
            b'Q' => {
                let key = self.pop()?;
                self.storage(key)?;
            }
            b'P' => return malformed("a reference by text, which torch.save does not write"),
            0x82..=0x84 => return malformed("an extension code, which torch.save does not write"),
            0x97 | 0x98 => return malformed("a buffer outside the pickle, which torch.save does not write"),
            other => return malformed(format!("unknown opcode {other:#04x}")),
        }
        Ok(None)
    }

    // --- bytes ---

    fn spend(&mut self, steps: usize) -> Result<(), Stop> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return malformed(format!("more than {MAX_STEPS} steps, far more than a state dict takes"));
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(bytes) = rest.get(..length) else { return malformed("the pickle ends too early") };
        self.at += length;
        Ok(bytes)
    }

    fn take_array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], Stop> {
        match self.take(SIZE)?.first_chunk() {
            Some(bytes) => Ok(*bytes),
            None => malformed("the pickle ends too early"),
        }
    }

    /// An unsigned number of `size` bytes, at most 8.
    fn length(&mut self, size: usize) -> Result<usize, Stop> {
        let mut whole = [0; 8];
        whole[..size].copy_from_slice(self.take(size)?);
        usize::try_from(u64::from_le_bytes(whole)).or_else(|_| malformed("a length beyond the memory"))
    }

    fn line(&mut self) -> Result<&'a str, Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return malformed("the pickle ends inside a line");
        };
        self.at += end + 1;
        str::from_utf8(&rest[..end]).or_else(|_| malformed("a line that is not UTF-8"))
    }

    // --- values ---

    fn push(&mut self, node: Node<'a>) {
        // Below 2^32: every step makes at most one.
        self.stack.push(self.nodes.len() as Id);
        self.nodes.push(node);
    }

    fn node(&self, id: Id) -> &Node<'a> {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    fn node_mut(&mut self, id: Id) -> Result<&mut Node<'a>, Stop> {
        match self.nodes.get_mut(id as usize) {
            Some(node) => Ok(node),
            None => malformed("a value that does not exist"),
        }
    }

    fn top(&self) -> Result<Id, Stop> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.get(floor..).and_then(<[Id]>::last) {
            Some(&id) => Ok(id),
            None => malformed("an empty stack"),
        }
    }

    fn pop(&mut self) -> Result<Id, Stop> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// What lies above the last mark, which goes too.
    fn pop_mark(&mut self) -> Result<Vec<Id>, Stop> {
        let Some(mark) = self.marks.pop() else { return malformed("no open mark") };
        Ok(self.stack.drain(mark.min(self.stack.len())..).collect())
    }

    fn integer(&mut self, size: usize, signed: bool) -> Result<(), Stop> {
        let bytes = self.take(size)?;
        let negative = signed && bytes.last().is_some_and(|&last| last >= 0x80);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        let node = match whole.get_mut(..size) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Node::Int(i64::from_le_bytes(whole))
            }
            None => Node::BigInt,
        };
        self.push(node);
        Ok(())
    }

    /// The numbers of protocol 0, among which are the truth values.
    fn decimal(&mut self) -> Result<(), Stop> {
        let line = self.line()?;
        let node = match line.strip_suffix('L').unwrap_or(line) {
            "00" => Node::Bool(false),
            "01" => Node::Bool(true),
            digits => match digits.parse() {
                Ok(number) => Node::Int(number),
                Err(_) if !digits.is_empty() && digits.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) => {
                    Node::BigInt
                }
                Err(_) => return malformed("a text that is no number"),
            },
        };
        self.push(node);
        Ok(())
    }

    fn text(&mut self, size: usize) -> Result<(), Stop> {
        let length = self.length(size)?;
        let bytes = self.take(length)?;
        self.push(str::from_utf8(bytes).map_or(Node::Bytes, Node::Text));
        Ok(())
    }

    fn opaque_bytes(&mut self, size: usize) -> Result<(), Stop> {
        let length = self.length(size)?;
        self.take(length)?;
        self.push(Node::Bytes);
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<(), Stop> {
        let mut items = vec![0; count];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        self.push(Node::Sequence(items));
        Ok(())
    }

    /// Adds to the sequence on top of the stack; other objects' items do not matter.
    fn append(&mut self, items: &[Id]) -> Result<(), Stop> {
        let top = self.top()?;
        if let Node::Sequence(list) = self.node_mut(top)? {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    /// Adds keys and values, in turns, to the dict on top of the stack. An object that is given items is
    /// of a class derived from dict: they count as attributes.
    fn set_items(&mut self, items: &[Id]) -> Result<(), Stop> {
        let (pairs, []) = items.as_chunks::<2>() else { return malformed("a key without a value") };
        let top = self.top()?;
        let pairs = pairs.iter().map(|&[key, value]| (key, value));
        match self.node(top) {
            Node::Object(Some(_)) => return Ok(()),
            Node::Object(None) => {
                let dict = Node::Dict(pairs.collect());
                let id = self.nodes.len() as Id;
                self.nodes.push(dict);
                *self.node_mut(top)? = Node::Object(Some(id));
            }
            Node::Dict(_) => {
                if let Node::Dict(entries) = self.node_mut(top)? {
                    entries.extend(pairs);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn remember(&mut self, number: usize) -> Result<(), Stop> {
        let top = self.top()?;
        if number >= MAX_STEPS {
            return malformed(format!("memo number {number}"));
        }
        if number >= self.memo.len() {
            self.memo.resize(number + 1, UNSET);
        }
        self.memo[number] = top;
        Ok(())
    }

    fn recall(&mut self, number: usize) -> Result<(), Stop> {
        match self.memo.get(number) {
            Some(&id) if id != UNSET => {
                self.stack.push(id);
                Ok(())
            }
            _ => malformed(format!("memo number {number}, which was never set")),
        }
    }

    // --- names and what is made with them ---

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<(), Stop> {
        match resolve(module, name) {
            Some(global) => {
                self.push(Node::Global(global));
                Ok(())
            }
            None => Err(Stop::Forbidden(format!("{module}.{name}"))),
        }
    }

    fn call_with(&mut self, callee: Id, arguments: Id) -> Result<(), Stop> {
        // Taken out and put back, so that nothing is copied; a sequence of itself is empty meanwhile.
        let node = std::mem::replace(self.node_mut(arguments)?, Node::None);
        let result = match &node {
            Node::Sequence(items) => self.call(callee, items),
            _ => malformed("arguments that are no tuple"),
        };
        *self.node_mut(arguments)? = node;
        result
    }

    /// Pushes what stands for the result of a call, which is never made.
    fn call(&mut self, callee: Id, arguments: &[Id]) -> Result<(), Stop> {
        let &Node::Global(callee) = self.node(callee) else {
            self.push(Node::Object(None));
            return Ok(());
        };
        match callee {
            Global::Dict => self.dict(arguments),
            Global::Sequence => match arguments {
                [items, ..] if matches!(self.node(*items), Node::Sequence(_)) => {
                    self.stack.push(*items);
                    Ok(())
                }
                _ => {
                    self.push(Node::Sequence(Vec::new()));
                    Ok(())
                }
            },
            Global::RebuildTensor | Global::RebuildTyped => {
                self.rebuild_tensor(arguments, callee == Global::RebuildTyped)
            }
            Global::RebuildParameter => match arguments {
                [tensor, ..] => {
                    self.stack.push(*tensor);
                    Ok(())
                }
                [] => malformed("a parameter without a tensor"),
            },
            Global::RebuildFromType => match arguments {
                &[function, _, inner, ..] => {
                    // Not itself again: a tensor's type does not wrap another's.
                    if matches!(self.node(function), Node::Global(Global::RebuildFromType)) {
                        return malformed("a tensor type inside a tensor type");
                    }
                    self.call_with(function, inner)
                }
                _ => malformed("a tensor type without a tensor"),
            },
            Global::Storage(_) | Global::ElementType(_) | Global::Opaque => {
                self.push(Node::Object(None));
                Ok(())
            }
        }
    }

    fn dict(&mut self, arguments: &[Id]) -> Result<(), Stop> {
        let Some(&first) = arguments.first() else {
            self.push(Node::Dict(Vec::new()));
            return Ok(());
        };
        let pairs = match self.node(first) {
            Node::Dict(_) => {
                self.stack.push(first);
                return Ok(());
            }
            Node::Sequence(items) => items.iter().map(|&item| match self.node(item) {
                Node::Sequence(pair) => <[Id; 2]>::try_from(&pair[..]).ok(),
                _ => None,
            }),
            _ => {
                self.push(Node::Dict(Vec::new()));
                return Ok(());
            }
        };
        let count = pairs.len();
        let Some(pairs) = pairs.map(|pair| pair.map(|[key, value]| (key, value))).collect() else {
            return malformed("a dict made of something else than pairs");
        };
        self.push(Node::Dict(pairs));
        self.spend(count)
    }

    /// A persistent id: `('storage', class, key, location, length)`.
    fn storage(&mut self, id: Id) -> Result<(), Stop> {
        let Node::Sequence(items) = self.node(id) else { return malformed("a storage that is no tuple") };
        let parts: Option<[Id; 5]> = items.get(..5).and_then(|items| items.try_into().ok());
        let Some([_, class, key, _, len]) = parts else { return malformed("a storage without key and length") };
        let (&Node::Global(Global::Storage(element)), &Node::Text(key), &Node::Int(len)) =
            (self.node(class), self.node(key), self.node(len))
        else {
            return malformed("a storage without class, key and length");
        };
        let Ok(len) = u64::try_from(len) else { return malformed("a storage of negative length") };
        if self.storages.len() == MAX_TENSORS {
            return malformed(format!("more than {MAX_TENSORS} storages"));
        }
        let number = self.storages.len() as u32;
        self.storages.push(StorageRef { key, element, len });
        self.push(Node::Storage(number));
        Ok(())
    }

    fn rebuild_tensor(&mut self, arguments: &[Id], typed: bool) -> Result<(), Stop> {
        let &[storage, offset, shape, strides, ..] = arguments else {
            return malformed("a tensor without storage, offset, sizes and strides");
        };
        let (&Node::Storage(storage), &Node::Int(offset)) = (self.node(storage), self.node(offset)) else {
            return malformed("a tensor without storage and offset");
        };
        let storage = self.storages[storage as usize];
        let element = match arguments.get(6).map(|&id| self.node(id)) {
            Some(&Node::Global(Global::ElementType(element))) if typed => element,
            _ if typed => ElementType::Other("unknown"),
            _ => storage.element,
        };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        let Ok(offset) = usize::try_from(offset) else { return malformed("a tensor with a negative offset") };
        if shape.len() != strides.len() {
            return malformed("a tensor with more sizes than strides, or fewer");
        }
        if self.tensors.len() == MAX_TENSORS {
            return malformed(format!("more than {MAX_TENSORS} tensors"));
        }
        let number = self.tensors.len() as u32;
        self.tensors.push(TensorView { storage, element, offset, shape, strides });
        self.push(Node::Tensor(number));
        Ok(())
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>, Stop> {
        let Node::Sequence(items) = self.node(id) else { return malformed("sizes that are no tuple") };
        if items.len() > MAX_RANK {
            return malformed(format!("a tensor of {} dimensions", items.len()));
        }
        let size = |&item: &Id| match self.node(item) {
            Node::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        };
        match items.iter().map(size).collect() {
            Some(sizes) => Ok(sizes),
            None => malformed("sizes that are not whole numbers from 0"),
        }
    }
}
