import torch
from torch import distributed as dist

from subfour import collective
from tests.workers import in_workers


def everything(own: list[list[float]], names: list[list[str]]) -> dict[str, object]:
    """Return the answer of every function to what the workers bring along."""
    rank = collective.rank()
    mine = torch.tensor(own[rank % len(own)])
    taken = mine.clone()
    collective.take_from_main([taken])
    return {
        "rank": rank,
        "count": collective.count(),
        "is_main": collective.is_main(),
        "totals": collective.totals(*mine.tolist()),
        "anyone": [collective.anyone(rank == 1), collective.anyone(False)],
        "summed": collective.summed(mine).tolist(),
        "smallest": collective.smallest(mine).tolist(),
        "gathered": collective.gathered(mine).tolist(),
        "union": collective.union(names[rank % len(names)]),
        "from_main": collective.from_main(f"worker {rank}"),
        "taken": taken.tolist(),
    }


def test_all_workers_get_the_same_answer_by_definition():
    own, names = [[1.0, 5.0], [2.0, -4.0], [3.5, 0.25]], [["b"], ["a", "b"], []]
    answers = in_workers(3, everything, own, names)
    assert [(answer.pop("rank"), answer.pop("is_main")) for answer in answers] == [(0, True), (1, False), (2, False)]
    assert (
        answers
        == [
            {
                "count": 3,
                "totals": [6.5, 1.25],
                "anyone": [True, False],
                "summed": [6.5, 1.25],
                "smallest": [1.0, -4.0],
                "gathered": own,
                "union": ["a", "b"],
                "from_main": "worker 0",
                "taken": own[0],
            }
        ]
        * 3
    )


def test_with_one_process_everything_is_the_identity_and_nothing_is_connected():
    answers = everything([[1.0, 5.0]], [["b", "a"]])
    assert answers == {
        "rank": 0,
        "count": 1,
        "is_main": True,
        "totals": [1.0, 5.0],
        "anyone": [False, False],
        "summed": [1.0, 5.0],
        "smallest": [1.0, 5.0],
        "gathered": [[1.0, 5.0]],
        "union": ["a", "b"],
        "from_main": "worker 0",
        "taken": [1.0, 5.0],
    }
    assert not dist.is_initialized()


def order_of_entrance() -> float:
    with collective.main_first():
        return float(torch.tensor(0.0)) if collective.is_main() else 1.0


def test_main_goes_first():
    assert in_workers(2, order_of_entrance) == [0.0, 1.0]
