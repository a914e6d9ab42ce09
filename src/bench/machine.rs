//! A graphics card as a prediction sees it: rates, latencies, and places for workgroups.

use std::str::FromStr;

/// Numbers of a graphics card.
///
/// As text: a preset, or `GB/S,US_PER_DISPATCH,WORKGROUPS`; then, separated by commas, any of
/// `dram-us`, `l2-us`, `l2-gbs`, `l2-mib`, `barrier-us`, `resident` and `binding-mib` with a value:
/// `960,4,96,l2-mib=96` or `h200,l2-us=0.15`.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The text that describes it.
    pub name: String,
    /// Memory's rate, in 10⁹ bytes per second.
    pub memory_gbs: f64,
    /// Time between two dependent dispatches, in µs.
    pub dispatch_us: f64,
    /// Compute units: workgroups that run at full speed side by side.
    pub units: f64,
    /// Latency of memory, in µs.
    pub memory_us: f64,
    /// Latency of the last shared cache, in µs.
    pub cache_us: f64,
    /// Rate of the last shared cache, in 10⁹ bytes per second.
    pub cache_gbs: f64,
    /// Bytes in the last shared cache.
    pub cache_bytes: f64,
    /// Time from barrier to barrier, in µs.
    pub barrier_us: f64,
    /// Most workgroups that share a compute unit.
    pub resident: f64,
    /// Largest binding, in bytes: it decides how many sequences share a dispatch.
    pub binding: u64,
}

/// Rates and latencies of the presets: data sheets, and what programs reach (memory about 90 %).
/// Name, GB/s, µs per dispatch, compute units, memory's and cache's latency, cache's GB/s and MiB.
const PRESETS: [(&str, [f64; 7]); 3] = [
    ("h200", [4300.0, 3.0, 132.0, 0.8, 0.25, 5500.0, 50.0]),
    ("rx7900xtx", [960.0, 4.0, 96.0, 0.75, 0.2, 3500.0, 96.0]),
    ("igpu", [100.0, 5.0, 12.0, 0.6, 0.15, 700.0, 2.0]),
];

const MIB: f64 = 1048576.0;

impl Machine {
    /// Names of the presets.
    pub fn presets() -> [&'static str; 3] {
        PRESETS.map(|(name, _)| name)
    }

    fn new(name: &str, [memory_gbs, dispatch_us, units, memory_us, cache_us, cache_gbs, cache_mib]: [f64; 7]) -> Self {
        Self {
            name: name.to_string(),
            memory_gbs,
            dispatch_us,
            units,
            memory_us,
            cache_us,
            cache_gbs,
            cache_bytes: cache_mib * MIB,
            barrier_us: 0.08,
            resident: 4.0,
            binding: 2048 << 20,
        }
    }

    fn set(&mut self, key: &str, value: f64) -> Result<(), String> {
        match key {
            "dram-us" => self.memory_us = value,
            "l2-us" => self.cache_us = value,
            "l2-gbs" => self.cache_gbs = value,
            "l2-mib" => self.cache_bytes = value * MIB,
            "barrier-us" => self.barrier_us = value,
            "resident" => self.resident = value.max(1.0),
            "binding-mib" => self.binding = (value * MIB) as u64,
            _ => {
                return Err(format!(
                    "unknown key {key:?}: expected dram-us, l2-us, l2-gbs, l2-mib, barrier-us, resident or binding-mib"
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let first = parts.next().unwrap_or_default();
        let mut machine = match PRESETS.iter().find(|(name, _)| first.eq_ignore_ascii_case(name)) {
            Some(&(_, numbers)) => Self::new(text, numbers),
            None => {
                let wanted = || {
                    let presets = Self::presets().join(", ");
                    format!("expected {presets}, or three numbers above 0: GB/s, µs per dispatch, workgroups")
                };
                let number = |part: Option<&str>| positive(part.unwrap_or_default()).ok_or_else(wanted);
                let memory = number(Some(first))?;
                let [dispatch, units] = [number(parts.next())?, number(parts.next())?];
                Self::new(text, [memory, dispatch, units, 0.8, 0.25, 4.0 * memory, 4.0])
            }
        };
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("expected KEY=VALUE, got {part:?}"))?;
            let value = positive(value).ok_or_else(|| format!("{key} needs a number above 0, got {value:?}"))?;
            machine.set(key, value)?;
        }
        Ok(machine)
    }
}

fn positive(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_or_three_numbers_and_what_differs() {
        let own: Machine = "960, 4,96,l2-mib=96,dram-us=0.75".parse().expect("a machine");
        assert_eq!((own.memory_gbs, own.dispatch_us, own.units), (960.0, 4.0, 96.0));
        assert_eq!((own.memory_us, own.cache_us, own.cache_gbs, own.cache_bytes), (0.75, 0.25, 3840.0, 96.0 * MIB));
        let preset: Machine =
            "H200,resident=2,l2-gbs=6000,l2-us=0.2,barrier-us=0.1,binding-mib=128".parse().expect("one");
        assert_eq!((preset.memory_gbs, preset.resident, preset.cache_gbs), (4300.0, 2.0, 6000.0));
        assert_eq!((preset.cache_us, preset.barrier_us, preset.binding), (0.2, 0.1, 128 << 20));
    }

    #[test]
    fn what_is_no_machine_is_an_error() {
        let error = |text: &str| text.parse::<Machine>().expect_err(text);
        for text in ["", "h100", "960", "960,4", "960,4,0", "960,4,-1", "960,4,inf", "960,4,x"] {
            assert!(error(text).starts_with("expected h200, rx7900xtx, igpu, or three numbers"), "{text}");
        }
        assert!(error("h200,5").contains("KEY=VALUE"));
        assert!(error("h200,l2-us=0").contains("above 0"));
        assert!(error("h200,l3=1").contains("binding-mib"));
    }
}
