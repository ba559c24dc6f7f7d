from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gptoss_core.train.documents import Documents
from gptoss_core.train.packing import Packer, plan_rows


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 5))
def test_every_document_is_packed_once_and_fits(sizes: list[int], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(sizes))
    rows = plan_rows(np.array(sizes), 32, order)
    assert sorted(member for row in rows for member in row) == list(range(len(sizes)))
    assert all(sum(min(sizes[member], 32) for member in row) <= 32 for row in rows)


def test_batches_do_not_depend_on_where_one_begins(documents: Documents) -> None:
    def packer() -> Packer:
        return Packer([lambda: documents], context=32, rows=4, seed=5)

    one_by_one = packer()
    in_order = [one_by_one.batch(step) for step in range(30)]  # several epochs
    late = packer()
    for step in (29, 3, 17):
        assert np.array_equal(late.batch(step).tokens, in_order[step].tokens)


def test_epochs_differ_and_hold_the_same_tokens(documents: Documents) -> None:
    packer = Packer([lambda: documents], context=32, rows=1, seed=5)
    rows = len(list(packer.all_rows()))
    seen = [np.sort(packer.batch(s).tokens[packer.batch(s).labels > 0]) for s in range(2 * rows)]
    assert not all(np.array_equal(seen[i], seen[i + rows]) for i in range(rows))


def test_targets_are_the_positions_before_loss_tokens_of_the_same_document(
    documents: Documents,
) -> None:
    packer = Packer([lambda: documents], context=32, rows=2, seed=0)
    for rows in packer.all_rows():
        targets = set(rows.targets.tolist())
        for row in range(2):
            for t in range(31):
                learns = bool(rows.labels[row, t + 1] & 1)
                same = rows.document[row, t] == rows.document[row, t + 1]
                assert (row * 32 + t in targets) == (learns and same)


def test_a_part_is_loaded_only_when_it_is_reached(documents: Documents) -> None:
    loaded = []

    def part(number: int) -> Documents:
        loaded.append(number)
        return documents

    packer = Packer([lambda i=i: part(i) for i in range(3)], context=32, rows=1, seed=0)  # type: ignore[misc]
    packer.batch(0)
    assert loaded == [0]
