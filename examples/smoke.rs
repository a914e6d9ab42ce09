use bdh_gpu::generation::*;
use bdh_gpu::model::{Model, forgetting::Forgetting};
use std::time::Instant;
fn main() {
    let n: usize = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(200);
    let dev: DeviceChoice = std::env::args().nth(1).unwrap_or("cpu".into()).parse().unwrap();
    let t = Instant::now();
    let model = Model::embedded().unwrap();
    println!("load {:?}", t.elapsed());
    let bdh = Bdh::new(model, &dev, WeightChoice::Auto).unwrap();
    println!("{} {:?}", bdh.device(), t.elapsed());
    let mut s = bdh.session(Forgetting::of_model(&bdh.model().config)).unwrap();
    println!("session {:?}", t.elapsed());
    s.feed(&bdh.encode(b"To be or not to be").unwrap(), |_| std::ops::ControlFlow::Continue(())).unwrap();
    println!("fed {:?}", t.elapsed());
    let mut o = GenerationOptions::of_model(bdh.model());
    o.max_new_tokens = n;
    o.seed = Some(1);
    let start = Instant::now();
    let mut first = None;
    let g = s
        .generate(&o, |_| {
            first.get_or_insert(start.elapsed());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let e = start.elapsed();
    println!("{}", String::from_utf8_lossy(&g.tokens.iter().map(|&t| t as u8).collect::<Vec<_>>()));
    println!(
        "first {first:?} {} tokens in {e:?}: {:.1} tok/s",
        g.tokens.len(),
        g.tokens.len() as f64 / e.as_secs_f64()
    );
}
