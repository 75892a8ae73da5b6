use super::*;

#[test]
fn a_block_holds_what_was_put_into_it() {
    let mut frames = Frames::new().unwrap();
    let mut out = b"before".to_vec();
    let bytes = b"flowlog ".repeat(1000);
    frames.append(&bytes, &mut out).unwrap();
    let first = out.len();
    frames.append(b"x", &mut out).unwrap();
    let mut rest = &out[b"before".len()..];
    assert!(first < 200, "{first}");
    for expected in [&bytes[..], b"x"] {
        let (hash, block) = rest.split_at(HASH);
        let length = u32::from_le_bytes(block[1..5].try_into().unwrap()) as usize;
        assert_eq!(block[0], ZSTD);
        assert_eq!(block[5..HEAD], (expected.len() as u32).to_le_bytes());
        assert_eq!(zstd::bulk::decompress(&block[HEAD..length], 1 << 20).unwrap(), expected);
        let sum = cityhash_rs::cityhash_102_128(&block[..length]).rotate_right(64);
        assert_eq!(hash, sum.to_le_bytes());
        rest = &block[length..];
    }
    assert!(rest.is_empty());
}
