//! NumPy's file format, for numbers that leave the program.

use bdh_gpu::files::PendingFile;
use std::io::{self, Write};
use std::path::Path;

/// Bytes before the numbers are a multiple of this.
const ALIGNMENT: usize = 64;

/// Writes an array of one dimension, little-endian f32. The file takes its place when it is
/// complete.
pub fn write(path: &Path, numbers: &[f32]) -> io::Result<()> {
    let mut file = PendingFile::create(path)?;
    file.write_all(&header(numbers.len()))?;
    for number in numbers {
        file.write_all(&number.to_le_bytes())?;
    }
    file.commit()
}

/// The header, version 1.0: magic, version, the length of the rest, a Python dictionary, and spaces
/// up to a line end.
fn header(length: usize) -> Vec<u8> {
    const FIXED: usize = 10;
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({length},), }}");
    let rest = (FIXED + dictionary.len() + 1).next_multiple_of(ALIGNMENT) - FIXED;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((rest as u16).to_le_bytes());
    header.extend(format!("{dictionary:<width$}\n", width = rest - 1).into_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_numpy_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write(&path, &[1.5, -2.0]).unwrap();
        // np.save("a.npy", np.array([1.5, -2], np.float32))
        let dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend(format!("{dictionary:<117}\n").into_bytes());
        expected.extend([0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }
}
