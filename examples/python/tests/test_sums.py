from sums import add


def test_the_sum_of_none_is_0():
    assert add() == 0


def test_adds_all():
    assert add(1, 2, 3) == 6
