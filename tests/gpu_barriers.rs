//! What hardware does with barriers and a software adapter does not.
//!
//! A software adapter runs eight invocations of a workgroup up to the next barrier, then the next eight. What one of them writes
//! and another reads without a barrier in between goes well in one order and wrong in the other; on hardware it goes wrong some
//! of the time. And a barrier that only some invocations reach does nothing there, where hardware hangs. So the kernels
//! run here laid out as for hardware, with their invocations numbered in other ways, and counting their barriers. On a hardware
//! adapter, which has no order to change and may round another text differently, they have to agree with their twins only.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::gpu::{GpuOptions, Rewrite};
use bdh_gpu::backend::{Backend, DeviceKind, WeightType};
use bdh_gpu::model::{Model, SyntheticSpec};
use bdh_gpu::verify::{self, CaseReport, Suite, VerifyError, beam_suites, coded_suites, prefill_suites, suites};
use std::sync::OnceLock;

/// Checks a suite's kernels: one of `verify`'s functions.
type Check = fn(&Suite, &dyn verify::Open, &mut dyn FnMut(CaseReport)) -> Result<(), VerifyError>;

/// The rows of a check, which hold the differences from the twins over all numbers: those of two runs are the same if all
/// numbers are.
fn rows(check: Check, suite: &Suite, rewrite: Option<Rewrite>) -> Vec<CaseReport> {
    let options = GpuOptions { hardware_layout: true, rewrite, ..GpuOptions::default() };
    let mut rows = Vec::new();
    check(suite, &gpu::opener(options), &mut |row| rows.push(row)).expect("the device answers");
    rows
}

/// Whether the adapter under test runs on the CPU.
fn on_software() -> bool {
    static SOFTWARE: OnceLock<bool> = OnceLock::new();
    *SOFTWARE.get_or_init(|| {
        let (n_layer, n_embd, n_head, neurons_per_head, vocab_size, density, seed) = (1, 8, 1, 32, 8, 0.5, 1);
        let tiny = SyntheticSpec { n_layer, n_embd, n_head, neurons_per_head, vocab_size, density, seed };
        let device = gpu::backend(&Model::synthetic(&tiny), WeightType::F32, GpuOptions::default());
        device.device().kind == DeviceKind::SoftwareGpu
    })
}

// ---- entry points ----

/// An entry point: its name, its parameters, and what follows its opening brace.
struct Entry<'a> {
    name: &'a str,
    parameters: &'a str,
    body: &'a str,
}

const COMPUTE: &str = "@compute @workgroup_size(W)\n";

/// What stands before the entry points of a kernel's text, and those.
fn entries(text: &str) -> (&str, Vec<Entry<'_>>) {
    let mut parts = text.split(COMPUTE);
    let before = parts.next().expect("a text");
    let entry = |part| {
        let (signature, body) = str::split_once(part, ") {\n").expect("a body");
        let (name, parameters) = signature.strip_prefix("fn ").and_then(|rest| rest.split_once('(')).expect("a name");
        Entry { name, parameters, body }
    };
    let entries: Vec<Entry> = parts.map(entry).collect();
    assert!(!entries.is_empty(), "no entry point begins with {COMPUTE:?}:\n{text}");
    (before, entries)
}

/// The parameter with an attribute.
fn parameter<'a>(parameters: &'a str, attribute: &str) -> Option<&'a str> {
    let (_, rest) = parameters.split_once(attribute)?;
    rest.trim_start().split_once(':').map(|(name, _)| name)
}

fn invocation<'a>(entry: &Entry<'a>) -> &'a str {
    parameter(entry.parameters, "@builtin(local_invocation_index)").expect("every kernel asks for its index")
}

// ---- order ----

/// Numbers the invocations of a workgroup by a formula over `index`; with `last_first`, the workgroups from the last one on.
fn renumber(text: &str, formula: &str, last_first: bool) -> String {
    let (before, entries) = entries(text);
    let mut result = before.to_string();
    for entry in entries {
        let name = invocation(&entry);
        let mut parameters = entry.parameters.replace(&format!("index) {name}:"), "index) index:");
        let mut body = format!("    let {name} = {formula};\n{}", entry.body);
        if let Some(group) = parameter(&parameters.clone(), "@builtin(workgroup_id)").filter(|_| last_first) {
            let both = "@builtin(num_workgroups) groups: vec3<u32>, @builtin(workgroup_id) from_last: vec3<u32>";
            parameters = parameters.replace(&format!("@builtin(workgroup_id) {group}: vec3<u32>"), both);
            body = format!("    let {group} = groups - 1u - from_last;\n{body}");
        }
        result += &format!("{COMPUTE}fn {}({parameters}) {{\n{body}", entry.name);
    }
    result
}

/// Of any two invocations of 64 or more, either the natural order or the interleaved one has them in different eights; and the
/// order from the last one on then has the other one first.
const ORDERS: [Rewrite; 3] = [
    |_, text| renumber(&text, "W - 1u - index", true),
    |_, text| renumber(&text, "index % 8u * (W / 8u) + index / 8u", false),
    |_, text| renumber(&text, "(W - 1u - index) % 8u * (W / 8u) + (W - 1u - index) / 8u", true),
];

fn assert_same_in_all_orders(check: Check, suites: &[Suite]) {
    for suite in suites {
        let expected = rows(check, suite, None);
        assert!(expected.iter().all(|row| row.passed), "{suite}: {expected:#?}");
        for (order, rewrite) in ORDERS.into_iter().enumerate() {
            let got = rows(check, suite, Some(rewrite));
            assert!(got.iter().all(|row| row.passed), "{suite}, order {order}: {got:#?}");
            if on_software() {
                assert_eq!(got, expected, "{suite}, order {order}");
            }
        }
    }
}

