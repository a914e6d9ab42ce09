use bdh_gpu::generation::*;
use bdh_gpu::model::{Model, forgetting::Forgetting};
use std::time::Instant;
fn main() {
    let dev: DeviceChoice = std::env::args().nth(1).unwrap_or("cpu".into()).parse().unwrap();
    let n: usize = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(20000);
    let bdh = Bdh::new(Model::embedded().unwrap(), &dev, WeightChoice::Auto).unwrap();
    let c = std::fs::read("/work/shared/corpus/tinyshakespeare.txt").unwrap();
    let text = &c[c.len() - 20000..];
    let toks = bdh.encode(&text[..n]).unwrap();
    for f in [Forgetting::of_model(&bdh.model().config), Forgetting::Full] {
        let t = Instant::now();
        let s =
            bdh.score(if f == Forgetting::Full { &toks[..toks.len().min(4000)] } else { &toks }, f, |_| {}).unwrap();
        println!(
            "{f:?} bits {:.5} ppl {} blocks {:?} in {:?}",
            s.bits_per_token(),
            s.perplexity(),
            s.blocks(2000),
            t.elapsed()
        );
    }
}
