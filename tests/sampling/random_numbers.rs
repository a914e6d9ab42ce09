//! Philox against published vectors.

use bdh_gpu::sampling::{draw_word, philox4x32_10};

#[test]
fn philox_matches_the_published_vectors() {
    let vectors = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
        ([0, 0, 0, 0], [42, 0], [0x9cea_f053, 0x77f5_493b, 0x12bf_50ad, 0x5742_b3d7]),
        ([1, 0, 0, 0], [42, 0], [0xfcdb_2127, 0x53ba_6cfd, 0x838f_5a6e, 0x744e_06fb]),
        ([0, 1, 0, 0], [42, 0], [0x42e0_b8b3, 0x7dbf_5de8, 0x2fe7_39d4, 0x6aaf_03eb]),
    ];
    for (counter, key, words) in vectors {
        assert_eq!(philox4x32_10(counter, key), words);
    }
}

#[test]
fn a_draw_uses_words_0_and_1_of_its_step_sequence_and_stream() {
    assert_eq!(draw_word(42, 0, 0, 0), 0x9cea_f053_77f5_493b);
    assert_eq!(draw_word(42, 1, 0, 0), 0xfcdb_2127_53ba_6cfd);
    assert_eq!(draw_word(42, 0, 1, 0), 0x42e0_b8b3_7dbf_5de8);
    let [high, low, ..] = philox4x32_10([5, 6, 7, 0], [0x89ab_cdef, 0x0123_4567]);
    let word = draw_word(0x0123_4567_89ab_cdef, 5, 6, 7);
    assert_eq!(word, u64::from(high) << 32 | u64::from(low));
}
