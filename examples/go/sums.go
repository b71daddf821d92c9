// Package sums adds numbers, so that there is something to test.
package sums

// Add returns the sum of its arguments.
func Add(numbers ...int) int {
	sum := 0
	for _, n := range numbers {
		sum += n
	}
	return sum
}
