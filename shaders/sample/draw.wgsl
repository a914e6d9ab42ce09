// The draw of a token from the surviving weights.

#import shared::philox
#import sample::keys
#import sample::sums

struct Drawn {
    token: u32,
    mass: vec2<u32>,
    draw: vec2<u32>,
}

// The first id whose inclusive prefix sum of surviving weights exceeds the draw. Every invocation
// sums a chunk; the chunk that holds the draw is divided again until it is short enough to walk.
fn draw_token(lane: u32, generated: u32, lowest: u32, best: u32) -> Drawn {
    var start = 0u;
    var length = V;
    var base = vec2<u32>(0u); // mass before `start`
    var mass = vec2<u32>(0u);
    var draw = vec2<u32>(0u);
    loop {
        let chunk = (length + W - 1u) / W;
        let first = min(start + lane * chunk, V);
        let end = min(min(first + chunk, start + length), V);
        var own = vec2<u32>(0u);
        for (var id = first; id < end; id += 1u) {
            let value = weight_from(id, lowest, best);
            own = add64(own, vec2<u32>(select(0u, value, value >= p.min_p), 0u));
        }
        let sums = scan(lane, own);
        if (length == V) {
            mass = sums.total;
            if (lane == 0u) {
                message = vec4<u32>(mul_high64(random_word(generated), mass), 0u, 0u);
            }
            draw = workgroupUniformLoad(&message).xy;
        }

        let before = add64(base, sums.before);
        if (!less64(draw, before) && less64(draw, add64(before, own))) {
            var sum = before;
            var id = first;
            if (chunk <= WALK) {
                for (; id < end; id += 1u) {
                    let value = weight_from(id, lowest, best);
                    sum = add64(sum, vec2<u32>(select(0u, value, value >= p.min_p), 0u));
                    if (less64(draw, sum)) {
                        break;
                    }
                }
            }
            message = vec4<u32>(id, sum, 0u);
        }
        let found = workgroupUniformLoad(&message);
        start = found.x;
        base = found.yz;
        length = chunk;
        if (chunk <= WALK) {
            break;
        }
    }
    return Drawn(start, mass, draw);
}