#[test]
fn kernels_do_not_depend_on_the_order_of_invocations() {
    // Rows shared by few and by many invocations, heads of one block and of several, one sequence and several.
    let chosen = [0, 6, 15].map(|index| suites().remove(index));
    assert_same_in_all_orders(verify::check_kernels, &chosen);
    assert_same_in_all_orders(verify::check_kernels, &coded_suites()[1..2]);
}

#[test]
fn kernels_of_a_beam_search_do_not_depend_on_the_order_of_invocations() {
    let suites: Vec<Suite> = beam_suites().into_iter().step_by(4).collect();
    assert_same_in_all_orders(verify::check_beam_kernels, &suites);
}

#[test]
fn kernels_of_a_chunk_do_not_depend_on_the_order_of_invocations() {
    let suites: Vec<Suite> = prefill_suites().into_iter().step_by(8).collect();
    assert_same_in_all_orders(verify::check_prefill_kernels, &suites);
}

/// Without the barrier before the dense product, all is well in the natural order and wrong in another.
#[test]
fn a_missing_barrier_shows_in_another_order() {
    if !on_software() {
        return println!("a hardware adapter has no order in which a missing barrier must show");
    }
    fn without(text: String) -> String {
        let barrier = "fn encode(i: u32, group: vec3<u32>) {\n    workgroupBarrier();\n";
        text.replace(barrier, "fn encode(i: u32, group: vec3<u32>) {\n")
    }
    let suite = &suites()[8];
    let expected = rows(verify::check_kernels, suite, None);
    assert_eq!(rows(verify::check_kernels, suite, Some(|_, text| without(text))), expected);
    let other: Rewrite = |name, text| ORDERS[0](name, without(text));
    assert_ne!(rows(verify::check_kernels, suite, Some(other)), expected);
}

// ---- number ----

/// A kernel that writes nonsense where its invocations do not all pass as many barriers. `uneven`, a formula over INDEX, is added
/// to their numbers.
fn counted(text: &str, uneven: &str) -> String {
    let text = text.replace("workgroupBarrier();", "barriers++;\n    workgroupBarrier();");
    let (before, entries) = entries(&text);
    let mut result = format!(
        "var<private> barriers: u32 = 0u;\nvar<workgroup> most: atomic<u32>;\nvar<workgroup> fewest: atomic<u32>;\n{before}"
    );
    let nonsense: String = text
        .split("var<storage, read_write> ")
        .skip(1)
        .filter_map(|binding| {
            let (name, rest) = binding.split_once(": array<")?;
            let value = match rest.split_once(">;")?.0 {
                "vec4<f32>" => "vec4(1e30)",
                "f32" => "1e30",
                "u32" => "0xffffffffu",
                "vec2<u32>" => "vec2(0xffffffffu)",
                "vec4<u32>" => "vec4(0xffffffffu)",
                _ => return None,
            };
            let each = format!("for (var n = own; n < arrayLength(&{name}); n += W)");
            Some(format!("        {each} {{\n            {name}[n] = {value};\n        }}\n"))
        })
        .collect();
    assert!(!nonsense.is_empty(), "nothing to write nonsense to:\n{text}");
    for entry in entries {
        let i = invocation(&entry);
        let group = parameter(entry.parameters, "@builtin(workgroup_id)");
        let (arguments, parameters) = match group {
            Some(group) => (format!("{group}, {i}"), format!("{group}: vec3<u32>, {i}: u32")),
            None => (i.to_string(), format!("{i}: u32")),
        };
        let Entry { name, parameters: all, body } = entry;
        let uneven = uneven.replace("INDEX", i);
        result += &format!(
            "fn counted_{name}({parameters}) {{\n{body}\n\
             {COMPUTE}fn {name}({all}) {{\n\
             \x20   if ({i} == 0u) {{\n        atomicStore(&most, 0u);\n        atomicStore(&fewest, ~0u);\n    }}\n\
             \x20   workgroupBarrier();\n    counted_{name}({arguments});\n    barriers += {uneven};\n\
             \x20   atomicMax(&most, barriers);\n    atomicMin(&fewest, barriers);\n    workgroupBarrier();\n\
             \x20   if (atomicLoad(&most) != atomicLoad(&fewest)) {{\n        let own = {i};\n{nonsense}    }}\n}}\n"
        );
    }
    result
}

fn assert_counted(check: Check, suites: &[Suite]) {
    for suite in suites {
        let counted: Rewrite = |_, text| counted(&text, "0u");
        for row in rows(check, suite, Some(counted)) {
            assert!(row.passed, "{suite}: invocations pass different numbers of barriers, or worse: {row:#?}");
        }
    }
}

#[test]
fn all_invocations_pass_as_many_barriers() {
    let suites: Vec<Suite> = suites().into_iter().skip(1).step_by(5).collect();
    assert_counted(verify::check_kernels, &suites);
    assert_counted(verify::check_kernels, &coded_suites()[3..4]);
    assert_counted(verify::check_beam_kernels, &beam_suites()[..1]);
    assert_counted(verify::check_prefill_kernels, &prefill_suites()[..1]);
}

#[test]
fn a_barrier_that_one_invocation_misses_is_noticed() {
    let uneven: Rewrite = |_, text| counted(&text, "select(0u, 1u, INDEX == 3u)");
    let checks: [(Check, Suite); 3] = [
        (verify::check_kernels, suites().remove(2)),
        (verify::check_beam_kernels, beam_suites().remove(0)),
        (verify::check_prefill_kernels, prefill_suites().remove(0)),
    ];
    for (check, suite) in checks {
        for row in rows(check, &suite, Some(uneven)) {
            assert!(!row.passed, "{suite}: {row:#?}");
        }
    }
}
