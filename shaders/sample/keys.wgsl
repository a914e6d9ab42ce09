// Keys that sort as the processed logits do, and the tokens' weights.

#import shared::u64
#import sample::inputs

// A token's bias, as bits.
fn bias_of(id: u32) -> u32 {
    if ((p.flags & FLAG_BIASES) == 0u) {
        return 0u;
    }
    return biases[counts_base + id];
}

// A key that sorts as the processed logit does; 0 for a banned token.
fn order_key(bits: u32, count: u32, bias: u32) -> u32 {
    let key = key_of(biased(penalised(canonical(bitcast<f32>(bits)), count), bias));
    let banned = bits == NEGATIVE_INFINITY || bias == NEGATIVE_INFINITY || (count & banned_bits) != 0u;
    return select(key, 0u, banned);
}

// 2^(-(largest - logit) · log2(e) / temperature) as a Q1.31 integer.
fn weight(key: u32, best: u32) -> u32 {
    if (key == 0u) {
        return 0u;
    }
    // The distance is not negative, so its bits sort as its value does, even on overflow.
    let distance = bitcast<u32>(canonical(order_value(best) - order_value(key)));
    let fixed = u32(bitcast<f32>(min(distance, LONGEST_DISTANCE)) * 16777216.0);

    let product = mul_wide(fixed, p.scale);
    let shift = p.scale_shift & 31u; // scale_shift is at least 3
    var exponent = product.y >> shift;
    var overflow = 0u;
    if (p.scale_shift < 32u) {
        overflow = exponent;
        exponent = (product.x >> shift) | (product.y << (32u - shift));
    }
    if (overflow != 0u || exponent >= 0x20000000u) {
        return 0u;
    }
    let fraction = exponent & 0xffffffu;
    var value = table[fraction >> 16u];
    value -= mul_wide(value, table[COARSE_LEN + ((fraction >> 9u) & 127u)]).y;
    value -= mul_wide(value, ((fraction & 511u) * 45426u) >> 8u).y;
    return value >> (exponent >> 24u);
}

fn key_at(id: u32) -> u32 {
    if (SMALL) {
        return stored_keys[id];
    }
    return order_key(logits[logits_base + id], counts[counts_base + id], bias_of(id));
}

// Weight of a token if its key is at least `lowest`, otherwise 0.
fn weight_from(id: u32, lowest: u32, best: u32) -> u32 {
    let key = key_at(id);
    if (key < lowest) {
        return 0u;
    }
    if (SMALL) {
        return stored_weights[id];
    }
    return weight(key, best);
}
