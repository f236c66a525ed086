"The benchmarks compare what can be compared, and their arithmetic is right; how fast anything is, is not tested."

import json
import math

import pytest
import torch
from benchmarks import contenders, report
from benchmarks.__main__ import CELLS
from torch.utils.flop_counter import FlopCounterMode

from transformer_nb import count_parameters, from_huggingface

SIZE = contenders.Size(n_layers=2, n_heads=2, d_model=64, block_size=32, batch_size=3)
HERE = {name: make for name, make in contenders.CONTENDERS.items() if make.package in ("torch", "transformers")}


@pytest.fixture(scope="module")
def made():
    return {name: make(SIZE) for name, make in HERE.items()}


def test_contenders_are_of_one_size(made):
    counts = {name: count_parameters(contender.model) for name, contender in made.items()}
    contenders.check_sizes(counts)
    with pytest.raises(ValueError, match="litgpt has 1 parameters"):
        contenders.check_sizes({**counts, "litgpt": 1})


@pytest.mark.parametrize("name", HERE)
def test_a_contender_learns_and_writes(name):
    contender = HERE[name](SIZE)
    contender.text = torch.arange(100_000) % 5  # what comes next is not hard to learn
    if name == "ours":
        contender.prepare()
    losses = [contender.train_step().item() for _ in range(30)]
    assert losses[-1] < losses[0] - 1
    assert abs(HERE[name](SIZE, "bf16").train_step() - math.log(contenders.VOCABULARY)) < 0.1
    contenders.scatter_weights(contender.model)
    prompt = contender.text[: SIZE.prompt]
    texts = [contender.generate(prompt, 20, use_cache) for use_cache in (False, contender.has_cache)]
    assert torch.equal(*texts) and torch.equal(texts[0][: SIZE.prompt], prompt)
    assert len(texts[0]) == SIZE.prompt + 20 and len(texts[0].unique()) > 5  # a text that wanders about


def test_hugging_face_and_ours_are_the_same_model(made, tmp_path):
    theirs = made["Hugging Face"]
    theirs.model.save_pretrained(tmp_path)
    ids = theirs.text[None, : SIZE.block_size]
    assert torch.allclose(from_huggingface(tmp_path)(ids), theirs.logits(ids), atol=1e-4)


def test_head_by_head_and_ours_are_the_same_model(made):
    ours, theirs = made["ours"].attention(SIZE), made["head by head"].attention(SIZE)
    weights, biases = ours.in_proj_weight.view(3, 2, 32, 64), ours.in_proj_bias.view(3, 2, 32)  # (q k v, head, d_k, ...)
    with torch.no_grad():
        for i, head in enumerate(theirs.heads):
            for j, matrix in enumerate(head):
                matrix.weight.copy_(weights[j, i])
                matrix.bias.copy_(biases[j, i])
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = torch.randn(2, 7, 64)
    assert torch.allclose(theirs(x, is_causal=True), ours(x, is_causal=True), atol=1e-5)


@pytest.mark.parametrize("backward", [False, True])
def test_operations_are_counted_as_pytorch_counts_them(made, backward):
    contender = made["head by head"]  # whose products are all in the open
    x = contender.text[: 3 * 32].view(3, 32)
    with FlopCounterMode(display=False) as counter:
        logits = contender.logits(x)
        if backward:
            logits.sum().backward()
    contender.optimizer.zero_grad()
    assert counter.get_total_flops() == contenders.flops(SIZE, 3, 32, backward)


ROUNDS = {"ours": [2.0, 1.0, 2.0], "quick": [3.0, 2.0, 2.0], "slow": [1.0, 9.0, 9.0], "machine": [1.0, 1.0, 1.0]}


def test_ratios_are_taken_round_by_round_against_the_best_median():
    assert report.compare(ROUNDS) == {
        "ours": 2.0, "peer": "quick", "theirs": 2.0, "ratio": 1.5, "least": 1.0, "most": 2.0, "share": 0.5
    }  # fmt: skip
    assert report.compare({"ours": [2.0]})["peer"] is None


def test_goals_are_met_by_the_median_and_by_right_tokens():
    name = "a token with cache, M"
    assert [report.verdict(name, ratio) for ratio in (1.3, 1.4, 2.5)] == ["missed", "met", "goal reached"]
    assert "other tokens" in report.verdict(name, 3.0, same=False)
    assert all(f"training step, {size}, {precision}" in report.GOALS for size, precision in CELLS)


def test_a_table_and_a_figure_are_made_of_results(tmp_path):
    rounds = {"training step, S, float32": ROUNDS, "peak memory, S, float32": {"ours": [1e6]}, "attention time, 64": {"ours": [1.0]}}
    results = {"about": "a machine", "rounds": rounds, "same tokens": {}, "left out": ["litgpt is not installed"]}
    shown = report.table(json.loads(json.dumps(results)))
    assert "| training step, S, float32 | 2e+03 ms | quick | 2e+03 ms | **1.50** (1.00 to 2.00) | 1.0 (1.2) | goal reached | 50% |" in shown
    assert "Left out: litgpt is not installed." in shown
    report.figure(results, tmp_path / "results.png")
    assert (tmp_path / "results.png").stat().st_size > 1000
