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
    assert tuning.measured == (capability == 90)


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
        for tokens in (1, 300, 8192):
            whole, window = (
                tuning.launch(f"attention_prefill{kind}", tokens).pairs for kind in ("", "_window")
            )
            assert whole == window  # they share the tiles of a step


@pytest.mark.parametrize("capability", [86, 89, 120, 121])
def test_cards_with_little_shared_memory_get_tiles_that_fit(capability):
    """What waits in shared memory: all stages but the one in use, two bytes an element."""
    rows, most = Tuning.for_capability(capability).rows, 99 << 10
    launches = {operation: [row.launch for row in lines] for operation, lines in rows.items()}
    for launch in [*launches["attention_decode"], *launches["attention_window"]]:
        assert (launch.stages - 1) * launch.warps * launch.rows * 2 * 64 * 2 <= most
    for launch in launches["router_many"]:
        assert (launch.stages - 1) * (128 + launch.pairs) * launch.columns * 2 <= most
    for launch in [*launches["experts_up"], *launches["experts_down"]]:
        assert (launch.stages - 1) * (128 * launch.pairs * 2 + launch.rows * 68) <= most


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
