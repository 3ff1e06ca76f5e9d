"""Files for integer runtimes, and the check that they compute what was trained. What only predicts needs no torch."""
