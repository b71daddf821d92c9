package set

// RecodeSubtree decodes a subtree, and returns its encoding and how many hashes
// and ids it holds.
func RecodeSubtree(p Prefix, levels int, b []byte) (again []byte, size int, err error) {
	t, err := parseSubtree(p, levels, b)
	if err != nil {
		return nil, 0, err
	}
	return t.append(nil, p), t.size(), nil
}

// Branches is the number of branches, in use or left behind.
func Branches(s *Set) int { return len(s.branches) }
