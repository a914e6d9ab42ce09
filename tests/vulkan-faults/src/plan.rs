//! What shall go wrong.

use super::PLAN;
use ash::vk;
use std::path::PathBuf;

/// The instructions in force.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Function, result, and the number of submissions from which on it holds.
    results: Vec<(String, i32, u64)>,
    /// Bytes of the largest buffer or image that there is memory for.
    largest: Option<u64>,
    pub hang: Option<u64>,
    pub hardware: bool,
    pub binding: Option<u32>,
    pub miscompile: bool,
}

fn path() -> Option<PathBuf> {
    std::env::var_os(PLAN).map(PathBuf::from)
}

impl Plan {
    /// Reads the file; without one, nothing goes wrong.
    pub fn read() -> Self {
        let text = path().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let mut plan = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{PLAN}: no number in {line:?}"));
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["hardware"] => plan.hardware = true,
                ["miscompile"] => plan.miscompile = true,
                ["binding", bytes] => plan.binding = Some(number(bytes) as u32),
                ["largest", bytes] => plan.largest = Some(number(bytes)),
                ["hang", "from", submissions] => plan.hang = Some(number(submissions)),
                [function, result, "from", submissions] => {
                    let result = result.parse().unwrap_or_else(|_| panic!("{PLAN}: no result in {line:?}"));
                    plan.results.push((function.to_string(), result, number(submissions)));
                }
                _ => panic!("{PLAN}: {line:?} is no instruction"),
            }
        }
        plan
    }

    /// What a function is to return after so many submissions, if anything but the truth.
    pub fn result(&self, function: &str, submissions: u64) -> Option<vk::Result> {
        let applies = |(name, _, from): &&(String, i32, u64)| name == function && submissions >= *from;
        self.results.iter().find(applies).map(|(_, result, _)| vk::Result::from_raw(*result))
    }

    /// As [`Plan::result`], for a function that makes something of so many bytes.
    pub fn creation(&self, function: &str, submissions: u64, bytes: u64) -> Option<vk::Result> {
        let too_large = self.largest.is_some_and(|largest| bytes > largest);
        let no_memory = too_large.then_some(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
        no_memory.or_else(|| self.result(function, submissions))
    }
}

/// Writes down how many submissions there were.
pub fn note_submissions(count: u64) {
    if let Some(path) = path() {
        std::fs::write(path.with_extension("submissions"), count.to_string()).expect("the count can be written");
    }
}

/// Turns multiplications of floats into additions.
pub fn miscompile(code: &mut [u32]) {
    const HEADER: usize = 5;
    const F_ADD: u32 = 129;
    const F_MUL: u32 = 133;
    let mut at = HEADER;
    while at < code.len() {
        let (words, operation) = (code[at] >> 16, code[at] & 0xffff);
        if operation == F_MUL {
            code[at] = words << 16 | F_ADD;
        }
        at += words.max(1) as usize;
    }
}
