//! A short, stable name for a value: tells whether a pod was made from what the instance says now.

use serde::Serialize;

/// FNV-1a, 64 bits, of the value's JSON form: the same for every version of this program and of
/// Rust. It protects against nothing; a collision delays a replacement until the next edit.
pub(crate) fn template_hash(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
