use bdh_gpu::backend::gpu::*;
use bdh_gpu::backend::*;
use bdh_gpu::model::*;
use bdh_gpu::sampling::*;
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let wg: Option<u32> = a.get(1).and_then(|s| s.parse().ok());
    let big = a.get(2).map(|s| s == "big").unwrap_or(false);
    let slots: usize = a.get(3).and_then(|s| s.parse().ok()).unwrap_or(1);
    let n: usize = a.get(4).and_then(|s| s.parse().ok()).unwrap_or(128);
    let model = if big {
        Model::synthetic(&SyntheticSpec {
            n_layer: 6,
            n_embd: 256,
            n_head: 4,
            neurons_per_head: 8192,
            vocab_size: 256,
            density: 0.25,
            seed: 1,
        })
    } else {
        Model::embedded().unwrap()
    };
    let b: Box<dyn Backend> = if wg == Some(0) {
        Box::new(cpu::CpuBackend::new(&model, WeightType::F16, None).unwrap())
    } else {
        Box::new(
            GpuBackend::with_options(
                &model,
                WeightType::F16,
                &AdapterChoice::Any,
                GpuOptions { workgroup: wg, ..Default::default() },
            )
            .unwrap(),
        )
    };
    let mut s = b.create_slots(slots).unwrap();
    let p = SamplerParams::new(&SamplingOptions { temperature: 0.8, top_k: 50, ..Default::default() }, 1, 0);
    for i in 0..slots {
        s.set_sampler(i, &p, &vec![0; model.config.vocab_size], 0).unwrap();
    }
    let step = |t: u32, first: bool| {
        vec![
            SlotStep {
                input: if first { Input::Token(10) } else { Input::Previous },
                output: Output::Token,
                position: t,
                ..SlotStep::IDLE
            };
            slots
        ]
    };
    let mut t = 0;
    let mut best: f64 = 0.0;
    for round in 0..4 {
        let k = if round == 0 { 8 } else { n };
        let plan = Plan { steps: (0..k).map(|i| step(t + i as u32, t + i as u32 == 0)).collect(), trace_logits: false };
        let st = Instant::now();
        s.run(&plan).unwrap();
        let e = st.elapsed().as_secs_f64();
        t += k as u32;
        if round > 0 {
            best = best.max((k * slots) as f64 / e);
        }
    }
    println!("wg {wg:?} big {big} slots {slots}: best {best:.1} tok/s");
}
