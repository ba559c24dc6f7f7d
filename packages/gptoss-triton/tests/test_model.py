import pytest
import torch

from gptoss_core.model import Transformer
from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_triton.cache import PagedCache
from gptoss_triton.model import Batch, Model, prefill_tiles
from gptoss_triton.tuning import Tuning
from gptoss_triton.weights import load_weights

VOCABULARY = 192


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = tiny_config(vocab_size=VOCABULARY, sliding_window=20)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return Checkpoint.open(random_checkpoint(folder, config, seed=5))


class Runner:
    """Feeds a model by hand, with pages in a shuffled order."""

    def __init__(self, place, checkpoint, sequences):
        self.place = place
        weights = load_weights(checkpoint, place.device, dtype=place.dtype)
        self.pages = 4
        count = sequences * self.pages + 1
        cache = PagedCache.empty(
            checkpoint.config,
            full_pages=count,
            window_pages=count,
            device=place.device,
            dtype=place.dtype,
        )
        cache.full.fill_(float("nan"))
        cache.windowed.fill_(float("nan"))
        tuning = Tuning.for_device(place.device)
        self.model = Model(weights, cache, tuning, max_decode=8, max_tokens=128)
        order = torch.randperm(count)[: sequences * self.pages].view(sequences, self.pages)
        self.table = place.ints(order)
        self.other = place.ints(order.flip(0))
        self.done = [0] * sequences

    def step(self, chunks, *, decode):
        """Run (sequence, tokens) chunks; with `decode` each is one token and goes the short way."""
        ints = self.place.ints
        tokens = [token for _, chunk in chunks for token in chunk]
        sequences = [row for row, chunk in chunks for _ in chunk]
        positions, last = [], []
        for row, chunk in chunks:
            positions += range(self.done[row], self.done[row] + len(chunk))
            self.done[row] += len(chunk)
            last.append(len(positions) - 1)
        tiles = None
        if not decode:
            size = self.model.tuning.launch("attention_prefill", len(tokens)).pairs
            tiles = prefill_tiles(
                [(row, len(chunk)) for row, chunk in chunks],
                first=0,
                tokens=size,
                device=self.place.device,
            )
        return self.model.forward(
            Batch(
                tokens=ints(tokens),
                sources=ints(range(len(tokens))),
                positions=ints(positions),
                sequences=ints(sequences),
                full_table=self.table,
                window_table=self.other,
                decode=len(tokens) if decode else 0,
                tiles=tiles,
                last=torch.tensor(last, device=self.place.device),
            )
        )


@pytest.mark.slow
def test_prefill_chunks_and_decode_equal_the_reference(place, checkpoint):
    runner = Runner(place, checkpoint, sequences=2)
    reference = Transformer.from_checkpoint(checkpoint.path, dtype=torch.float32)
    tokens = torch.randint(0, VOCABULARY, (2, 80))
    with torch.inference_mode():
        expected = torch.stack([reference(row) for row in tokens])
    pieces = tokens.tolist()
    # A random router has near ties, and one flipped expert is more than all rounding together.
    bound = place if place.device.type == "cpu" else type(place)(place.device, place.dtype, 2e-2)
    logits = runner.step([(0, pieces[0][:3]), (1, pieces[1][:30])], decode=False)
    bound.close(logits, torch.stack([expected[0, 2], expected[1, 29]]))
    logits = runner.step([(0, pieces[0][3:78])], decode=False)
    bound.close(logits, expected[0, 77:78])
    for step in range(2):
        pair = [(0, [pieces[0][78 + step]]), (1, [pieces[1][30 + step]])]
        logits = runner.step(pair, decode=True)
        bound.close(logits, torch.stack([expected[0, 78 + step], expected[1, 30 + step]]))
    logits = runner.step([(1, [pieces[1][32]])], decode=True)
    bound.close(logits, expected[1, 32:33])
