//! The order of all runs, and the rows made of them.

use super::bandwidth::{MEMORY, bandwidth, read_bandwidth};
use super::cases::{Case, HISTORY, Lane, Test, Timed, text};
use super::report::{Report, Row, Speed};
use super::traffic::NumberTypes;
use super::{Bandwidth, BenchError, BenchOptions, Density, chunk_traffic, density, traffic};
use crate::backend::memory::SavedMemory;
use crate::backend::profile::Activity;
use crate::backend::{Backend, DeviceKind, Input, Output, Plan, SlotStep, WeightType};
use crate::generation::batch::first_chunk;
use crate::generation::{Bdh, DeviceChoice, WeightChoice};
use crate::model::Config;
use crate::model::forgetting::{Clock, Forgetting};

/// Tokens of each sequence whose activity is counted where they run one by one: one window, in which every pair enters the
/// state once.
const COUNTED: usize = 16;

/// Measures one model on some devices.
///
/// Each repetition runs every test, and each test every batch on every device in turn, so that a machine whose speed
/// drifts is fair to all. All sequences of all devices and batches are held at once. `progress` hears what
/// comes next and how much of all runs is done, from 0 to 1.
///
/// # Errors
/// [`BenchError`] for options that make no sense, and where a device fails.
pub fn run(devices: &[Bdh], options: &BenchOptions, progress: &mut dyn FnMut(&str, f64)) -> Result<Report, BenchError> {
    options.validate()?;
    let cases = options.cases();
    let mut lanes = Vec::new();
    for &sequences in &options.batches {
        for bdh in devices {
            lanes.push(Lane::new(bdh, sequences)?);
        }
    }
    let count = lanes.len();
    let total = (1 + options.repetitions) * cases.len() * count;
    let mut timed: Vec<Vec<Timed>> = (0..cases.len() * count).map(|_| Vec::new()).collect();
    let mut done = 0;
    for repetition in 0..=options.repetitions {
        for (index, case) in cases.iter().enumerate() {
            for (lane_index, lane) in lanes.iter_mut().enumerate() {
                let (test, sequences, device) = (test_name(case), lane.sequences, lane.bdh.device());
                progress(&format!("{test}, batch {sequences}, {device}"), done as f64 / total as f64);
                let run = lane.run(case)?;
                // The first one compiles, touches memory for the first time, and finds the length of a burst.
                if repetition > 0 {
                    timed[index * count + lane_index].push(run);
                }
                done += 1;
            }
        }
    }
    let lanes: Vec<(Bdh, usize)> = lanes.into_iter().map(|lane| (lane.bdh.clone(), lane.sequences)).collect();
    progress("counting what fires", 1.0);
    let mut counter = Counter::new(devices);
    let mut memory = MemoryTest::default();
    let mut rows = Vec::new();
    for (batch, devices) in lanes.chunks(devices.len().max(1)).enumerate() {
        for (index, case) in cases.iter().enumerate() {
            let first = index * count + batch * devices.len();
            let Some(drawn) = timed[first].first().map(|run| &run.drawn) else { continue };
            let mut counted: Vec<(Option<usize>, Activity)> = Vec::new();
            for ((bdh, sequences), runs) in devices.iter().zip(&timed[first..]) {
                let chunk = chunk_of(bdh, case);
                let activity = match counted.iter().find(|(known, _)| *known == chunk) {
                    Some((_, activity)) => *activity,
                    None => counter.count(case, *sequences, drawn, chunk)?,
                };
                counted.push((chunk, activity));
                rows.extend(rows_of(bdh, *sequences, case, &activity, runs, &mut memory));
            }
        }
    }
    Ok(Report { rows, bandwidth: memory.main })
}

/// Tokens in the first chunk of a case's prompt; nothing where tokens are read one by one.
fn chunk_of(bdh: &Bdh, case: &Case) -> Option<usize> {
    match case.test {
        Test::Prompt(tokens) => first_chunk(tokens, bdh.backend().chunk_tokens()),
        Test::Decode(_) => None,
    }
}

