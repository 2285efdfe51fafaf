//! Sums of squares and what follows from them, exactly: the sum of 2^64 squares of 64-bit values has 190 bits.

/// The number of words that a sum of squares takes.
pub(super) const WORDS: usize = 3;

/// An unsigned number of 256 bits, lowest word first.
type Wide = [u64; 4];

/// Adds the square of `value` to the sum in `words`.
#[inline]
pub(super) fn add_square(words: &mut [u64], value: i64) {
    let square = u128::from(value.unsigned_abs()) * u128::from(value.unsigned_abs());
    add(words, &[low(square), high(square)]);
}

/// Adds the words of one number to those of another; what is beyond the last is dropped.
#[inline]
pub(super) fn add(into: &mut [u64], from: &[u64]) {
    let mut carry = false;
    for (at, word) in into.iter_mut().enumerate() {
        let (sum, over) = word.overflowing_add(from.get(at).copied().unwrap_or(0));
        let (sum, more) = sum.overflowing_add(u64::from(carry));
        (*word, carry) = (sum, over || more);
    }
}

/// The sample variance of `values` ≥ 2 values with this sum and this sum of squares: (n·Σx² − (Σx)²) / (n·(n−1)), whose numerator is
/// exact.
#[allow(clippy::cast_precision_loss, reason = "a variance is a float; it is exact until the division")]
pub(super) fn variance(values: u64, sum: i128, squares: &[u64]) -> f64 {
    let mut numerator = times(values, squares);
    subtract(&mut numerator, &square(sum.unsigned_abs()));
    let denominator = u128::from(values) * u128::from(values.saturating_sub(1));
    to_float(&numerator) / denominator as f64
}

fn times(factor: u64, words: &[u64]) -> Wide {
    let mut product = [0; 4];
    let mut carry = 0;
    for (at, word) in product.iter_mut().enumerate() {
        let part = u128::from(words.get(at).copied().unwrap_or(0)) * u128::from(factor) + u128::from(carry);
        (*word, carry) = (low(part), high(part));
    }
    product
}

fn square(value: u128) -> Wide {
    let mut product = times(low(value), &[low(value), high(value)]);
    let upper = times(high(value), &[low(value), high(value)]);
    add(product.split_at_mut(1).1, &upper);
    product
}

fn subtract(from: &mut Wide, other: &Wide) {
    let mut borrow = false;
    for (word, other) in from.iter_mut().zip(other) {
        let (rest, under) = word.overflowing_sub(*other);
        let (rest, more) = rest.overflowing_sub(u64::from(borrow));
        (*word, borrow) = (rest, under || more);
    }
}

/// The nearest float, but for the last bit: what lies below the highest 128 bits does not count.
#[allow(clippy::cast_precision_loss, reason = "the nearest float is what is wanted")]
fn to_float(words: &Wide) -> f64 {
    let [a, b, c, d] = *words;
    let pair = |low: u64, high: u64| u128::from(low) | (u128::from(high) << 64);
    let (value, shift) = match (d, c) {
        (0, 0) => (pair(a, b), 0),
        (0, _) => (pair(b, c), 64),
        _ => (pair(c, d), 128),
    };
    value as f64 * 2_f64.powi(shift)
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half of a 128-bit word")]
const fn low(value: u128) -> u64 {
    value as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the upper half of a 128-bit word")]
const fn high(value: u128) -> u64 {
    (value >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[i64]) -> f64 {
        let mut squares = [0; WORDS];
        values.iter().for_each(|value| add_square(&mut squares, *value));
        variance(values.len() as u64, values.iter().map(|value| i128::from(*value)).sum(), &squares)
    }

    #[test]
    fn the_variance_of_the_largest_values_is_right() {
        assert_eq!(of(&[2, 4, 4, 4, 5, 5, 7, 9]), 32.0 / 7.0);
        assert_eq!(of(&[5; 9]), 0.0);
        assert_eq!(of(&[i64::MAX; 9]), 0.0);
        assert_eq!(of(&[i64::MIN; 3]), 0.0);
        // Two values 2^64 − 1 apart: (2^64 − 1)² / 2.
        assert_eq!(of(&[i64::MIN, i64::MAX]), 2_f64.powi(127));
        assert_eq!(of(&[i64::MIN + 1, i64::MIN]), 0.5);
    }

    #[test]
    fn the_most_values_do_not_overflow() {
        let square = u128::from(i64::MIN.unsigned_abs()).pow(2);
        let squares = times(u64::MAX, &[low(square), high(square)]);
        let sum = i128::from(i64::MIN) * i128::from(u64::MAX);
        assert_eq!(squares[3], 0, "three words hold it");
        assert_eq!(variance(u64::MAX, sum, &squares[..WORDS]), 0.0);
    }

    proptest! {
        #[test]
        fn a_variance_is_that_of_the_definition(
            values in prop::collection::vec(-1_000_000_000_000i64..1_000_000_000_000, 2..50)
        ) {
            let count = values.len() as f64;
            let mean = values.iter().map(|value| *value as f64).sum::<f64>() / count;
            let expected = values.iter().map(|value| (*value as f64 - mean).powi(2)).sum::<f64>() / (count - 1.0);
            prop_assert!((of(&values) - expected).abs() <= expected.abs() * 1e-9);
        }
    }
}
