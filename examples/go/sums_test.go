package sums

import "testing"

func TestAdd(t *testing.T) {
	for name, tc := range map[string]struct {
		numbers []int
		want    int
	}{
		"none": {nil, 0},
		"some": {[]int{1, 2, 3}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Add(tc.numbers...); got != tc.want {
				t.Errorf("found %d, wanted %d", got, tc.want)
			}
		})
	}
}
