/*!
What the programs that load an operator have in common: its process, and metrics as numbers.
*/

#![forbid(unsafe_code)]

pub mod metrics;
pub mod operator;

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "numbers of objects are small")]
pub fn number(count: usize) -> f64 {
    count as f64
}
