import itertools

from hypothesis import given
from hypothesis import strategies as st

from subfour.seeding import derive_seed

places = st.lists(st.integers() | st.text("a1/ é"), min_size=1, max_size=5)


def test_seeds_do_not_change():
    """A run that resumes under another version, machine or Python draws the same numbers."""
    assert derive_seed(0, "crops", 3) == 6855560967087189861
    assert derive_seed(0, "crops", 3, 0) == 4993096361843236044


@given(places)
def test_a_seed_fits_every_generator(place: list[int | str]):
    """Torch takes 64 bits with sign, random.Random anything."""
    assert 0 <= derive_seed(*place) < 2**63


@given(places, places)
def test_other_places_have_other_seeds(one: list[int | str], other: list[int | str]):
    """No two of them collide by the way they are written: (1, 23) is not (12, 3)."""
    same = [str(part) for part in one] == [str(part) for part in other]
    assert (derive_seed(*one) == derive_seed(*other)) == same


def test_neighbouring_places_are_unrelated():
    """Half of the bits differ on average."""
    seeds = [derive_seed(0, "step", 0, 0, step) for step in range(1000)]
    differing = [(one ^ other).bit_count() for one, other in itertools.pairwise(seeds)]
    assert 30.5 < sum(differing) / len(differing) < 32.5
