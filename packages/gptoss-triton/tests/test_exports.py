import gptoss_triton


def test_exports_are_sorted_and_there():
    assert sorted(gptoss_triton.__all__) == gptoss_triton.__all__
    for name in gptoss_triton.__all__:
        assert getattr(gptoss_triton, name)
