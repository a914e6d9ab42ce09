//! Every kernel, one per line, in the order in which its phase runs them.

use super::kernel::{Kernel, Phase};
use super::{beam, decode, prefill};

pub(super) static KERNELS: &[&Kernel] = &[
    &decode::settle::KERNEL,
    &decode::rescale::KERNEL,
    &decode::embed::KERNEL,
    &decode::encode::KERNEL,
    &decode::project::KERNEL,
    &decode::finish::KERNEL,
    &decode::encode_finished::KERNEL,
    &decode::collect::KERNEL,
    &decode::project_collected::KERNEL,
    &decode::logits::KERNEL,
    &decode::sample::KERNEL,
    &beam::fold::KERNEL,
    &beam::counts::KERNEL,
    &beam::embed::KERNEL,
    &beam::encode::KERNEL,
    &beam::attend::KERNEL,
    &beam::select::KERNEL,
    &beam::merge::KERNEL,
    &prefill::embed::KERNEL,
    &prefill::finish::KERNEL,
    &prefill::encode::KERNEL,
    &prefill::rotate::KERNEL,
    &prefill::scores::KERNEL,
    &prefill::read::KERNEL,
    &prefill::attend::KERNEL,
    &prefill::write::KERNEL,
    &prefill::gate::KERNEL,
    &prefill::decode::KERNEL,
    &prefill::logits::KERNEL,
];

/// The kernel of a name.
pub(super) fn find(name: &str) -> Option<&'static Kernel> {
    KERNELS.iter().copied().find(|kernel| kernel.name == name)
}

/// Names of a phase's kernels, in the order in which it runs them. Beam search also runs
/// decode's `finish`, `collect`, `project_collected` and `logits`.
pub fn kernel_names(phase: Phase) -> Vec<&'static str> {
    KERNELS.iter().filter(|kernel| kernel.phase == phase).map(|kernel| kernel.name).collect()
}