/// The rows of one test on one device: two for a prompt.
fn rows_of(
    bdh: &Bdh,
    sequences: usize,
    case: &Case,
    activity: &Activity,
    runs: &[Timed],
    memory: &mut MemoryTest,
) -> Vec<Row> {
    let (model, backend) = (bdh.model(), bdh.backend());
    let config = &model.config;
    let seconds = || runs.iter().map(|run| run.seconds.max(1e-9));
    let rates = |tokens: usize| seconds().map(|seconds| (tokens * sequences) as f64 / seconds).collect();
    let row = Row {
        model: model.name.clone(),
        parameters: config.parameters() as u64,
        weights: backend.weight_type().to_string(),
        state: backend.state_type().to_string(),
        device: bdh.device().to_string(),
        test: test_name(case),
        batch: sequences,
        depth: case.depth,
        speed: Speed::TokensPerSecond(0.0),
        stddev: 0.0,
        samples: Vec::new(),
        bytes_per_token: None,
        gb_per_second: None,
        density: density(config, activity),
        bandwidth_gb_per_second: None,
        share_of_floor: None,
    };
    let of_activity = if chunk_of(bdh, case).is_some() { chunk_traffic } else { traffic };
    let bytes_per_token = Some(of_activity(config, NumberTypes::of(backend), activity).total());
    match case.test {
        Test::Prompt(tokens) => {
            let first = Row { test: "ttft".to_string(), speed: Speed::Seconds(0.0), ..row.clone() };
            vec![Row { bytes_per_token, ..row }.measured(rates(tokens)), first.measured(seconds().collect())]
        }
        Test::Decode(tokens) => {
            let held = backend.weight_bytes() + (4 * sequences * SavedMemory::len(config, backend.state_type())) as u64;
            let cpu = bdh.device().kind == DeviceKind::Cpu;
            let bandwidth_gb_per_second = cpu.then(|| memory.over(held));
            vec![Row { bytes_per_token, bandwidth_gb_per_second, ..row }.measured(rates(tokens))]
        }
    }
}

/// "tg64", "pp1024".
fn test_name(case: &Case) -> String {
    match case.test {
        Test::Prompt(tokens) => format!("pp{tokens}"),
        Test::Decode(tokens) => format!("tg{tokens}"),
    }
}

/// Bandwidths that have been measured.
#[derive(Default)]
struct MemoryTest {
    main: Option<Bandwidth>,
    smaller: Vec<(u64, f64)>,
}

impl MemoryTest {
    /// The bandwidth of reading `bytes` over and over.
    fn over(&mut self, bytes: u64) -> f64 {
        let main = self.main.get_or_insert_with(bandwidth);
        if bytes >= MEMORY {
            return main.read;
        }
        match self.smaller.iter().find(|(known, _)| *known == bytes) {
            Some((_, read)) => *read,
            None => {
                let read = read_bandwidth(bytes);
                self.smaller.push((bytes, read));
                read
            }
        }
    }
}

/// Runs tokens on the CPU to count what fires.
struct Counter<'a> {
    devices: &'a [Bdh],
    /// One of the devices, or made when first needed.
    cpu: Option<Bdh>,
}

impl<'a> Counter<'a> {
    fn new(devices: &'a [Bdh]) -> Self {
        Self { devices, cpu: devices.iter().find(|bdh| bdh.device().kind == DeviceKind::Cpu).cloned() }
    }

