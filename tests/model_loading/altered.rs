//! Configurations and safetensors headers altered at random; tests/altered_files.rs does it to every format.

use super::both;
use super::common::golden;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

#[test]
fn altered_files_never_panic() {
    const ROUNDS: usize = 3000;
    let source = golden("micro");
    let weights = fs::read(source.join("model.safetensors")).unwrap();
    let config = fs::read(source.join("config.json")).unwrap();
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let directory = TempDir::new().unwrap();
    let (weights_path, config_path) =
        (directory.path().join("model.safetensors"), directory.path().join("config.json"));
    fs::write(&weights_path, &weights).unwrap();
    fs::write(&config_path, &config).unwrap();
    // Removed first: some file systems wait for the disk when a file is overwritten.
    let replace = |path: &Path, bytes: &[u8]| {
        let _ = fs::remove_file(path);
        fs::write(path, bytes).unwrap();
    };
    let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
    let mut loaded = 0;
    for round in 0..ROUNDS {
        // Every third round alters the configuration, the others the weights, mostly their header.
        let (path, original, front) = match round % 3 {
            0 => (&config_path, &config, config.len()),
            _ => (&weights_path, &weights, header),
        };
        replace(path, &alter(original, front, &mut random));
        match both::from_path(directory.path()) {
            Ok(model) => {
                loaded += 1;
                assert!(model.weights.encoder.to_vec().iter().all(|value| value.is_finite()));
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(".json: ") || message.contains(".safetensors: "), "{message}");
            }
        }
        replace(path, original);
    }
    // Both outcomes must occur, or the alterations test nothing.
    assert!((100..ROUNDS - 100).contains(&loaded), "{loaded} of {ROUNDS} altered models loaded");
}

/// Flips bits, cuts the end off, or lengthens a number in the first `front` bytes.
fn alter(original: &[u8], front: usize, random: &mut impl Rng) -> Vec<u8> {
    let mut bytes = original.to_vec();
    match random.random_range(0..5) {
        0 => bytes.truncate(random.random_range(0..bytes.len())),
        1 => {
            let digits: Vec<usize> = (0..front).filter(|&i| bytes[i].is_ascii_digit()).collect();
            let at = digits[random.random_range(0..digits.len())];
            let more = random.random_range(1..20);
            bytes.splice(at..at, (0..more).map(|_| random.random_range(b'0'..=b'9')));
            // Keep the header's length right half of the time, so that its numbers are looked at.
            if front < bytes.len() && at >= 8 && random.random() {
                let length = (front - 8 + more) as u64;
                bytes[..8].copy_from_slice(&length.to_le_bytes());
            }
        }
        2 => {
            let digits: Vec<usize> = (8.min(front)..front).filter(|&i| bytes[i].is_ascii_digit()).collect();
            let at = digits[random.random_range(0..digits.len())];
            bytes[at] = random.random_range(b'0'..=b'9');
        }
        3 => {
            let at = random.random_range(0..front);
            bytes[at] = random.random();
        }
        _ => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
    }
    bytes
}
