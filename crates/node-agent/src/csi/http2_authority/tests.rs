use super::*;

/// `:method POST`, `:scheme http`, a Huffman-coded path, then the authority as gRPC for Go writes
/// it, `te: trailers`.
fn block(authority: &[u8]) -> Vec<u8> {
    let mut block = b"\x83\x86\x44\x83abc\x41".to_vec();
    block.extend_from_slice(authority);
    block.extend_from_slice(b"\x40\x02te\x86nested");
    block
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    frame.extend_from_slice(payload);
    frame
}

/// Feeds the bytes in pieces of `size`.
fn fed(bytes: &[u8], size: usize) -> Vec<u8> {
    let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
    bytes
        .chunks(size)
        .for_each(|piece| rewriter.feed(piece, &mut out));
    out
}

#[test]
fn the_authority_becomes_localhost_however_the_bytes_arrive() {
    let long = [b"\xff\x21".as_slice(), &[0x5a; 160]].concat();
    let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100]);
    let data = frame(0, 1, &[0x41; 40]);
    let sent = [
        PREFACE,
        &settings,
        &frame(HEADERS, END_HEADERS, &block(&long)),
        &data,
    ]
    .concat();
    let wanted = [
        PREFACE,
        &settings,
        &frame(HEADERS, END_HEADERS, &block(LOCALHOST)),
        &data,
    ]
    .concat();
    for size in [1, 2, 7, 9, 24, 33, 4096] {
        assert_eq!(fed(&sent, size), wanted, "in pieces of {size}");
    }
}

#[test]
fn padding_goes_and_priority_stays() {
    let payload = [
        b"\x02\x00\x00\x00\x00\x10".as_slice(),
        &block(b"\x03%2F"),
        &[0, 0],
    ]
    .concat();
    let sent = [
        PREFACE,
        &frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &payload),
    ]
    .concat();
    let payload = [b"\x00\x00\x00\x00\x10".as_slice(), &block(LOCALHOST)].concat();
    assert_eq!(
        fed(&sent, 5),
        [PREFACE, &frame(HEADERS, END_HEADERS | PRIORITY, &payload)].concat()
    );
}

#[test]
fn what_is_not_understood_is_passed_on() {
    let broken = [
        frame(HEADERS, END_HEADERS, b"\x41\xff\xff\xff\xff\xff"),
        frame(HEADERS, END_HEADERS, b"\x41\x20short"),
        frame(HEADERS, END_HEADERS | PADDED, b"\x09"),
        frame(HEADERS, 0, &block(b"\x03%2F")),
        frame(HEADERS, END_HEADERS, &vec![0x41; MAX_FRAME + 1]),
    ];
    for frame in broken {
        let sent = [PREFACE, &frame].concat();
        assert_eq!(fed(&sent, 11), sent);
    }
}

#[test]
fn indexed_fields_are_left_alone() {
    // A second request on the connection names the remembered authority by its index.
    let sent = [
        PREFACE,
        &frame(HEADERS, END_HEADERS, b"\x83\x86\xc1\x3f\xe1\x1f\xbf"),
    ]
    .concat();
    assert_eq!(fed(&sent, 3), sent);
}