    /// What a case's tokens touched: those of the prompt's first chunk; or, where they run one by one, the last of the first
    /// ones, after a history that fills the window where there are enough.
    fn count(
        &mut self,
        case: &Case,
        sequences: usize,
        drawn: &[Vec<u32>],
        chunk: Option<usize>,
    ) -> Result<Activity, BenchError> {
        let bdh = match (&self.cpu, self.devices.first()) {
            (Some(cpu), _) => cpu,
            (None, Some(device)) => {
                let weights = match device.backend().weight_type() {
                    WeightType::F32 => WeightChoice::F32,
                    WeightType::F16 => WeightChoice::F16,
                    WeightType::I8 => WeightChoice::Int8,
                };
                self.cpu.insert(Bdh::new(device.model().clone(), &DeviceChoice::Cpu, weights)?)
            }
            (None, None) => return Ok(Activity::default()),
        };
        let config = &bdh.model().config;
        let (wanted, counted) = match chunk {
            Some(tokens) => (case.history().0 + tokens, tokens),
            None => (HISTORY + COUNTED, COUNTED),
        };
        let tokens: Vec<Vec<u32>> = (0..sequences)
            .map(|sequence| {
                let given = case.given(config.vocab_size, sequence).into_iter();
                let read = &drawn[sequence][..drawn[sequence].len() - 1];
                given.chain(read.iter().copied()).take(wanted).collect()
            })
            .collect();
        let output = match case.test {
            Test::Prompt(_) => Output::State,
            Test::Decode(_) => Output::Logits,
        };
        count_activity(bdh.backend(), config, &tokens, counted, case.history().1, output)
    }
}

/// Shares of what fires when the CPU reads one window of tokens at a depth.
pub(super) fn measured_density(cpu: &Bdh, depth: u32) -> Result<Density, BenchError> {
    let config = &cpu.model().config;
    let case = Case { test: Test::Prompt(COUNTED), depth };
    let (_, position) = case.history();
    let tokens = [text(config.vocab_size, HISTORY + COUNTED, 0)];
    let activity = count_activity(cpu.backend(), config, &tokens, COUNTED, position, Output::State)?;
    Ok(density(config, &activity))
}

/// Bytes that a decoded token of a text moves where its numbers have a backend's types. What fires
/// is counted on the CPU.
///
/// # Errors
/// [`BenchError`] where the CPU cannot hold the model.
pub fn bytes_per_token(bdh: &Bdh, tokens: &[u32]) -> Result<f64, BenchError> {
    let config = &bdh.model().config;
    let cpu = if bdh.device().kind == DeviceKind::Cpu { bdh.clone() } else { bdh.on_cpu()? };
    let first = tokens[..tokens.len().min(HISTORY + COUNTED)].to_vec();
    let counted = COUNTED.min(first.len());
    let activity = count_activity(cpu.backend(), config, &[first], counted, 0, Output::Logits)?;
    Ok(traffic(config, NumberTypes::of(bdh.backend()), &activity).total())
}

/// Reads sequences of equal length whose first token has the given position, and counts what the last `counted` tokens of
/// each touched.
fn count_activity(
    backend: &dyn Backend,
    config: &Config,
    tokens: &[Vec<u32>],
    counted: usize,
    position: u32,
    output: Output,
) -> Result<Activity, BenchError> {
    let mut slots = backend.create_slots(tokens.len())?;
    let mut clock = Clock::at(Forgetting::of_model(config), position);
    let length = tokens.first().map_or(0, Vec::len);
    let mut steps: Vec<Vec<SlotStep>> = (0..length)
        .map(|index| {
            let tick = clock.tick();
            let step = |tokens: &Vec<u32>| SlotStep {
                input: Input::Token(tokens[index]),
                output,
                position: tick.position,
                read_scale: tick.read_scale,
                write_scale: tick.write_scale,
                rescale: tick.rescale,
            };
            tokens.iter().map(step).collect()
        })
        .collect();
    let counted = steps.split_off(length.saturating_sub(counted));
    slots.run(&Plan { steps, trace_logits: false })?;
    let profile = slots.profile(&Plan { steps: counted, trace_logits: false })?;
    Ok(profile.activity.unwrap_or_default())
}
