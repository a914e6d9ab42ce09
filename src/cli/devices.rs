//! `bdh-gpu devices`: what there is to run on.

use super::failure::Failure;
use super::format;
use super::output::{Notices, Output};
use bdh_gpu::backend::cpu::simd::Level;
use bdh_gpu::backend::gpu::{AdapterSummary, list_adapters};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  bdh-gpu devices
  bdh-gpu generate --device 0 --prompt \"KING:\"
  bdh-gpu generate --device cpu --prompt \"KING:\"

The device marked * is the one that --device auto takes: the best graphics card, else the CPU. Drivers
that compute on the CPU (type software) are used only when asked for, by index, name or --device gpu.";

/// List what there is to run on
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Devices {
    /// How to print the list
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Output")]
    format: Format,
    #[command(flatten)]
    notices: Notices,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

impl Devices {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let adapters = list_adapters();
        let automatic = adapters.iter().find(|adapter| adapter.automatic).map(|adapter| adapter.index);
        match self.format {
            Format::Text => Output::new().write(&table(&adapters, automatic))?,
            Format::Json => Output::new().json(&list(&adapters, automatic))?,
        }
        if adapters.is_empty() {
            self.notices.say(
                "note: there is no Vulkan, Metal or DX12 adapter; a graphics driver would bring one \
                 (Debian: mesa-vulkan-drivers)",
            );
        }
        Ok(())
    }
}

fn table(adapters: &[AdapterSummary], automatic: Option<usize>) -> String {
    let mark = |chosen| if chosen { "*" } else { "" }.to_string();
    let mut rows: Vec<[String; 9]> = adapters
        .iter()
        .map(|adapter| {
            [
                mark(automatic == Some(adapter.index)),
                adapter.index.to_string(),
                adapter.info.name.clone(),
                adapter.info.api.clone(),
                adapter.device_type.to_string(),
                adapter.info.driver.clone(),
                format::bytes(adapter.max_buffer),
                format::bytes(adapter.max_binding),
                format::bytes(adapter.workgroup_memory.into()),
            ]
        })
        .collect();
    let mut cpu: [String; 9] = Default::default();
    cpu[0] = mark(automatic.is_none());
    cpu[1] = "cpu".to_string();
    cpu[2] = cpu_name();
    cpu[3] = "CPU".to_string();
    cpu[4] = "processor".to_string();
    cpu[5] = "built in".to_string();
    rows.push(cpu);
    let heading = ["", "index", "name", "backend", "type", "driver", "buffer", "binding", "workgroup"];
    format::columns(heading, &rows)
}

fn list(adapters: &[AdapterSummary], automatic: Option<usize>) -> Value {
    let mut devices: Vec<Value> = adapters
        .iter()
        .map(|adapter| {
            json!({
                "index": adapter.index,
                "name": adapter.info.name,
                "backend": adapter.info.api,
                "type": adapter.device_type,
                "driver": adapter.info.driver,
                "max_buffer": adapter.max_buffer,
                "max_binding": adapter.max_binding,
                "workgroup_memory": adapter.workgroup_memory,
                "automatic": automatic == Some(adapter.index),
            })
        })
        .collect();
    devices.push(json!({
        "index": "cpu",
        "name": cpu_name(),
        "backend": "CPU",
        "type": "processor",
        "driver": "",
        "max_buffer": null,
        "max_binding": null,
        "workgroup_memory": null,
        "automatic": automatic.is_none(),
    }));
    devices.into()
}

fn cpu_name() -> String {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let plural = if threads == 1 { "" } else { "s" };
    let level = format!("{:?}", Level::detect()).to_lowercase();
    format!("CPU ({threads} thread{plural}, {level})")
}
