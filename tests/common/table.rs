//! Tables of kernels' statistics, checked in as text.

use std::collections::BTreeMap;

/// A kernel, and the numbers of its columns; `None` if the compiler does not tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub kernel: String,
    pub numbers: Vec<Option<u64>>,
}

impl Row {
    fn cells(&self) -> Vec<String> {
        self.numbers.iter().map(|number| number.map_or("-".to_string(), |number| number.to_string())).collect()
    }
}

/// Rows below a heading, in columns as wide as they need; `first` is the first line.
pub fn text(first: &str, titles: &[&str], rows: &[Row]) -> String {
    let widest = rows.iter().map(|row| row.kernel.len()).max().unwrap_or(0);
    let line = |kernel: &str, cells: &[String]| {
        let cells = cells.iter().zip(titles).map(|(cell, title)| format!("{cell:>0$}", title.len().max(6)));
        format!("{kernel:widest$}  {}\n", cells.collect::<Vec<_>>().join("  "))
    };
    let titles: Vec<String> = titles.iter().map(ToString::to_string).collect();
    let rows: String = rows.iter().map(|row| line(&row.kernel, &row.cells())).collect();
    format!("{first}\n{}{rows}", line("kernel", &titles))
}

/// The first line of a table, and its rows.
pub fn parse(text: &str) -> (String, Vec<Row>) {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_string();
    let row = |line: &str| {
        let (kernel, cells) = line.split_once("  ").unwrap_or_else(|| panic!("{line:?} is no row"));
        let number = |cell: &str| (cell != "-").then(|| cell.parse().unwrap_or_else(|_| panic!("{line:?}")));
        Row { kernel: kernel.to_string(), numbers: cells.split_whitespace().map(number).collect() }
    };
    (first, lines.skip(1).map(row).collect())
}

/// What differs between two tables: of every kernel that changed its old and its new numbers.
pub fn differences(old: &[Row], new: &[Row]) -> Vec<String> {
    let by_name = |rows: &[Row]| -> BTreeMap<String, String> {
        rows.iter().map(|row| (row.kernel.clone(), row.cells().join(" "))).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))).collect();
    names.sort();
    let or_none = |cells: Option<&String>| cells.map_or("none".to_string(), String::clone);
    let differ = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    differ.map(|name| format!("{name}: {} is now {}", or_none(old.get(name)), or_none(new.get(name)))).collect()
}
