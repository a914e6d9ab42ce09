//! NumPy's file formats, for numbers that leave the program: one array (.npy), or several (.npz).

use crate::files::PendingFile;
use std::io::{self, Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Bytes before the numbers are a multiple of this.
const ALIGNMENT: usize = 64;

/// The numbers of an array, row by row.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Unsigned 32-bit integers.
    U32(&'a [u32]),
    /// Unsigned 64-bit integers.
    U64(&'a [u64]),
    /// Bytes.
    U8(&'a [u8]),
}

impl Numbers<'_> {
    /// NumPy's name of the type.
    fn kind(self) -> &'static str {
        match self {
            Self::F32(_) => "<f4",
            Self::U32(_) => "<u4",
            Self::U64(_) => "<u8",
            Self::U8(_) => "|u1",
        }
    }

    fn write(self, to: &mut impl Write) -> io::Result<()> {
        const BLOCK: usize = 1 << 12;
        let mut block = Vec::with_capacity(8 * BLOCK);
        macro_rules! blocks {
            ($numbers:expr) => {
                for numbers in $numbers.chunks(BLOCK) {
                    block.clear();
                    numbers.iter().for_each(|number| block.extend(number.to_le_bytes()));
                    to.write_all(&block)?;
                }
            };
        }
        match self {
            Self::F32(numbers) => blocks!(numbers),
            Self::U32(numbers) => blocks!(numbers),
            Self::U64(numbers) => blocks!(numbers),
            Self::U8(bytes) => to.write_all(bytes)?,
        }
        Ok(())
    }
}

/// Writes one array. The file takes its place when it is complete.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_npy(path: &Path, shape: &[usize], numbers: Numbers) -> io::Result<()> {
    let mut file = PendingFile::create(path)?;
    write_array(&mut file, shape, numbers)?;
    file.commit()
}

/// Writes arrays by their names. The file takes its place when it is complete.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_npz(path: &Path, arrays: &[(&str, Vec<usize>, Numbers)]) -> io::Result<()> {
    let mut file = PendingFile::create(path)?;
    // Entries say their sizes behind them: the file may be a pipe.
    let mut archive = ZipWriter::new_stream(&mut file);
    write_arrays(&mut archive, arrays)?;
    archive.finish()?;
    file.commit()
}

fn write_arrays<W: Write + Seek>(archive: &mut ZipWriter<W>, arrays: &[(&str, Vec<usize>, Numbers)]) -> io::Result<()> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(true);
    for (name, shape, numbers) in arrays {
        archive.start_file(format!("{name}.npy"), options)?;
        write_array(archive, shape, *numbers)?;
    }
    Ok(())
}

/// Header and numbers.
fn write_array(to: &mut impl Write, shape: &[usize], numbers: Numbers) -> io::Result<()> {
    to.write_all(&header(numbers.kind(), shape))?;
    numbers.write(to)
}

/// The header, version 1.0: magic, version, the length of the rest, a Python dictionary, and spaces
/// up to a line end.
fn header(kind: &str, shape: &[usize]) -> Vec<u8> {
    const FIXED: usize = 10;
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let sizes = if shape.len() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
    let dictionary = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
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
        write_npy(&path, &[2], Numbers::F32(&[1.5, -2.0])).unwrap();
        // np.save("a.npy", np.array([1.5, -2], np.float32))
        let dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend(format!("{dictionary:<117}\n").into_bytes());
        expected.extend([0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn shapes_are_written_as_tuples() {
        let text = |shape: &[usize]| String::from_utf8_lossy(&header("<u4", shape)[10..]).trim().to_string();
        assert_eq!(text(&[]), "{'descr': '<u4', 'fortran_order': False, 'shape': (), }");
        assert_eq!(text(&[3, 4]), "{'descr': '<u4', 'fortran_order': False, 'shape': (3, 4), }");
        assert_eq!(header("<u4", &[1, 2, 3]).len() % ALIGNMENT, 0);
    }
}
