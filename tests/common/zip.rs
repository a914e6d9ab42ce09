//! A writer of zip archives with stored members, for files that no sound program writes.
#![allow(dead_code, reason = "every test crate uses a part")]

/// One member: its name and its bytes.
pub type Member<'a> = (&'a str, &'a [u8]);

/// An archive of stored members.
pub fn archive(members: &[Member]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let offset = file.len() as u32;
        let (checksum, length) = (crc32fast::hash(bytes), bytes.len() as u32);
        let mut common = Vec::new();
        common.extend([20u16, 0, 0, 0, 0].iter().flat_map(|value| value.to_le_bytes()));
        common.extend([checksum, length, length].iter().flat_map(|value| value.to_le_bytes()));
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend(*bytes);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (file.len() as u32, members.len() as u16);
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0; 2]);
    file
}

/// A checkpoint with this pickle and nothing else.
pub fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    archive(&[("model/data.pkl", pickle), ("model/byteorder", b"little")])
}
