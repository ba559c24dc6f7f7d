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
        tuning = Tuning.for_capability(int(name))
        for tokens in (1, 5, 16, 17, 64, 65, 128, 160, 161, 512, 1024, 1025, 8192):
            sizes = [tuning.launch(f"experts_{side}", tokens).pairs for side in ("up", "down")]
            assert sizes[0] == sizes[1], (name, tokens)  # they share a plan
        assert tuning.limit("experts_up_few") == tuning.limit("experts_down_few")


def test_an_old_card_is_told_so():
    with pytest.raises(UnsupportedGpu, match=r"sm_75.*--engine torch"):
        Tuning.for_capability(75)


@pytest.mark.parametrize("capability", [0, 80, 90])
def test_the_fixed_table_has_one_size_for_any_number_of_tokens(capability):
    tuning = Tuning.for_capability(capability).fixed()
    for operation in tuning.rows:
        assert len({tuning.launch(operation, tokens) for tokens in (1, 7, 300, 8192)}) == 1
    assert tuning.limit("experts_up_few") == tuning.limit("router_few") == 0
    assert tuning.limit("linear") >= 8192
