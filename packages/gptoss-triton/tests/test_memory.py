import pytest

from gptoss_harmony.config import gpt_oss_20b, gpt_oss_120b
from gptoss_harmony.errors import OutOfMemory, UsageError
from gptoss_triton.attention_decode import parts_of
from gptoss_triton.memory import (
    FIXED_PARTS,
    LONE_PARTS,
    PARTS,
    SHARES,
    plan_memory,
    weight_bytes,
    work_bytes,
)
from gptoss_triton.options import TritonOptions
from gptoss_triton.tuning import Tuning

GB = 10**9


def test_the_promised_sizes_fit():
    small = plan_memory(gpt_oss_20b(), 16 * GB, TritonOptions(context=8192))
    assert small.context == 8192
    large = plan_memory(gpt_oss_120b(), 79 * GB, TritonOptions(context=32768))
    assert large.context == 32768


@pytest.mark.parametrize("capacity", [15 * GB, 16 * GB, 24 * GB, 80 * GB, 140 * GB])
def test_a_plan_spends_no_more_than_there_is(capacity):
    config = gpt_oss_20b()
    plan = plan_memory(config, capacity, TritonOptions())
    assert plan.weights + plan.work + plan.pages <= capacity
    assert plan.work == work_bytes(config, max_batch=plan.max_batch, step_tokens=plan.step_tokens)
    assert plan.step_tokens > plan.max_batch
    assert plan.full_pages * 64 > plan.context
    # A lone chunk and the windows of a full batch of answers find pages.
    assert plan.window_pages >= plan.step_tokens // 64 + 4
    assert "keys and values" in str(plan)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("fixed", [False, True])
def test_what_programs_share_is_planned(capability, fixed):
    tuning = Tuning.for_capability(capability)
    tuning = tuning.fixed() if fixed else tuning
    parts = FIXED_PARTS if fixed else PARTS
    for batch in (1, 4, 16, 256, 4096):
        for kind in ("attention_decode", "attention_window"):
            wanted = max(min(row.tokens, batch) * parts_of(row.launch) for row in tuning.rows[kind])
            assert wanted <= max(LONE_PARTS, parts * batch)
    assert max(row.launch.splits for row in tuning.rows["router_many"]) <= SHARES


def test_weights_are_the_published_bytes_and_a_little():
    published = 13_761_264_768
    assert published < weight_bytes(gpt_oss_20b()) < 1.01 * published


def test_what_cannot_fit_is_said_before_loading():
    with pytest.raises(OutOfMemory, match=r"12\.8 GiB for its weights alone.*9\.3 GiB"):
        plan_memory(gpt_oss_20b(), 10 * GB, TritonOptions())
    with pytest.raises(OutOfMemory, match=r"131,072 tokens of context do not fit.*would"):
        plan_memory(gpt_oss_20b(), 16 * GB, TritonOptions(context=131_072))


def test_options_name_the_flag():
    for changes in ({"gpu_memory": 2.0}, {"context": 0}, {"max_batch": 0}):
        with pytest.raises(UsageError, match="--"):
            TritonOptions(**changes)
    with pytest.raises(UsageError, match="--step-tokens"):
        TritonOptions(step_tokens=16, max_batch=16)
