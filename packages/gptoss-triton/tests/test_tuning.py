import json
from importlib.resources import files

import pytest

from gptoss_triton.errors import UnsupportedGpu
from gptoss_triton.tuning import Tuning

TABLES = json.loads(files("gptoss_triton").joinpath("tuning.json").read_text())["cards"]


@pytest.mark.parametrize("capability", [0, 80, 86, 89, 90, 100, 120])
def test_every_supported_card_gets_every_operation(capability):
    tuning = Tuning.for_capability(capability)
    assert set(tuning.rows) == set(TABLES["90"])
    for operation in tuning.rows:
        for tokens in (1, 7, 64, 256, 8192, 1 << 29):
            assert tuning.launch(operation, tokens).pdl == (capability >= 90)
    assert tuning.measured == (str(capability) in TABLES)


def test_rows_are_in_order_and_both_products_agree():
    for name, table in TABLES.items():
        for operation, rows in table.items():
            sizes = [row["tokens"] for row in rows]
            assert sizes == sorted(sizes), (name, operation)
        for form in ("", "_direct"):
            ups, downs = (table[f"experts_{side}{form}"] for side in ("up", "down"))
            keys = ("tokens", "scaled") if form else ("tokens", "scaled", "pairs")
            for up, down in zip(ups, downs, strict=True):
                assert [up.get(key) for key in keys] == [down.get(key) for key in keys], name


def test_an_old_card_is_told_so():
    with pytest.raises(UnsupportedGpu, match=r"sm_75.*--engine torch"):
        Tuning.for_capability(75)


@pytest.mark.parametrize("capability", [0, 80, 90])
def test_the_fixed_table_has_one_size_for_any_number_of_tokens(capability):
    tuning = Tuning.for_capability(capability).fixed()
    for operation in tuning.rows:
        assert len({tuning.launch(operation, tokens) for tokens in (1, 7, 300, 8192)}) == 1
    assert tuning.limit("experts_up_direct") == tuning.limit("router_few") == 0
    assert tuning.limit("linear") >= 8192
