from subfour.analysis.claims import claims


def test_the_three_figures_reproduce_and_the_fourth_claim_does_not():
    shown = [(f"{claim.computed:.2f}", f"{claim.like_for_like:.2f}", claim.holds) for claim in claims()]
    assert shown[:3] == [("37.66", "38.47", True), ("37.99", "39.53", True), ("63.80", "63.80", True)]
    assert shown[3] == ("-2.34", "0.00", False)
