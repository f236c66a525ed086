"What a processor can do changes how fast it goes, never whether it works: here with its newest instructions switched off."

import os
import subprocess
import sys

import pytest

CAPPED = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
PROGRAM = """
import torch
from transformer_nb import EncoderDecoder, LanguageModel, TrainingConfig, TransformerConfig, generate, train

config = TransformerConfig(13, block_size=64, n_layers=2, n_heads=2, d_model=64)  # products as large as in training
ids = torch.randint(13, (32, 64))
for positions in ("learned", "rotary"):
    for model, inputs in ((LanguageModel, (ids,)), (EncoderDecoder, (ids, ids))):
        torch.manual_seed(0)
        model = model(TransformerConfig(**{**config.__dict__, "positions": positions}))
        with torch.no_grad():
            expected = model(*inputs)
        for dtype in (torch.bfloat16, torch.float16):
            half = model.to(dtype)
            output = half(*inputs)
            output.float().square().mean().backward()
            assert output.dtype == dtype and (output.float() - expected).abs().max() < 0.05
            assert all(p.grad is not None and p.grad.isfinite().all() for p in half.parameters())
            model = model.float()
            model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(*inputs)
        output.float().square().mean().backward()
        assert output.dtype == torch.bfloat16 and (output.float() - expected).abs().max() < 0.05
history = train(LanguageModel(config), ids.flatten(), TrainingConfig(steps=3, precision="bf16", device="cpu"))
assert all(abs(loss - 2.6) < 0.3 for loss in history.loss), history.loss
generate(LanguageModel(config).bfloat16(), ids[0, :3], 5)
print(torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.parametrize("capped", [False, True], ids=["as it is", "without AVX-512"])
def test_half_precision_works_on_every_processor(capped):
    environment = {**os.environ, **(CAPPED if capped else {}), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not capped or done.stdout.strip() != "AVX512"
