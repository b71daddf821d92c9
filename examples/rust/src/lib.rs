//! Adds numbers, so that there is something to test.

/// Returns the sum of numbers.
///
/// ```
/// assert_eq!(sums::add(&[1, 2, 3]), 6);
/// ```
pub fn add(numbers: &[i64]) -> i64 {
    numbers.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::add;

    #[test]
    fn the_sum_of_none_is_0() {
        assert_eq!(add(&[]), 0);
    }

    #[test]
    fn adds_all() {
        assert_eq!(add(&[1, 2, 3]), 6);
    }
}
