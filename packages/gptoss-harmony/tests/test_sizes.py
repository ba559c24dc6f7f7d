from gptoss_harmony import sizes
from gptoss_harmony.config import gpt_oss_20b, gpt_oss_120b


def test_published_counts():
    assert sizes.parameters(gpt_oss_20b()) == 20_914_757_184
    assert sizes.parameters(gpt_oss_120b()) == 116_829_156_672
    assert round(sizes.active_parameters(gpt_oss_20b()) / 1e9, 2) == 3.61
    assert round(sizes.active_parameters(gpt_oss_120b()) / 1e9, 2) == 5.13
    assert sizes.weight_bytes(gpt_oss_20b(), packed=True) == 13_761_264_768
    assert sizes.weight_bytes(gpt_oss_120b(), packed=True) == 65_248_815_744


def test_cache_with_and_without_the_window_trick():
    config = gpt_oss_20b()
    assert sizes.cache_bytes(config, 1000, full_windows=True) == 1000 * 48 * 1024
    growth = sizes.cache_bytes(config, 2001) - sizes.cache_bytes(config, 2000)
    assert growth == 24 * 1024
    assert sizes.cache_bytes(config, 100) == sizes.cache_bytes(config, 100, full_windows=True)


def test_every_kind_has_its_share():
    kinds = sizes.bytes_by_kind(gpt_oss_20b(), "original")
    assert set(kinds) == set(sizes.KINDS)
    assert kinds["embedding"] == kinds["unembedding"] == 201_088 * 2880 * 2
    assert kinds["norms"] == 49 * 2880 * 2
    assert sizes.expert_bytes(gpt_oss_20b(), packed=True) == 5760 * 90 * 17 + 2880 * 90 * 17
