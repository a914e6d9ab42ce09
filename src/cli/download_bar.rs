//! How far a model's download is, for a person who is looking.

use super::output::Notices;
use bdh_gpu::model::hub::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::OnceCell;
use std::io::IsTerminal;
use std::ops::ControlFlow;

/// A bar that appears once there is something to download, and goes when it is dropped.
pub struct DownloadBar {
    wanted: bool,
    bar: OnceCell<ProgressBar>,
}

impl DownloadBar {
    /// Shows nothing with --quiet, or where standard error is no terminal.
    pub fn new(notices: &Notices) -> Self {
        Self { wanted: !notices.is_quiet() && std::io::stderr().is_terminal(), bar: OnceCell::new() }
    }

    /// Shows how far the download is.
    pub fn show(&self, progress: Progress<'_>) -> ControlFlow<()> {
        if self.wanted && progress.total > 0 {
            let bar = self.bar.get_or_init(new_bar);
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            if bar.message() != progress.file {
                bar.set_message(progress.file.to_owned());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Drop for DownloadBar {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    ProgressStyle::with_template(template).map_or(bar.clone(), |style| bar.with_style(style))
}
